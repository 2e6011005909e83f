"""The text of one answer as its tokens come, without what ended it.

A character may be spread over tokens, and a stop text over many: what may still become one is held back
until it is known. So the pieces that a stream gives are those of the whole answer, cut differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Decode = Callable[[Sequence[int]], str]
Top = tuple[tuple[int, float], ...]
"""Tokens with their log-probabilities, the likeliest first."""

CONTEXT = 5
"""Tokens of the prompt that are decoded along, as some tokenizers treat the first one in another way."""

PENDING = 6
"""Tokens that may wait for a character to be whole; after so many it never will be."""

BROKEN = "\N{REPLACEMENT CHARACTER}"


class Growing:
    """Text that grows by tokens."""

    def __init__(self, decode: Decode, before: Sequence[int]) -> None:
        self.decode = decode
        self._ids = list(before[-CONTEXT:])
        self._told = len(self._ids)  # tokens whose text is out

    def add(self, token: int) -> str:
        """The characters that this token completes."""
        self._ids.append(token)
        before = self.decode(self._ids[: self._told])
        now = self.decode(self._ids)
        if now.endswith(BROKEN) and len(self._ids) - self._told < PENDING:
            return ""
        return self._out(before, now)

    def end(self) -> str:
        """What was held back, as it is."""
        if self._told == len(self._ids):
            return ""
        return self._out(self.decode(self._ids[: self._told]), self.decode(self._ids))

    def _out(self, before: str, now: str) -> str:
        del self._ids[: max(self._told - CONTEXT, 0)]
        self._told = len(self._ids)
        return now[len(before) :] if now.startswith(before) else now[_shared(before, now) :]


def _shared(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


@dataclass(frozen=True)
class Told:
    """One token as a client sees it."""

    id: int
    text: str  # alone
    logprob: float | None
    top: Top
    start: int  # where its characters begin in the answer


@dataclass(frozen=True)
class Piece:
    """Text that is certain by now, and its tokens."""

    text: str = ""
    tokens: tuple[Told, ...] = ()


@dataclass
class Reader:
    """One answer. `take` each token, then `finish`; the pieces together are the answer."""

    decode: Decode
    prompt: Sequence[int]
    ends: tuple[int, ...] = ()  # tokens that end it and are no text
    stops: tuple[str, ...] = ()  # texts that end it
    tail: str = ""  # cut off before a stop
    begin: int = 0  # where its first character stands in what the client reads
    count: int = 0  # tokens, those that ended it included
    _growing: Growing = field(init=False)
    _held: str = field(init=False, default="")
    _out: int = field(init=False, default=0)  # where what is held begins
    _tokens: list[Told] = field(init=False, default_factory=list)
    _newest: int = field(init=False, default=0)  # where the newest token's text begins

    def __post_init__(self) -> None:
        self._growing = Growing(self.decode, self.prompt)
        self._out = self.begin

    def take(
        self, token: int, logprob: float | None = None, top: tuple[tuple[int, float], ...] = ()
    ) -> Piece:
        """What is certain after this token."""
        self.count += 1
        self._newest = self._out + len(self._held)
        if token in self.ends:
            self._tokens.append(Told(token, "", logprob, top, self._newest))
            return Piece()
        self._tokens.append(Told(token, self.decode([token]), logprob, top, self._newest))
        self._held += self._growing.add(token)
        return self._given(len(self._held) - self._doubtful())

    def finish(self, stopped: bool) -> Piece:
        """The rest; `stopped`: by a stop token or text, not by the length."""
        self._held += self._growing.end()
        by_token = bool(self._tokens) and self._tokens[-1].id in self.ends
        if by_token:
            self._tokens.pop()
        cut = len(self._held)
        if stopped:
            if not by_token:
                cut = self._stop_at()
            if self.tail and self._held[:cut].endswith(self.tail):
                cut -= len(self.tail)
        self._held = self._held[:cut]
        if stopped:  # a token that begins where the text is cut belongs to the stop
            self._tokens = [token for token in self._tokens if token.start < self._out + cut]
        given = Piece(self._held, tuple(self._tokens))
        self._out, self._held, self._tokens = self._out + cut, "", []
        return given

    def _stop_at(self) -> int:
        """Where in what is held the stop text begins that the newest token completed."""
        newest = self._newest - self._out
        places = [self._held.find(stop, max(newest - len(stop) + 1, 0)) for stop in self.stops]
        return min((place for place in places if place >= 0), default=len(self._held))

    def _doubtful(self) -> int:
        """Characters at the end that may be cut off: a stop text or the begin of one, a tail before it."""
        whole = len(self._held) - self._stop_at()
        wanted = (*self.stops, *(self.tail + stop for stop in self.stops), self.tail)
        most = len(self._held)
        sizes = [
            n for text in wanted for n in range(1, min(len(text), most) + 1) if self._held.endswith(text[:n])
        ]
        return max([whole + len(self.tail) if whole else 0, *sizes])

    def _given(self, size: int) -> Piece:
        """The first `size` characters of what is held, with the tokens that begin in them."""
        if size <= 0:
            return Piece()
        text, self._held = self._held[:size], self._held[size:]
        self._out += size
        ready = sum(1 for token in self._tokens if token.start < self._out)
        tokens, self._tokens = tuple(self._tokens[:ready]), self._tokens[ready:]
        return Piece(text, tokens)
