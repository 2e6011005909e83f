"""Stop texts across the boundaries of tokens, against a search of the whole text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.stopping import StopTexts

PIECES = [
    b"a",
    b"b",
    b"ab",
    b"aab",
    b"ba\n",
    b"\n",
    b"\n\n",
    b" ",
    b"",
    b"\xc3",
    b"\xa9",
    b"\xc3\xa9a",
    b"\xf0\x9f",
    b"\x98\x80",
]


def decode(ids):
    """A tokenizer whose tokens are bytes; a character may be spread over several, one token is nothing."""
    return b"".join(PIECES[i] for i in ids).decode("utf-8", errors="replace")


def first_stop(ids, texts):
    """The number of tokens after which the whole text, first has a stop text in it."""
    for n in range(1, len(ids) + 1):
        if any(text in decode(ids[:n]) for text in texts):
            return n
    return None


@given(
    st.lists(st.integers(0, len(PIECES) - 1), max_size=60),
    st.lists(st.text("ab\n é😀", min_size=1, max_size=6), min_size=1, max_size=3),
)
def test_a_response_stops_where_a_search_of_its_whole_text_first_finds_one(ids, texts):
    stops = StopTexts(texts, decode)
    found = next((n for n in range(1, len(ids) + 1) if stops.completed_by_last(ids[:n])), None)
    assert found == first_stop(ids, texts)
    if found:
        whole = decode(ids[:found])
        assert stops.removed(ids[:found]) == whole[: min(whole.find(text) for text in texts if text in whole)]


@given(st.integers(0, 300), st.text("ab\n", min_size=1, max_size=6))
def test_tokens_without_text_do_not_hide_the_beginning_of_a_stop_text(gap, text):
    ids = [{"a": 0, "b": 1, "\n": 5}[c] for c in text]
    spread = [ids[0], *[8] * gap, *ids[1:]]
    assert StopTexts([text], decode).completed_by_last(spread) or spread[-1] == 8


def test_a_text_counts_once_when_it_is_completed_and_not_again():
    stops = StopTexts(["ab"], decode)
    assert stops.completed_by_last([0, 1])
    assert not stops.completed_by_last([0, 1, 0])
    assert stops.completed_by_last([0, 1, 0, 1])


def test_only_the_end_of_a_long_response_is_decoded():
    seen = []
    stops = StopTexts(["ab"], lambda ids: seen.append(len(ids)) or decode(ids))
    stops.completed_by_last([0] * 10_000)
    stops.completed_by_last(np.zeros(10_000, np.int64))
    assert max(seen) < 20


def test_what_a_token_costs_does_not_grow_with_the_response():
    """The end of a response is taken out of it before anything is done to single tokens."""

    class Ids(list):
        def __iter__(self):
            raise AssertionError("all of a long response was walked through")

    assert StopTexts(["ab"], decode).completed_by_last(Ids([0] * 10_000 + [0, 1]))
