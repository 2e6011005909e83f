"""Blends and slices against their laws, and against the plain reading of the rule."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.data.blend import Blend, blended, order_of
from runtime.problem import Problem

PARTS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=4)


def files(folder, *counts):
    found = []
    for part, count in enumerate(counts):
        path = folder / f"{part}.jsonl"
        path.write_text("".join(json.dumps({"part": part, "row": i}) + "\n" for i in range(count)))
        found.append({"path": str(path)})
    return found


def texts(blend):
    return [(row["part"], row["row"]) for row in (blend[i] for i in range(len(blend)))]


@given(PARTS)
def test_every_part_has_its_share_after_any_number_of_rows(parts):
    lengths, weights = zip(*parts, strict=True)
    taken = [0] * len(parts)
    for position, (part, inner) in enumerate(order_of(lengths, weights), start=1):
        assert inner == taken[part] % lengths[part]  # each part in its order, begun again when it is over
        taken[part] += 1
        for had, weight in zip(taken, weights, strict=True):
            assert abs(had - position * weight / sum(weights)) < len(parts)
    assert sum(taken) == sum(lengths)


@given(st.lists(st.integers(0, 5), max_size=4))
def test_without_weights_every_row_comes_once(lengths):
    assert list(order_of(lengths)) == [(p, i) for p, length in enumerate(lengths) for i in range(length)]


def test_two_to_one_alternates(tmp_path):
    one, two = files(tmp_path, 2, 4)
    blend = blended([one | {"weight": 2.0}, two | {"weight": 1.0}], seed=1, cache=tmp_path)
    assert texts(blend) == [(0, 0), (1, 0), (0, 1), (0, 0), (1, 1), (0, 1)]


@pytest.mark.parametrize(("index", "wanted"), [(0, [0, 1, 2]), (1, [3, 4, 5]), (2, [6])])
def test_slices_cut_the_rows_and_drop_none(tmp_path, index, wanted):
    blend = blended(files(tmp_path, 7), seed=1, cache=tmp_path, size=3, index=index)
    assert [row for _, row in texts(blend)] == wanted
    assert blend.first == 3 * index
    with pytest.raises(IndexError):
        blend[len(wanted)]


def test_a_slice_behind_the_end_is_refused(tmp_path):
    with pytest.raises(Problem, match=r"slice 3 of 3 rows would begin at row 9, .* 7 rows, in 3 slices"):
        blended(files(tmp_path, 7), seed=1, cache=tmp_path, size=3, index=3)


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf"), "2", True, None])
def test_a_weight_without_meaning_is_refused(tmp_path, weight):
    one, two = files(tmp_path, 1, 1)
    with pytest.raises(Problem, match="R001: weight 2 of the blend"):
        blended([one | {"weight": 1.0}, two | {"weight": weight}], seed=1, cache=tmp_path)


def test_an_empty_part_has_no_share(tmp_path):
    one, two = files(tmp_path, 1, 0)
    with pytest.raises(Problem, match="R011: data set 2 of the blend is empty"):
        blended([one | {"weight": 1.0}, two | {"weight": 1.0}], seed=1, cache=tmp_path)


def test_a_row_says_where_it_is_from(tmp_path):
    blend = blended(files(tmp_path, 2, 2), seed=1, cache=tmp_path)
    assert blend.where(3) == f"{tmp_path / '1.jsonl'}:2"
    assert blend.find(3) == (1, 1)
    assert isinstance(blend, Blend)
