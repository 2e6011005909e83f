"""Every sample once, little padding, equal work; and answers that find their samples again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.batch import Sample
from runtime.dealing import Table, by_sample, deal, gathered, padded

pytestmark = pytest.mark.torch


def samples(lengths: list[int]) -> list[Sample]:
    return [
        Sample(i, list(range(n)), [1] * n, extra={"value": [10.0 * i + t for t in range(n - 1)]})
        for i, n in enumerate(lengths)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 4]),
    st.sampled_from([1, 2]),
)
def test_every_sample_is_dealt_once_and_every_rank_has_the_same_shapes(
    lengths: list[int], dp: int, micro_batch: int, multiple: int, rounds_multiple: int
) -> None:
    rows = samples(lengths)
    shares = [deal(rows, Table(rank, dp, micro_batch, multiple, rounds_multiple)) for rank in range(dp)]
    ids = sorted(sample.id for share in shares for sample in share.samples)
    assert ids == list(range(len(rows)))
    shapes = [[batch.tokens_BT.shape for batch in share.microbatches] for share in shares]
    assert all(shape == shapes[0] for shape in shapes)
    assert len(shapes[0]) % rounds_multiple == 0
    assert all(shape[1] % multiple == 0 for shape in shapes[0])
    for share in shares:
        for batch, lines in zip(share.microbatches, share.lines, strict=True):
            assert batch.rows == [sample.id for sample in lines if sample is not None]
            assert batch.mask_BT.sum() == sum(sample.columns for sample in lines if sample is not None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.sampled_from([1, 2, 3]))
def test_an_answer_finds_its_sample(lengths: list[int], dp: int) -> None:
    rows = samples(lengths)
    found = {}
    for rank in range(dp):
        share = deal(rows, Table(rank, dp, 2, 4))
        outputs = [
            torch.where(batch.mask_BT > 0, batch.extra["value"], torch.nan) for batch in share.microbatches
        ]
        found |= by_sample(outputs, share)
    assert {id: numbers.tolist() for id, numbers in gathered(found, None).items()} == {
        row.id: list(row.extra["value"]) for row in rows
    }


def test_rows_alike_in_length_share_a_microbatch() -> None:
    share = deal(samples([30, 2, 29, 3]), Table(micro_batch=2))
    assert [batch.tokens_BT.shape[1] for batch in share.microbatches] == [29, 2]
    assert [batch.rows for batch in share.microbatches] == [[0, 2], [3, 1]]


def test_rows_of_numbers_become_one_tensor() -> None:
    assert padded([[1.0, 2.0], [], [3.0]]).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert padded([[1.0]], 3).tolist() == [[1, 0, 0]]
