"""Published training runs: every one of them is a question that the planner understands."""

import functools
import sys
from pathlib import Path

from specc.planner.estimate import estimate
from specc.planner.shapes import training_flops_per_token

sys.path.insert(0, str(Path(__file__).parents[2] / "published"))

import rows as published
import score

ROWS = list(published.rows())

SLIPS = {"P021": "experts over more ranks than a stage has: the page prints the group of another column"}
"""Rules that rows which are not scored may break, and why they do."""


@functools.cache
def scored() -> list[score.Scored]:
    return score.scored(ROWS)


def test_the_table_is_large_and_a_third_of_it_is_held_out():
    held = sum(row.said["split"] == "held" for row in ROWS) / len(ROWS)
    assert len(ROWS) >= 500
    assert 0.25 < held < 0.45


def test_a_model_on_a_gpu_in_a_precision_is_in_one_split():
    cells: dict[tuple[str, str, str], set[str]] = {}
    for row in ROWS:
        cell = row.said["model"], row.said["gpu"], row.said["dtype"]
        cells.setdefault(cell, set()).add(row.said["split"])
    assert all(len(splits) == 1 for splits in cells.values())


def test_every_layout_that_ran_is_legal():
    wrong = []
    for row in ROWS:
        allowed = set() if row.scored else set(SLIPS)
        _, _, broken = estimate(row.question)
        wrong += [(row.name, each.message) for each in broken if each.code not in allowed]
    assert not wrong, wrong


def test_the_two_columns_of_a_row_agree_with_the_models_flops():
    """Pages count attention in full or by half, and some leave out logits; a wrong digit is farther off.

    What is not scored is a slip of the source, or of another engine.
    """
    rows = [row for row in ROWS if row.said["tflops_per_gpu"] and row.scored]
    assert len(rows) > 250
    wrong = [row.name for row in rows if not _columns_agree(row)]
    assert not wrong, wrong


def _columns_agree(row: published.Row) -> bool:
    q = row.question
    said = 1e12 * float(row.said["tflops_per_gpu"]) / row.tokens_per_second
    attention = 6 * q.shape.layers * q.shape.heads * q.shape.head_dim * q.seq
    half = training_flops_per_token(q.shape, q.seq)
    if row.said["phase"] == "lora":  # no gradients of the frozen weights
        half, attention = half * 2 / 3, attention * 2 / 3
    logits = 6 * q.shape.vocab * q.shape.hidden if row.said["model"].startswith("gpt-oss") else 0
    return 0.93 * (half - attention / 2 - logits) < said < 1.05 * (half + attention)


def test_nothing_that_ran_is_called_infeasible():
    assert [f"{each.row.name}: {each.why}" for each in scored() if each.why] == []
