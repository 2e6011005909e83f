"""The ranks behind the desk: rank 0 takes a request, shows it to the others, and all of them work on it.

While nothing is asked rank 0 says so every few seconds, so that no rank waits longer than a collective may.
A request that the model refuses is told to its client and changes nothing. Anything else that goes wrong in
a verb is told to the client, and then ends the server: its state is not to be trusted, and whoever asked
must not go on with made-up numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as dist

from runtime.agreement import size, together
from runtime.failure import as_problem
from runtime.serving.desk import Ask, Desk, Refused, Tensors

Verb = Callable[[Tensors], Tensors]
"""What a served name does. All ranks call it with the same tensors; rank 0's result is the answer."""

IDLE_SECONDS = 2.0
REMEMBERED = 64
"""Answers that are kept for clients who ask the same thing again under the same id."""


class Memory:
    """The answers to the newest requests that came with an id."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str], Tensors] = OrderedDict()

    def find(self, ask: Ask) -> Tensors | None:
        return self._answers.get((ask.model, ask.id)) if ask.id else None

    def keep(self, ask: Ask, answer: Tensors) -> None:
        if ask.id:
            self._answers[ask.model, ask.id] = answer
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)


def work(
    desk: Desk | None,
    verbs: Mapping[str, Verb],
    is_over: Callable[[], bool],
    alive: Callable[[], None],
) -> None:
    """Answer until `is_over` on rank 0. `desk` is rank 0's; the others have None. Collective.

    Problem R054 when a verb fails.
    """
    memory = Memory()
    try:
        while True:
            alive()
            ask, told = (None, None) if desk is None else _next(desk, memory, is_over)
            box: list[Any] = [told]
            if size() > 1:
                dist.broadcast_object_list(box, 0)
            if box[0] == "over":
                return
            if box[0] is not None:
                name, inputs = box[0]
                _do(ask, name, inputs, verbs, memory)
    finally:
        if desk is not None:
            desk.close()


def _next(desk: Desk, memory: Memory, is_over: Callable[[], bool]) -> tuple[Ask | None, Any]:
    """Rank 0: the next request and what to tell the others: nothing, `over`, or (name, tensors)."""
    if is_over():
        return None, "over"
    ask = desk.next(IDLE_SECONDS)
    if ask is None:
        return None, None
    known = memory.find(ask)
    if known is not None:
        ask.answer.set_result(known)
        return None, None
    return ask, (ask.model, ask.inputs)


def _do(ask: Ask | None, name: str, inputs: Tensors, verbs: Mapping[str, Verb], memory: Memory) -> None:
    """All ranks: one request. What is refused on any rank is refused on all."""
    answers: list[Tensors] = []

    def attempt() -> str:
        try:
            answers.append(verbs[name](inputs))
        except Refused as refused:
            return str(refused) or "refused"
        return ""

    try:
        refusals = [said for said in together("R054", f"`{name}` failed", attempt) if said]
    except Exception as error:  # a peer that is gone shows in torch's own words
        if ask is not None:
            ask.answer.set_exception(RuntimeError(as_problem(error).message))
        raise
    if ask is None:
        return
    if refusals:
        ask.answer.set_exception(Refused(refusals[0]))
        return
    memory.keep(ask, answers[0])
    ask.answer.set_result(answers[0])
