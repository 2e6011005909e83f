"""The ranks of a model that answers: one step of the `Generator` after another, for whoever asks.

Before each step rank 0 takes what is new from the exchange and tells the other ranks, so all of them do the
same to their rows. Requests are dealt to the data-parallel replicas, each to the one with the fewest; what
they make comes back to rank 0. While nobody asks, rank 0 says so now and then, so that no rank waits longer
than a collective may.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch.distributed as dist

from runtime.answering.asked import Wanted
from runtime.answering.exchange import Done, Exchange, Prompt, Word
from runtime.answering.exchange import Event as Told
from runtime.generate import GenerateError, Generator
from runtime.rows import Event, Heard, Request, Response, Token
from runtime.sampling import Sampling, SamplingError

IDLE_SECONDS = 1.0
ALIVE_SECONDS = 5.0
DRAIN_SECONDS = 30.0
"""How long answers that have begun may take when the server is told to stop."""


@dataclass(frozen=True)
class Turn:
    """What rank 0 tells all: requests as (id, replica, what is wanted), ids that left, and what to do."""

    added: tuple[tuple[int, int, Wanted], ...] = ()
    left: tuple[int, ...] = ()
    steps: bool = False
    over: bool = False


@dataclass
class Dealer:
    """Rank 0's knowledge of who does what."""

    exchange: Exchange
    is_told_to_stop: Callable[[], bool]
    replicas: int
    where: dict[int, int] = field(default_factory=dict)  # request -> replica, while it is not done
    ends_at: float | None = None

    def turn(self) -> Turn:
        """What to do next; waits a little where there is nothing."""
        if self.is_told_to_stop() and self.ends_at is None:
            self.exchange.close()
            self.ends_at = time.monotonic() + DRAIN_SECONDS
        news = self.exchange.news(0.0 if self.where or self.ends_at else IDLE_SECONDS)
        added = tuple((id, self._dealt(id), wanted) for id, wanted in news.added)
        if self.ends_at and (not self.where or time.monotonic() > self.ends_at):
            return Turn(over=True)
        return Turn(added, news.left, steps=bool(self.where))

    def done(self, id: int) -> None:
        self.where.pop(id, None)

    def _dealt(self, id: int) -> int:
        busy = list(self.where.values())
        self.where[id] = min(range(self.replicas), key=busy.count)
        return self.where[id]


def work(
    generator: Generator,
    exchange: Exchange | None,
    is_told_to_stop: Callable[[], bool],
    alive: Callable[[], object],
) -> None:
    """Answer until rank 0 is told to stop. `exchange` is rank 0's; the others have None. Collective."""
    own = generator.parallel
    replica, replicas = own.groups.dp_cp.rank(), own.groups.dp_cp.size()
    speaks = own.tp_rank == 0 and own.is_first_stage
    dealer = Dealer(exchange, is_told_to_stop, replicas) if exchange is not None else None
    wire = Wire(own.world)
    beat = 0.0
    try:
        with generator:
            while not (turn := wire.told(dealer.turn() if dealer else None)).over:
                if dealer and time.monotonic() - beat > ALIVE_SECONDS:
                    beat = time.monotonic()
                    alive()
                refused = _taken(generator, turn, replica)
                events = [*refused[1], *(generator.step() if turn.steps else ())]
                made = ([*refused[0]], events) if speaks else ([], [])
                shares = wire.gathered(made) if replicas > 1 else [made]
                if dealer and exchange is not None:
                    _deliver(exchange, dealer, shares)
    finally:
        if exchange is not None:
            exchange.drop("the server is ending")


class Wire:
    """Between rank 0 and the others, on the host, so that no device waits for it."""

    def __init__(self, world: int) -> None:
        self.group: Any = dist.new_group(backend="gloo") if world > 1 else None

    def told(self, turn: Turn | None) -> Turn:
        """Rank 0's turn on every rank."""
        box = [turn]
        if self.group is not None:
            dist.broadcast_object_list(box, 0, group=self.group)
        assert box[0] is not None
        return box[0]

    def gathered(self, made: Any) -> list[Any]:
        """What every rank made, on rank 0; elsewhere nothing."""
        if self.group is None:
            return [made]
        shares: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(made, shares, 0, group=self.group)
        return shares or []


def _taken(generator: Generator, turn: Turn, replica: int) -> tuple[list[tuple[int, str]], list[Event]]:
    """Do to the rows what the turn says: the requests that cannot be served, and what ended at once."""
    refused, events = [], []
    for id, where, wanted in turn.added:
        if where != replica:
            continue
        try:
            generator.add(request_of(id, wanted))
        except (GenerateError, SamplingError) as error:
            refused.append((id, str(error).removeprefix(f"prompt {id} ")))
    for id in turn.left:
        events += generator.abort(id)
    return refused, events


def request_of(id: int, wanted: Wanted) -> Request:
    """What the generator takes."""
    names = {f.name for f in fields(Sampling)}
    sampling = Sampling(**{name: value for name, value in vars(wanted).items() if name in names})
    return Request(id, wanted.prompt, sampling, wanted.sequence, wanted.stream, wanted.top, wanted.heard)


def _deliver(
    exchange: Exchange, dealer: Dealer, shares: Sequence[tuple[list[tuple[int, str]], list[Event]]]
) -> None:
    for refused, events in shares:
        for id, why in refused:
            dealer.done(id)
            exchange.refuse(id, why)
        for event in events:
            if isinstance(event, Response):
                dealer.done(event.id)
        exchange.deliver([(event.id, _plain(event)) for event in events])


def _plain(event: Event) -> Told:
    if isinstance(event, Token):
        return _word(event)
    if isinstance(event, Heard):
        return Prompt(tuple(map(_word, event.tokens)))
    tops = event.tops or ((),) * len(event.tokens)
    words = zip(event.tokens, event.logprobs, tops, strict=True)
    return Done(tuple(Word(*word) for word in words), event.finish)


def _word(token: Token) -> Word:
    return Word(token.token, token.logprob, token.top)
