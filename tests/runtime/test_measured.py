"""What a run leaves for `specc calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.measured import steps_taken

pytestmark = pytest.mark.torch


def test_the_first_steps_do_not_count_where_there_are_more(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "step_seconds": 90.0, "data_seconds": 9.0, "tokens": 100},
        {"step": 2, "step_seconds": 50.0, "tokens": 100},
        {"step": 2, "validation_loss": 1.0, "validation_seconds": 7.0},
        {"step": 3, "step_seconds": 1.0, "data_seconds": 0.1, "tokens": 90},
        {"step": 4, "step_seconds": 3.0, "data_seconds": 0.3, "tokens": 110},
        {"step": 5, "step_seconds": 2.0, "data_seconds": 0.2, "tokens": 100},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = steps_taken(file)
    assert taken == {"steps": 3, "seconds": {"data_seconds": 0.2, "step_seconds": 2.0}, "tokens": 100}
    file.write_text(json.dumps(lines[0]) + "\n")
    assert steps_taken(file)["seconds"]["step_seconds"] == 90.0


def test_a_run_without_lines_has_no_seconds(tmp_path: Path) -> None:
    assert steps_taken(tmp_path / "metrics.jsonl") == {"steps": 0, "seconds": {}, "tokens": 0}
