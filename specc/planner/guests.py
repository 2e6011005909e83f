"""A reference in the processes of the model that learns from it: no machines of its own, and the same layout.

Preference training asks frozen weights of the learner's own shape. They wait in the host's memory and take
the place of the learner's while they are asked (`swap`), or were asked once before the first step (`stored`).
What they add to a step, passes without gradients and the exchange of weights, is the learner's to take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from specc import plan
from specc.diagnostics import Diagnostic
from specc.planner.hardware import Gpu
from specc.planner.memory import role_memory
from specc.planner.placement import Request, place


def hosts(requests: Sequence[Request]) -> list[Request]:
    """The requests that take machines, each with the work of its guest in view."""
    guests = {request.group: request for request in requests if _is_guest(request)}
    return [_hosting(r, guests.get(r.name)) for r in requests if not _is_guest(r)]


def place_alone(
    requests: Sequence[Request], card: Gpu, gpus_per_node: int, most: int
) -> tuple[list[plan.Role], list[Diagnostic]]:
    """Each role on machines of its own, or with the one whose processes it lives in, in the order asked."""
    said: list[Diagnostic] = []
    roles: dict[str, plan.Role] = {}
    guests = [request for request in requests if _is_guest(request)]
    for host in hosts(requests):
        role, more = place(host, card, gpus_per_node, most)
        said += more
        if role is None:
            continue
        of_host = [guest for guest in guests if guest.group == host.name]
        roles[host.name] = dataclasses.replace(role, group=host.name) if of_host else role
        for guest in of_host:
            wrong = _unlike(guest, host)
            said += wrong
            if not wrong:
                roles[guest.name] = _beside(guest, roles[host.name], card)
    return [roles[request.name] for request in requests if request.name in roles], said


def _is_guest(request: Request) -> bool:
    return request.group not in ("", request.name)


def _hosting(host: Request, guest: Request | None) -> Request:
    if guest is None:
        return host
    reference = "swap" if guest.weights == "swap" else "none"
    work = dataclasses.replace(host.work, reference=reference, passes=guest.work.passes)
    return dataclasses.replace(host, work=work)


def _beside(guest: Request, host: plan.Role, card: Gpu) -> plan.Role:
    """The guest's role: where its host is, with the host's layout and batches."""
    memory = role_memory(guest.work, host.layout, host.micro_batch, "none", card)
    swapped = f"its weights trade places with those of `{host.name}`"
    once = f"asked once, before `{host.name}` takes its own weights"
    return dataclasses.replace(
        host,
        name=guest.name,
        program=guest.program,
        model=guest.model,
        recompute="none",
        recompute_layers=0,
        recompute_modules=(),
        distributed_optimizer=False,
        memory=memory,
        step_seconds=0.0,
        why=swapped if guest.weights == "swap" else once,
        trains=False,
        swaps_with=host.name,
    )


def _unlike(guest: Request, host: Request) -> list[Diagnostic]:
    """What keeps a guest's weights from taking the host's place."""
    theirs, own = host.model, guest.model
    path = guest.path("model")
    if own.shape.vocab != theirs.shape.vocab or own.tokenizer != theirs.tokenizer:
        message = f"the {guest.name} `{own.name}` does not read the tokens of `{theirs.name}`"
        help = "take a model of the same family and tokenizer"
        return [Diagnostic("P040", "error", message, path, "", help)]
    if own.shape != theirs.shape:
        message = f"the weights of the {guest.name} `{own.name}` do not fit in the place of `{theirs.name}`'s"
        help = "take a reference of the same shape; left out, it is the model that training starts from"
        return [Diagnostic("P041", "error", message, path, "", help)]
    return []
