"""An application whose model is a parrot: it says its prompt again and again. No torch."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runtime.answering.app import Answering
from runtime.answering.asked import Wanted
from runtime.answering.exchange import Done, Exchange, Prompt, Word
from runtime.answering.prompts import Prompter
from runtime.tokenizer import load

LIMIT = 200


def prompter(template: str = "extra_id") -> Prompter:
    return Prompter(load("builtin:bytes"), template, 259, LIMIT)


def said(wanted: Wanted) -> tuple[Word, ...]:
    tops = [tuple((t, -1.0 - t) for t in range(wanted.top))] * wanted.max_tokens
    tokens = itertools.islice(itertools.cycle(wanted.prompt), wanted.max_tokens)
    return tuple(Word(token, -0.5, top) for token, top in zip(tokens, tops, strict=True))


class Parrot(threading.Thread):
    """The ranks: one token of every answer a turn."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(daemon=True)
        self.exchange, self.left, self.over = exchange, [], False
        self.asked: list[Wanted] = []
        self.mute = threading.Event()  # while it is set, nothing is answered

    def run(self) -> None:
        talking: dict[int, tuple[Wanted, tuple[Word, ...], int]] = {}
        while not self.over:
            news = self.exchange.news(0.02 if not talking or self.mute.is_set() else 0.0)
            self.left += news.left
            for id, wanted in news.added:
                talking[id] = wanted, said(wanted), 0
                self.asked.append(wanted)
            for id in news.left:
                talking.pop(id, None)
            if not self.mute.is_set():
                self.exchange.deliver([event for id in list(talking) for event in self._step(talking, id)])

    def _step(self, talking: dict[int, Any], id: int) -> Iterator[tuple[int, Any]]:
        wanted, words, at = talking[id]
        if at == 0 and wanted.heard and len(wanted.prompt) > 1:
            yield id, Prompt(tuple(Word(t, -0.25, words[0].top) for t in wanted.prompt[1:]))
        if wanted.stream:
            yield id, words[at]
        text = load("builtin:bytes").decode([w.token for w in words[: at + 1]])
        stopped = words[at].token in wanted.stop_token_ids or any(text.endswith(s) for s in wanted.stop)
        talking[id] = wanted, words, at + 1
        if stopped or at + 1 == len(words):
            yield id, Done(words[: at + 1], "stop" if stopped else "length")
            del talking[id]


@contextmanager
def answering(template: str = "extra_id", most: int = 64, **more: Any) -> Iterator[tuple[Answering, Parrot]]:
    """The application and its ranks."""
    exchange = Exchange(most)
    ranks = Parrot(exchange)
    ranks.start()
    try:
        yield Answering(prompter(template), exchange, "parrot", **({"is_ready": lambda: True} | more)), ranks
    finally:
        ranks.over = True
        ranks.join(5)
