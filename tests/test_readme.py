"""The README is true: every shown command runs, and prints what is shown.

A ```console block holds `$ command` lines, each followed by its output. A line that is only `…`
stands for any number of lines; a `…` inside a line stands for anything on that line. Commands of a
block run one after the other in one folder that looks like the root of a fresh clone.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
SLOW = ("make ", "git ", "pip ")  # proven elsewhere: the demo by itself, installs by test_install
TRAINS = "specc run"


def shown(block: str) -> list[tuple[str, list[str]]]:
    """(command, the lines shown under it) for each command of a block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.rstrip("\n").split("\n"):
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def as_pattern(lines: list[str]) -> re.Pattern[str]:
    """The shown lines as a pattern over the whole output."""
    parts = []
    for line in lines:
        inside = r"[^\n]*?".join(re.escape(piece.rstrip()) for piece in line.split("…"))
        parts.append(r"(?:[^\n]*\n)*?" if line.strip() == "…" else inside + r"[ ]*\n")
    return re.compile("".join(parts) + r"\s*")


@pytest.fixture
def clone(tmp_path):
    """A folder that shows the checkout's files, so that what commands write lands elsewhere."""
    for entry in ROOT.iterdir():
        if entry.name not in {"build", "runs", ".git", ".venv"}:
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def run_block(block: str, clone: Path) -> None:
    bin_folder = Path(sys.executable).parent
    plain = {"NO_COLOR": "1", "COLUMNS": "120", "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    for command, lines in shown(block):
        env = {**os.environ, **plain}
        words = ["bash", "-c", f"exec 2>&1; {command}"]
        ran = subprocess.run(words, cwd=clone, env=env, capture_output=True, text=True, timeout=280)
        shown_lines = "\n".join(lines)
        matches = as_pattern(lines).fullmatch(ran.stdout)
        assert matches, f"$ {command}\nshown:\n{shown_lines}\nprinted:\n{ran.stdout}"


def lane(block: str) -> str:
    commands = [command for command, _ in shown(block)]
    if any(command.startswith(SLOW) for command in commands):
        return "elsewhere"
    return "torch" if any(TRAINS in command for command in commands) else "fast"


def blocks_of(wanted: str):
    return pytest.mark.parametrize(
        "block", [pytest.param(b, id=b[2:40]) for b in BLOCKS if lane(b) == wanted]
    )


@blocks_of("fast")
def test_a_shown_command_prints_what_is_shown(block, clone):
    run_block(block, clone)


@pytest.mark.torch
@blocks_of("torch")
def test_a_shown_training_run_prints_what_is_shown(block, clone):
    run_block(block, clone)


def test_the_readme_shows_commands():
    assert any(lane(block) == "fast" for block in BLOCKS)


def test_every_make_target_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) <= targets
