"""Roles that work together: one group of machines for those of the same processes, sizes chosen together.

In come the requests of a stage's roles, the first of each group before its guests; out go the roles. A guest
lives in the processes of its host, on the same nodes and GPUs. Of the host's shape it has the host's layout
too, and its weights are swapped through the host's memory or lie beside; of another shape it is a model of
its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from specc import plan
from specc.diagnostics import Diagnostic
from specc.planner.hardware import Gpu
from specc.planner.memory import role_memory
from specc.planner.placement import Request, place


def place_together(
    requests: Sequence[Request], card: Gpu, gpus_per_node: int, most: int
) -> tuple[list[plan.Role], list[Diagnostic]]:
    """Every role on its machines; fewer than were asked for where one has no place."""
    said: list[Diagnostic] = []
    hosts: dict[str, plan.Role] = {}
    for request in requests:
        if request.group == request.name:
            role, more = place(request, card, gpus_per_node, most)
            said += more
            if role is not None:
                hosts[request.name] = dataclasses.replace(
                    role,
                    group=request.group,
                    trains=request.work.trains,
                    offload_optimizer=request.work.offload_optimizer_in_rollout,
                    rows=request.work.rollout_micro_batch,
                )
    roles: list[plan.Role] = []
    for request in requests:
        host = hosts.get(request.group)
        if host is not None:
            roles.append(host if request.name == host.name else _guest(request, host, card))
    return roles, said


def is_alike(one: plan.Model, other: plan.Model) -> bool:
    """Whether the weights of one can take the place of the other's; a head of numbers is small."""
    return one.shape == other.shape


def _guest(request: Request, host: plan.Role, card: Gpu) -> plan.Role:
    """A role in the processes of another."""
    micro_batch = request.pins.micro_batch or host.micro_batch
    memory = role_memory(request.work, host.layout, micro_batch, "none", card)
    swaps = not request.work.trains and request.weights != "resident"
    where = f"takes turns with the {host.name}" if swaps else f"lies beside the {host.name}"
    return dataclasses.replace(
        host,
        name=request.name,
        program=request.program,
        micro_batch=micro_batch,
        global_batch=request.work.global_batch,
        model=request.model,
        recompute="none",
        recompute_layers=0,
        recompute_modules=(),
        memory=memory,
        step_seconds=0.0,
        why=f"{where} on the same GPUs",
        trains=request.work.trains,
        swaps_with=host.name if swaps else "",
        offload_optimizer=False,
        rows=0,
    )
