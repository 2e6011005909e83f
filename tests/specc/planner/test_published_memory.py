"""Published memory: peaks that were logged, and runs that ran out.

Constants are set by the rows called fit alone; those called held are predicted with them as they are.
"""

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "published"))

import measured

ROWS = list(measured.rows())
LOGGED = [row for row in ROWS if row.measured]

UNEXPLAINED = {"llama3-70b 32xh100-80gb fp8 4096/1 tp8 pp4 vp5 none (line 21)": 0.16}
"""One of four runs of a model; what meets the other three within 1 % does not meet it."""

BOUNDS = {("fit", "dense"): 0.01, ("held", "dense"): 0.03, ("fit", "MoE"): 0.06, ("held", "MoE"): 0.06}
"""Of the median error, by part of the table."""


def test_both_parts_of_the_table_are_there():
    parts = {(row.said["split"], row.kind) for row in LOGGED}
    assert parts == set(BOUNDS)
    assert sum(row.said["split"] == "held" for row in LOGGED) >= len(LOGGED) / 2


@pytest.mark.parametrize("row", LOGGED, ids=lambda row: row.name)
def test_the_logged_peak_is_predicted(row: measured.Row):
    assert abs(row.error) < UNEXPLAINED.get(row.name, 0.08)


@pytest.mark.parametrize(("split", "kind"), BOUNDS)
def test_the_median_error_is_bounded(split: str, kind: str):
    errors = [abs(row.error) for row in LOGGED if (row.said["split"], row.kind) == (split, kind)]
    assert statistics.median(errors) < BOUNDS[split, kind]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_ran_is_not_called_infeasible_and_what_ran_out_is(row: measured.Row):
    assert (row.oom < 0.5) is (row.said["outcome"] == "ran")


def test_a_run_that_fits_with_expandable_segments_may_be_lost_without():
    """Llama-3-70B in fp8 failed in 30 to 60 % of its starts until segments could expand."""
    row = next(row for row in LOGGED if row.said["model"] == "llama3-70b")
    fixed = measured.oom_probability(measured.worst_gib(row), row.gpu.usable_gib, False)
    assert row.oom == 0
    assert 0.2 < fixed < 0.7
