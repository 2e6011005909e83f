"""Packing: a partition into bins that fit, in a fixed order, near to the least number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from runtime.batch import Sample  # noqa: E402
from runtime.packing import packed_bins  # noqa: E402


def samples(lengths):
    return [Sample(i, [0] * (n + 1), [1] * (n + 1)) for i, n in enumerate(lengths)]


def columns(line):
    return sum(s.columns for s in line)


def first_fit_decreasing(lengths, size):
    """The textbook form, quadratic."""
    bins = []
    for n in sorted(lengths, reverse=True):
        for found in bins:
            if sum(found) + n <= size:
                found.append(n)
                break
        else:
            bins.append([n])
    return bins


@given(st.lists(st.integers(1, 32), max_size=60))
def test_bins_are_those_of_first_fit_decreasing(lengths):
    bins = packed_bins(samples(lengths), 32)
    assert [[s.columns for s in line] for line in bins] == first_fit_decreasing(lengths, 32)


@given(st.lists(st.integers(1, 32), max_size=60))
def test_every_sample_is_in_one_bin_and_every_bin_fits(lengths):
    bins = packed_bins(samples(lengths), 32)
    assert sorted(s.id for line in bins for s in line) == list(range(len(lengths)))
    assert all(0 < columns(line) <= 32 for line in bins)


def test_equal_lengths_keep_their_order():
    assert [[s.id for s in line] for line in packed_bins(samples([4, 4, 4]), 8)] == [[0, 1], [2]]


def test_packing_ten_thousand_rows_is_not_quadratic():
    import time

    began = time.perf_counter()
    packed_bins(samples([i % 97 + 1 for i in range(10_000)]), 128)
    assert time.perf_counter() - began < 3
