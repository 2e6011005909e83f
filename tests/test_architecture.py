"""The import rules, read off the code: who may know whom."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "megatron", "numpy", "datasets", "transformers", "pyarrow", "safetensors", "rich", "fsspec")

LAYERS = (
    ("plan", "codes", "shipped", "calibration"),
    ("diagnostics",),
    ("compose",),
    ("source",),
    ("spec",),
    ("models", "graph", "references"),
    ("makers", "preferences"),
    ("algorithms", "rounds"),
    ("schema",),
    ("experiment",),
    ("rows",),
    ("inputs", "twin_words"),
    ("planner",),
    ("tiny", "machine"),
    ("emit",),
    ("compile",),
    ("groups", "processes"),
    ("warm",),
    ("leftovers",),
    ("launch", "serving"),
    ("report",),
    ("pages",),
    ("cli",),
)
"""From the bottom up: a part of specc imports its own layer and those below."""

KNOWS_MEGATRON = (
    *("engine", "model", "recompute", "parallel", "norm", "attention", "feed_forward", "cpu", "hf"),
    *("wanted", "lean"),  # what of a line reaches the vocabulary, and a layer for a few tokens
    *("checkpoint", "torch_dist", "optimizer_state", "gathering", "rng"),  # one face and its three parts
)


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imported(path: Path) -> set[str]:
    """Every module a file imports anywhere, with its dots; `from a import b` counts as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def part_of_specc(path: Path) -> str:
    return path.relative_to(ROOT / "specc").with_suffix("").parts[0]


def test_the_compiler_knows_neither_the_runtime_nor_torch():
    foreign = {"runtime", "torch", "megatron", "numpy", "datasets", "transformers"}
    wrong = [(shown(path), known) for path in python_files("specc") if (known := roots(path) & foreign)]
    assert not wrong, wrong


def test_a_part_of_the_compiler_imports_only_what_lies_below_it():
    level = {part: height for height, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for path in python_files("specc"):
        own = part_of_specc(path)
        if own in ("__init__", "__main__"):
            continue
        assert own in level, f"give specc.{own} its place in LAYERS"
        known = {name.split(".")[1] for name in imported(path) if name.startswith("specc.")} & set(level)
        above = sorted(part for part in known if level[part] > level[own])
        wrong += [f"{shown(path)} must not import {above}"] if above else []
    assert not wrong, wrong


def test_the_runtime_knows_only_the_plan_of_the_compiler():
    wrong = []
    for path in python_files("runtime"):
        names = {name for name in imported(path) if name == "specc" or name.startswith("specc.")}
        if not all(name == "specc" or name.startswith("specc.plan") for name in names):
            wrong.append((shown(path), names))
    assert not wrong, wrong


def test_only_a_few_files_know_megatron():
    knowing = [path for path in python_files("runtime") if "megatron" in roots(path)]
    parts = {shown(path): path.relative_to(ROOT / "runtime").with_suffix("").parts[0] for path in knowing}
    wrong = [name for name, part in parts.items() if part not in KNOWS_MEGATRON]
    assert not wrong, wrong


def test_the_plan_needs_the_standard_library_only():
    assert roots(ROOT / "specc/plan.py") <= set(sys.stdlib_module_names) | {"__future__"}


def test_there_are_no_drawers_without_a_name():
    drawers = {"utils", "helpers", "common", "manager", "handler", "misc"}
    found = [
        path for package in ("specc", "runtime") for path in python_files(package) if path.stem in drawers
    ]
    assert not found


def loaded_by(*words: str) -> set[str]:
    """The heavy modules that one `specc` command has loaded when it is done."""
    code = (
        "import sys; from specc import cli\n"
        f"code = cli.run({list(words)!r})\n"
        f"print('\\n' + ' '.join(m for m in {HEAVY!r} + ('runtime',) if m in sys.modules), code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    *found, code = ran.stdout.rstrip("\n").rsplit("\n", 1)[-1].split(" ")
    assert code == "0", ran.stderr
    return set(filter(None, found))


@pytest.mark.parametrize("command", ["check", "plan", "show"])
def test_a_read_command_loads_nothing_heavy(command):
    assert loaded_by(command, "specs/sft_llama3_70b.yaml") == set()


@pytest.mark.parametrize("target", ["slurm", "local"])
def test_compile_loads_nothing_heavy(target, tmp_path):
    words = ("compile", "specs/sft_llama3_70b.yaml", "--target", target, "-o", str(tmp_path))
    assert loaded_by(*words) == set()


def test_no_two_test_modules_share_a_name():
    """pytest imports them by their bare names; the second of two would not be collected."""
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in names if names.count(name) > 1] == []
