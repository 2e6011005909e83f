"""Every algorithm is complete: what its lowering names exists, and a shipped spec shows it."""

from pathlib import Path

import pytest

from specc.compile import compile_spec
from specc.plan import SERVE

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "specs").glob("*.yaml"))


def names(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__"}


@pytest.fixture(scope="module")
def compiled():
    return {path.stem: compile_spec(path) for path in SPECS}


@pytest.fixture(scope="module")
def graphs(compiled):
    return {name: done.graph for name, done in compiled.items()}


def test_every_program_that_a_shipped_spec_lowers_to_is_a_file_of_the_runtime(graphs):
    programs = {role.program for graph in graphs.values() for stage in graph.stages for role in stage.roles}
    assert programs
    assert programs - {SERVE} <= names("runtime/algorithms")


def test_every_algorithm_has_a_shipped_spec_or_is_a_part_of_one(compiled, graphs):
    named = {spec.algorithm for done in compiled.values() for spec in done.experiment.stages.values()}
    parts = {stage.algorithm for graph in graphs.values() for stage in graph.stages}
    assert names("specc/algorithms") <= named | parts


def test_every_shipped_spec_has_a_golden_bundle_for_each_target():
    for path in SPECS:
        assert {p.name for p in (ROOT / "tests" / "golden" / path.stem).iterdir()} == {"local", "slurm"}


def test_every_shipped_spec_begins_with_what_it_is_where_it_runs_and_what_it_makes():
    for path in SPECS:
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        for word in ("paper", "hardware", "produces"):
            assert any(line.startswith(f"# {word} ") for line in comment), f"{path.name} says no {word}"
