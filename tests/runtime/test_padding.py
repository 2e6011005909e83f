"""What fills a line moves no log-probability of what is in it: its length, its token, its neighbours."""

from __future__ import annotations

from typing import Any

import pytest

from specc.plan import Layout

pytestmark = pytest.mark.torch

BOUND = 1e-6
LAYOUTS = {
    "one": Layout(),
    "TP2": Layout(tp=2, sequence_parallel=True),
    "PP2": Layout(pp=2),
    "DP2": Layout(dp=2),
    "TP2 x PP2": Layout(tp=2, pp=2, sequence_parallel=True),
}


def said(layout: Layout) -> dict[str, dict[int, Any]]:
    """log p of every label of this rank's samples, by the way they were put into lines."""
    import toys

    from runtime import cpu

    cpu.install()
    from runtime import parallel
    from runtime.batch import dealt
    from runtime.engine import Engine

    role = toys.role(layout, micro_batch=2)
    here = parallel.start(layout, "gloo", "cpu", timeout_seconds=60)
    engine, rows = Engine(role, here), toys.samples(8)

    def spoken(bins: list[Any], multiple: int = 4, pad_id: int = 0, packed: bool = False) -> dict[int, Any]:
        batches = dealt(bins, here.dp_rank, layout.dp, 2, multiple=multiple, pad_id=pad_id, packed=packed)
        found: dict[int, Any] = {}
        for batch, output in zip(batches, engine.forward(batches), strict=True):
            found |= cut(batch, output, {row.id: row.columns for row in rows}, packed)
        return found

    alone = [[row] for row in rows]
    pairs = [rows[i : i + 2] for i in range(0, 8, 2)]
    turned = [rows[i : i + 2][::-1] for i in range(0, 8, 2)][::-1]
    return {
        "plain": spoken(alone),
        "longer lines": spoken(alone, multiple=64),
        "another pad token": spoken(alone, pad_id=7),
        "packed": spoken(pairs, packed=True),
        "packed in another order": spoken(turned, packed=True),
        "packed in longer lines": spoken(pairs, multiple=128, pad_id=9, packed=True),
    }


def cut(batch: Any, output: Any, columns: dict[int, int], packed: bool) -> dict[int, Any]:
    """Each sample's own columns: a line for each, or two to a bin and two bins after one another."""
    found, width = {}, output.size(1) // 2
    for place, row in enumerate(batch.rows):
        line, start = (0, place // 2 * width) if packed else (place, 0)
        if packed and place % 2:
            start += columns[batch.rows[place - 1]]
        found[row] = output[line, start : start + columns[row]].double().numpy()
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_fills_a_line_moves_no_log_probability(name: str, world: Any) -> None:
    import numpy as np

    layout = LAYOUTS[name]
    ranks = world(layout.world_size, said, layout)
    together: dict[str, dict[int, Any]] = {}
    for rank in ranks:
        for way, found in rank.items():
            together.setdefault(way, {}).update(found)
    plain = together["plain"]
    assert sorted(plain) == list(range(8))
    for way, found in together.items():
        assert sorted(found) == sorted(plain), way
        for row, logprobs in found.items():
            assert np.abs(logprobs - plain[row]).max() <= BOUND, f"{way}, row {row}"
