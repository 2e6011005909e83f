"""Rows that are being generated: their settings, their tokens, and what the next pass is made of.

Everything is an array over the rows, which lie dense from 0: a row that is done leaves, and the last
rows take the free places, in the cache too. All ranks of a model hold the same rows and do the same to
them, so they agree on every pass without asking one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.cache import Cache, Line, visible
from runtime.sampling import Knobs, Sampling, choose, stream_of, uniforms
from runtime.stopping import Decode, StopTexts


@dataclass(frozen=True)
class Request:
    """A prompt to be continued."""

    id: int  # names the response
    prompt: Sequence[int]
    sampling: Sampling
    sequence: int = 0  # with the seed, which random numbers it takes
    stream: bool = False  # whether each token is reported as it comes
    top: int = 0  # so many of the most likely tokens are told beside each
    heard: bool = False  # whether the prompt's own log-probabilities are wanted


Top = tuple[tuple[int, float], ...]
"""The most likely tokens of a place, the first before the others, with their raw log-probabilities."""


@dataclass(frozen=True)
class Token:
    """One token of a request that is streamed."""

    id: int
    token: int
    logprob: float
    top: Top = ()


@dataclass(frozen=True)
class Heard:
    """A prompt whose log-probabilities were wanted: its tokens from the second on."""

    id: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Response:
    """A request that is done."""

    id: int
    tokens: list[int]
    logprobs: list[float]  # raw, see sampling.LOGPROBS
    finish: str  # stop: a stop token or text, which is in `tokens`; length; abort
    tops: tuple[Top, ...] = ()  # of each token, where they were wanted


Event = Token | Heard | Response

Head = Callable[[Tensor], Tensor]
"""From hidden states [n, 1, hidden] to logits [n, V] fp32, which may be large: a row for each token asked."""

MOST_TOLD = 1 << 24
"""Numbers that are told of one pass, most likely tokens of its columns: 128 MiB in fp64."""

_COLUMNS = 128  # tokens of a told prompt whose logits are there at once

_NUMBERS = ("length", "newest", "count", "budget", "least")


class Rows:
    """At most `slots` rows, in the slots of the cache from `first_slot` on."""

    def __init__(self, first_slot: int, slots: int, vocab: int, device: torch.device) -> None:
        self.first_slot, self.slots, self.vocab, self.device = first_slot, slots, vocab, device
        self.requests: list[Request] = []
        self.texts: list[StopTexts | None] = []
        self.length = np.zeros(slots, np.int64)  # tokens in the cache after the pass that is planned
        self.newest = np.zeros(slots, np.int64)  # the token that is not in it yet
        self.count = np.zeros(slots, np.int64)  # tokens of the response
        self.budget = np.zeros(slots, np.int64)  # and at most
        self.least = np.zeros(slots, np.int64)  # and at least, before a stop counts
        self.streams = np.zeros(slots, np.uint64)
        self.aborted = np.zeros(slots, bool)
        self.stops = np.full((slots, 1), -1, np.int64)  # stop tokens, -1 where a row has fewer
        self.tokens = np.zeros((slots, 64), np.int64)
        self.logprobs = np.zeros((slots, 64), np.float32)
        self.seen: Tensor | None = None  # [slots, V] bool, where a row is penalised for repetition
        self.tops: list[list[Top]] = []  # of each row, where they are wanted
        self.heard: list[tuple[int, int, int]] = []  # row, first column and end of prompts that are told
        self._knobs: Knobs | None = None

    def __len__(self) -> int:
        return len(self.requests)

    def admit(self, request: Request, budget: int, decode: Decode | None) -> None:
        """Add a row at the end; its prompt is in the next line."""
        i, sampling = len(self), request.sampling
        self.requests.append(request)
        self.tops.append([])
        self.texts.append(StopTexts(sampling.stop, decode) if sampling.stop and decode else None)
        self.length[i] = self.count[i] = 0
        self.budget[i], self.least[i] = budget, sampling.min_tokens
        self.streams[i] = stream_of(sampling.seed, request.sequence)
        self.aborted[i] = False
        ids = sampling.stop_token_ids
        if len(ids) > self.stops.shape[1]:
            wider = len(ids) - self.stops.shape[1]
            self.stops = np.pad(self.stops, ((0, 0), (0, wider)), constant_values=-1)
        self.stops[i] = -1
        self.stops[i, : len(ids)] = ids
        self._knobs = None

    def told_with(self, request: Request) -> int:
        """Numbers that the next pass would tell if this request joined it."""
        new = [r for i, r in enumerate(self.requests) if r.heard and not self.length[i]]
        heard = sum(len(r.prompt) for r in (*new, *([request] if request.heard else [])))
        top = max(r.top for r in (*self.requests, request))
        return told(top, len(self) + 1 + heard)

    def line(self, cache: Cache, window: int) -> Line:
        """The next pass: the newest token of each row that has begun, and the prompts of the others."""
        rows = len(self)
        begun = int((self.length[:rows] > 0).sum())
        prompts = [np.asarray(request.prompt, np.int64) for request in self.requests[begun:]]
        sizes = [len(prompt) for prompt in prompts]
        positions = self.length[:begun].copy()
        self.length[:begun] += 1
        self.length[begun:rows] = sizes
        cache.reserve(int(self.length[:rows].max()))
        slots = self.first_slot + np.repeat(np.arange(rows), [1] * begun + sizes)
        ends = np.cumsum(sizes).tolist()
        last = self._wanted(begun, ends, sizes)
        longest = int(self.length[:begun].max()) if begun else 0
        mask = visible(positions, longest, window) if begun else None
        return Line(
            tokens_n=self._there(np.concatenate([self.newest[:begun], *prompts])),
            positions_n=self._there(np.concatenate([positions, *map(np.arange, sizes)])),
            slots_n=self._there(slots),
            first_slot=self.first_slot,
            decoded=begun,
            ends=ends,
            last=self._there(last),
            longest=longest,
            mask=None if mask is None else mask.to(self.device),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Of what `sample` gives; every rank knows it beforehand."""
        columns = len(self) + sum(end - first for _, first, end in self.heard)
        return 2 + 2 * max((request.top for request in self.requests), default=0), columns

    def sample(self, hidden_N: Tensor, head: Head) -> np.ndarray:
        """One token for each row and its log-probability: [2, B] fp64. `hidden_N` are the last states of the
        tokens that the line wants, `head` makes logits of some of them.

        Where rows want to know more it is [2 + 2k, N]: below come the k most likely tokens of each column,
        then their log-probabilities; a prompt that is told has a column for each token but its last.
        """
        rows = len(self)
        logits_BV = head(hidden_N[self._there(self._own())] if self.heard else hidden_N)
        if self._knobs is None:
            self._knobs = Knobs.of([r.sampling for r in self.requests], self.vocab, self.device)
        numbers = None
        if self._knobs.temperature_B is not None:
            numbers = self._there(uniforms(self.streams[:rows], self.count[:rows]))
        seen = self._seen() if self._knobs.penalty_B is not None else None
        tokens, logprobs = choose(logits_BV, self._knobs, numbers, seen, self._banned())
        if self.seen is not None:
            self.seen[torch.arange(rows, device=self.device), tokens] = True
        drawn = torch.stack([tokens.double(), logprobs.double()])
        if self.size != (2, rows):
            drawn = self._beside(drawn, logits_BV, hidden_N, head)
        return drawn.cpu().numpy()

    def settle(self, found: np.ndarray) -> tuple[list[Event], np.ndarray]:
        """Take in a token for each row, as `sample` gives it; what happened, and which rows are done."""
        rows = len(self)
        events: list[Event] = [self._told(i, found[:, first:end]) for i, first, end in self.heard]
        found = found[:, self._own()] if self.heard else found
        self.heard = []
        tokens = found[0].astype(np.int64)
        at = self.count[:rows]
        if at.max() >= self.tokens.shape[1]:
            self.tokens, self.logprobs = (
                np.pad(a, ((0, 0), (0, a.shape[1]))) for a in (self.tokens, self.logprobs)
            )
        each = np.arange(rows)
        self.tokens[each, at], self.logprobs[each, at] = tokens, found[1]
        self.newest[:rows] = tokens
        self.count[:rows] += 1
        stopped = (self.stops[:rows] == tokens[:, None]).any(1)
        for i, texts in enumerate(self.texts):
            if texts is not None and not stopped[i]:
                stopped[i] = texts.completed_by_last(self.tokens[i, : self.count[i]])
        stopped &= self.count[:rows] >= self.least[:rows]
        done = stopped | self.aborted[:rows] | (self.count[:rows] >= self.budget[:rows])
        for i, request in enumerate(self.requests):
            top = _top(found[:, i], request.top)
            if request.top:
                self.tops[i].append(top)
            if request.stream:
                events.append(Token(request.id, int(tokens[i]), float(found[1, i]), top))
            if done[i]:
                finish = "stop" if stopped[i] else "abort" if self.aborted[i] else "length"
                events.append(self._response(i, finish))
        return events, done

    def leave(self, done: np.ndarray, cache: Cache) -> None:
        """Let rows go; the last ones move into their places."""
        if not done.any():
            return
        left = int((~done).sum())
        targets = np.flatnonzero(done[:left])
        sources = left + np.flatnonzero(~done[left:])
        if len(targets):
            for name in (*_NUMBERS, "streams", "aborted", "stops", "tokens", "logprobs"):
                array = getattr(self, name)
                array[targets] = array[sources]
            for target, source in zip(targets, sources, strict=True):
                self.requests[target], self.texts[target] = self.requests[source], self.texts[source]
                self.tops[target] = self.tops[source]
            if self.seen is not None:
                self.seen[targets] = self.seen[sources]
            longest = int(self.length[targets].max())
            cache.move((self.first_slot + sources).tolist(), (self.first_slot + targets).tolist(), longest)
        del self.requests[left:], self.texts[left:], self.tops[left:]
        self._knobs = None
        if not left:
            self.seen = None

    def _response(self, i: int, finish: str) -> Response:
        count = self.count[i]
        tokens, logprobs = self.tokens[i, :count].tolist(), self.logprobs[i, :count].tolist()
        return Response(self.requests[i].id, tokens, logprobs, finish, tuple(self.tops[i]))

    def _wanted(self, begun: int, ends: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
        """Places in the line whose successors are wanted: each row's last, all of a prompt that is told."""
        places, self.heard = [np.arange(begun)], []
        column = begun
        for i, (end, size) in enumerate(zip(ends, sizes, strict=True), begun):
            told = size if self.requests[i].heard else 1
            places.append(np.arange(begun + end - told, begun + end))
            if told > 1:
                self.heard.append((i, column, column + told - 1))
            column += told
        return np.concatenate(places)

    def _own(self) -> np.ndarray:
        """The column of each row's own draw."""
        columns = np.arange(len(self))
        for i, first, end in self.heard:
            columns[i:] += end - first
        return columns

    def _beside(self, drawn: Tensor, logits_BV: Tensor, hidden_N: Tensor, head: Head) -> Tensor:
        """What was drawn, the prompts that are told, and the most likely tokens of each: [2 + 2k, N]. Logits
        of prompts are there for a few tokens at a time."""
        height, columns = self.size
        found = torch.zeros(height, columns, dtype=torch.float64, device=self.device)
        for i, first, end in self.heard:
            prompt = np.asarray(self.requests[i].prompt[1:], np.int64)
            found[0, first:end] = self._there(prompt).double()
        found[:2, self._there(self._own())] = drawn
        top = (height - 2) // 2
        size = _COLUMNS if self.heard else columns
        for first in range(0, columns, size):
            part = found[:, first : first + size]
            logits_NV = head(hidden_N[first : first + size]) if self.heard else logits_BV
            chosen_N = logits_NV.gather(1, part[0].long()[:, None])[:, 0]
            part[1] = (chosen_N - logits_NV.logsumexp(-1)).double()
            if top:
                part[2:] = _best(logits_NV, top)
        return found

    def _told(self, i: int, found: np.ndarray) -> Heard:
        """A prompt from its columns of what `sample` gave."""
        id, top = self.requests[i].id, self.requests[i].top
        columns = found.T
        return Heard(id, tuple(Token(id, int(c[0]), float(c[1]), _top(c, top)) for c in columns))

    def _banned(self) -> tuple[Tensor, Tensor] | None:
        """Rows and columns of the stop tokens that come too early."""
        rows = len(self)
        early = self.count[:rows] < self.least[:rows]
        if not early.any():
            return None
        row, place = np.nonzero((self.stops[:rows] >= 0) & early[:, None])
        return self._there(row), self._there(self.stops[row, place])

    def _seen(self) -> Tensor:
        """What each row has seen; rows that came since the last time are filled in."""
        if self.seen is None:
            self.seen = torch.zeros(self.slots, self.vocab, dtype=torch.bool, device=self.device)
            fresh = range(len(self))
        else:
            fresh = np.flatnonzero(self.count[: len(self)] == 0)
        for i in fresh:
            row = np.concatenate([self.requests[i].prompt, self.tokens[i, : self.count[i]]]).astype(np.int64)
            self.seen[i] = False
            self.seen[i, self._there(row)] = True
        return self.seen[: len(self)]

    def _there(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _best(logits_NV: Tensor, top: int) -> Tensor:
    """The most likely tokens of each row, then their raw log-probabilities: [2k, N] fp64."""
    best = logits_NV.topk(top, dim=-1)
    logprobs = best.values - logits_NV.logsumexp(-1, keepdim=True)
    return torch.cat([best.indices.T.double(), logprobs.T.double()])


def told(top: int, columns: int) -> int:
    """Numbers of what `Rows.sample` gives."""
    return (2 + 2 * top) * columns


def _top(column: np.ndarray, top: int) -> Top:
    """The first so many of the most likely tokens in a column of what `sample` gave."""
    if not top:
        return ()
    half = (len(column) - 2) // 2
    tokens, logprobs = column[2 : 2 + top].astype(int), column[2 + half : 2 + half + top]
    return tuple(zip(tokens.tolist(), logprobs.tolist(), strict=True))
