"""Tokens to text: characters and stop texts may lie across tokens, and a stream says what the whole says."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.answering.reader import Growing, Reader
from runtime.tokenizer import load

BYTES = load("builtin:bytes")
TEXTS = st.text(st.sampled_from("ab\n<é€😀"), max_size=30)
STOPS = st.lists(st.text(st.sampled_from("ab\n<é"), min_size=1, max_size=3), max_size=3)


def read(text, stops=(), tail="", ends=(257,), begin=0):
    """The pieces of a text whose tokens come one by one, as from a model that ends at a stop text."""
    reader = Reader(BYTES.decode, BYTES.encode("prompt"), ends, tuple(stops), tail, begin)
    pieces, so_far = [], []
    for token in BYTES.encode(text):
        so_far.append(token)
        pieces.append(reader.take(token, -1.0))
        now = BYTES.decode(so_far)
        if token in ends or (now[-1:] != "\ufffd" and any(now.endswith(stop) for stop in stops)):
            return [*pieces, reader.finish(stopped=True)], reader
    return [*pieces, reader.finish(stopped=False)], reader


def cut(text, stops, tail=""):
    """The text before the stop that is complete first; of two, the one that begins earlier."""
    for end in range(1, len(text) + 1):
        places = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if places:
            return text[: min(places)].removesuffix(tail) if tail else text[: min(places)]
    return text


@given(TEXTS, STOPS)
def test_what_is_read_is_the_text_before_the_first_stop(text, stops):
    pieces, _ = read(text, stops)
    assert "".join(piece.text for piece in pieces) == cut(text, stops)


@given(TEXTS, STOPS)
def test_tokens_come_once_in_order_and_begin_in_their_text(text, stops):
    pieces, reader = read(text, stops, begin=7)
    tokens = [token for piece in pieces for token in piece.tokens]
    whole = cut(text, stops)
    assert [token.id for token in tokens] == list(whole.encode())
    assert [token.start for token in tokens] == sorted(token.start for token in tokens)
    assert all(7 <= token.start < 7 + len(whole) for token in tokens)
    assert reader.count >= len(tokens)


@given(TEXTS)
def test_a_tail_before_the_stop_is_cut_off_and_stays_where_there_is_no_stop(text):
    pieces, _ = read(text + "\n<|x|>", ["<|x|>"], tail="\n")
    assert "".join(piece.text for piece in pieces) == text
    pieces, _ = read(text + "\n", ["<|x|>"], tail="\n")
    assert "".join(piece.text for piece in pieces) == text + "\n"


def test_an_end_token_is_no_text_and_no_token_of_the_answer():
    pieces, reader = read("ab<eos>")
    assert "".join(piece.text for piece in pieces) == "ab"
    assert [token.id for piece in pieces for token in piece.tokens] == [97, 98]
    assert reader.count == 3


def test_what_may_become_a_stop_is_held_back_and_given_when_it_does_not():
    pieces, _ = read("xSTx", ["STOP"])
    assert [piece.text for piece in pieces] == ["x", "", "", "STx", ""]


@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_end_nothing_and_lose_nothing_that_is(ids):
    growing = Growing(BYTES.decode, BYTES.encode("a"))
    said = "".join(growing.add(token) for token in ids) + growing.end()
    assert said.replace("\ufffd", "") == BYTES.decode(ids).replace("\ufffd", "") or len(ids) >= 6
    assert [c for c in said if c < "\x80"] == [chr(i) for i in ids if i < 128]
