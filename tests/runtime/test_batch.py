"""Batches: the shift, the padding, the dealing, and packed lines against padded ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.batch import Sample, data_hash, dealt, token_count, trained_tokens
from runtime.packing import packed_bins

pytestmark = pytest.mark.torch


def sample(i, tokens, mask=None):
    return Sample(i, tokens, mask or [1] * len(tokens))


def test_a_label_is_the_next_token_and_counts_when_that_token_is_to_be_learnt():
    [batch] = dealt([[sample(0, [5, 6, 7, 8], [0, 0, 1, 1])]], 0, 1, 1)
    assert batch.tokens_BT.tolist() == [[5, 6, 7]]
    assert batch.labels_BT.tolist() == [[6, 7, 8]]
    assert batch.mask_BT.tolist() == [[0.0, 1.0, 1.0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2]]


def test_all_microbatches_of_all_ranks_have_one_shape():
    bins = [[sample(i, list(range(n)))] for i, n in enumerate([3, 9, 5, 2, 4])]
    shapes = {b.tokens_BT.shape for rank in range(2) for b in dealt(bins, rank, 2, 2, multiple=4)}
    assert shapes == {(2, 8)}


def test_bins_that_do_not_fill_the_last_round_are_joined_by_empty_ones():
    bins = [[sample(i, [1, 2, 3])] for i in range(3)]
    batches = dealt(bins, 1, 2, 2, pad_id=9)
    assert [b.rows for b in batches] == [[2]]
    assert batches[0].mask_BT.sum() == 2
    assert batches[0].tokens_BT.tolist() == [[1, 2], [9, 9]]


def test_an_interleaved_pipeline_gets_rounds_in_multiples_of_its_stages():
    bins = [[sample(i, [1, 2, 3])] for i in range(3)]
    assert len(dealt(bins, 0, 1, 1, rounds_multiple=2)) == 4


def test_a_packed_line_separates_samples_and_padding():
    bins = [[sample(0, [1, 2, 3, 4]), sample(1, [5, 6])], [sample(2, [7, 8, 9])]]
    [batch] = dealt(bins, 0, 1, 2, multiple=8, packed=True)
    assert batch.tokens_BT.shape == (1, 16)
    assert batch.segments.tolist() == [0, 3, 4, 8, 10, 16]
    assert batch.positions_BT[0].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]
    assert batch.labels_BT[0, [0, 1, 2, 3, 8, 9]].tolist() == [2, 3, 4, 6, 8, 9]
    assert batch.mask_BT.sum() == 6
    assert batch.rows == [0, 1, 2]


def test_a_packed_line_without_samples_is_one_segment_of_padding():
    bins = [[sample(0, [1, 2, 3])]]
    [batch] = dealt(bins, 1, 2, 1, packed=True)
    assert batch.segments.tolist() == [0, 2]
    assert batch.mask_BT.sum() == 0


rows = st.lists(
    st.lists(st.integers(0, 99), min_size=2, max_size=20).map(
        lambda tokens: (tokens, [0, *[1] * (len(tokens) - 1)])
    ),
    min_size=1,
    max_size=12,
)


@given(rows, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_every_label_is_dealt_exactly_once(found, dp, micro_batch, packed):
    samples = [Sample(i, tokens, mask) for i, (tokens, mask) in enumerate(found)]
    bins = packed_bins(samples, 24) if packed else [[s] for s in samples]
    batches = [b for rank in range(dp) for b in dealt(bins, rank, dp, micro_batch, multiple=4, packed=packed)]
    labels = torch.cat([b.labels_BT[b.mask_BT > 0] for b in batches]).tolist()
    assert sorted(labels) == sorted(t for tokens, _ in found for t in tokens[1:])
    assert len(labels) == trained_tokens(bins)
    assert sorted(i for b in batches for i in b.rows) == list(range(len(samples)))


def test_the_hash_of_a_step_sees_rows_tokens_and_masks_but_not_bins():
    a, b = sample(0, [1, 2, 3]), sample(1, [4, 5])
    steps = [[a, b], [a], [sample(0, [1, 2, 4]), b], [sample(0, [1, 2, 3], [0, 1, 1]), b], [a, b, b]]
    assert len({data_hash([samples]) for samples in steps}) == 5
    assert data_hash([[a], [b]]) == data_hash([[b, a]])


def test_tokens_are_counted_without_padding():
    assert token_count([[sample(0, [1, 2, 3])], [], [sample(1, [4])]]) == 4
