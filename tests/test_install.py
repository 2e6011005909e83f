"""A plain install, not an editable one, works from another folder with everything it needs inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment into which the project was installed as a user would."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    # a copy, so that the build leaves nothing in the checkout and takes no untracked leftovers along
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\n")):
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "src" / name).write_bytes((ROOT / name).read_bytes())
    install = subprocess.run(
        [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", folder / "src"],
        capture_output=True,
        text=True,
    )
    if "No matching distribution" in install.stderr or "Could not fetch" in install.stderr:
        pytest.skip(f"no package index can be reached: {install.stderr[-300:]}")
    assert install.returncode == 0, install.stderr
    return folder


def specc(installed, *words, **more):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"NO_COLOR": "1", "COLUMNS": "120"}
    (installed / "elsewhere").mkdir(exist_ok=True)
    return subprocess.run(
        [installed / "venv/bin/specc", *words],
        cwd=installed / "elsewhere",
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


def test_shipped_specs_are_listed_from_another_folder(installed):
    listed = specc(installed, "ls")
    assert listed.returncode == 0, listed.stderr
    assert "sft_llama3_70b" in listed.stdout


def test_a_shipped_spec_is_copied_and_compiled_from_another_folder(installed):
    begun = specc(installed, "init", "sft_llama3_70b", "mine")
    assert begun.returncode == 0, begun.stderr
    spec = next((installed / "elsewhere" / "mine").rglob("sft_llama3_70b.yaml"))
    compiled = specc(installed, "compile", str(spec), "--target", "slurm", "-o", "bundle")
    assert compiled.returncode == 0, compiled.stderr
    written = {p.name for p in (installed / "elsewhere/bundle").iterdir()}
    assert {"plan.json", "submit.sh", "provenance.json"} <= written


def test_a_core_install_brings_neither_torch_nor_numpy(installed):
    pip = [installed / "venv/bin/pip", "list", "--disable-pip-version-check"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout.lower()
    assert "pydantic" in listed
    assert "torch" not in listed
    assert "numpy" not in listed


def test_a_core_install_says_what_running_needs(installed):
    ran = specc(installed, "run", "--tiny", str(next((installed / "elsewhere").rglob("sft_llama3_70b.yaml"))))
    assert ran.returncode == 3
    assert "specc[runtime]" in ran.stderr
