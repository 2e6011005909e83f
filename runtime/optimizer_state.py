"""The optimizer's state as a sharded state dict, and back, with Megatron's silent faults mended.

Saved as `fully_reshardable`: every parameter's master copy and moments in the parameter's own shape, so
that any TP, PP and DP can read them. With torch's Adam (that is, without Transformer Engine and Apex)
Megatron-core 0.16.1's distributed optimizer has four faults on that road, none of which it reports:

(a) `state_dict()` insists on a step count that does not exist before the first step;
(b) on load it looks for `step` among the tensors, where it is not kept;
(c) after a load all parameters share one `step` tensor. Adam adds one to it for every parameter, so the
    bias correction runs away and the loss drifts from the second step on;
(d) where fp32 weights lie among bf16 ones (a head of numbers), it looks for their state in the order of
    its buffers, but keeps it with the fp32 ones first, so the states of parameters are exchanged.

Its optimizer that is not distributed (e) forgets fp32 weights among bf16 ones when it names its state.

The mends act on the optimizer object in hand; Megatron's classes stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import merge
from megatron.core.dist_checkpointing.utils import extract_nonpersistent, extract_sharded_base
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import Float16OptimizerWithFloat16Params

from runtime import gathering

State = dict[str, Any]

_FORM = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def kind(optimizer: MegatronOptimizer | None) -> str:
    """How the state is laid out: `distributed`, `replicated`, or `none`."""
    if optimizer is None:
        return "none"
    return "distributed" if isinstance(_parts(optimizer)[0], DistributedOptimizer) else "replicated"


def sharded(optimizer: MegatronOptimizer, model_state: State, *, loading: bool) -> State:
    """The optimizer's state as a Megatron sharded state dict; collective.

    `model_state` is the sharded state of the very parameters that it optimizes. With `loading` the
    leaves are places to read into; otherwise they hold the state.
    """
    with _mended(optimizer), _all_named(optimizer):
        state = optimizer.sharded_state_dict(model_state, is_loading=loading, metadata=_FORM)
    _give_each_its_own_step(optimizer)
    return state


def restore(optimizer: MegatronOptimizer, wanted: State, loaded: State, saved_settings: State) -> None:
    """Put a loaded state into the optimizer.

    `wanted` is what `sharded` gave for it, `loaded` its leaves as they were read. Of the saved settings
    only the count of steps counts: rates and decay are the plan's, and how they are grouped depends on
    the layout (experts spread over ranks have an optimizer of their own).
    """
    _, lasting = extract_nonpersistent(wanted)
    _, own_settings = extract_sharded_base(lasting)
    state = merge(deepcopy(own_settings), loaded)
    assert isinstance(state, dict)
    step = _saved_step(saved_settings)
    for part in [state] if len(_parts(optimizer)) == 1 else state.values():
        _set_step(part, step)
    with _mended(optimizer):
        optimizer.load_state_dict(state)
    _give_each_its_own_step(optimizer)


def _saved_step(settings: Any) -> float:
    """The count of steps, wherever the optimizer that was saved keeps it; 0 when it had not begun."""
    if isinstance(settings, dict):
        own = [float(settings[key]) for key in ("step", "common_step") if settings.get(key) is not None]
        return max([*own, *map(_saved_step, settings.values())], default=0.0)
    return max(map(_saved_step, settings), default=0.0) if isinstance(settings, list) else 0.0


def _set_step(part: State, step: float) -> None:
    """The count where this optimizer looks for it: in its groups, or once for all parameters."""
    inner = part.get("optimizer", part)
    if "state" in inner:
        inner["state"]["common_step"] = torch.tensor(step, dtype=torch.float32)
    else:
        for group in inner["param_groups"]:
            group["step"] = step


@contextmanager
def _mended(optimizer: MegatronOptimizer) -> Iterator[None]:
    """Megatron's way in and out of the state without faults (a), (b) and (d)."""
    with ExitStack() as stack:
        for part in _parts(optimizer):
            if isinstance(part, DistributedOptimizer):
                _put_in_order(part)
                stack.enter_context(_gathered_in_pieces(part))
            if _is_torch_adam(part):
                _fill_empty_state(part)
                if isinstance(part, DistributedOptimizer):
                    stack.enter_context(_step_kept(part))
        yield


@contextmanager
def _gathered_in_pieces(part: DistributedOptimizer) -> Iterator[None]:
    """The whole state on every rank without Megatron's need for room, see `gathering`."""

    def whole(use_gloo_comm: bool, empty_data: bool, return_on_all_ranks: bool) -> State:
        assert return_on_all_ranks
        return gathering.whole_state(part, empty_data)

    part.get_parameter_state_dp_zero = whole  # type: ignore[method-assign]
    try:
        yield
    finally:
        del part.get_parameter_state_dp_zero  # the class's own is back


@contextmanager
def _all_named(optimizer: MegatronOptimizer) -> Iterator[None]:
    """Fault (e): fp32 weights, which come last in their group as the head does, are named with the others."""
    parts = [part for part in _parts(optimizer) if isinstance(part, Float16OptimizerWithFloat16Params)]
    before = [part.float16_groups for part in parts]
    for part in parts:
        both = zip(part.float16_groups, part.fp32_from_fp32_groups, strict=True)
        part.float16_groups = [[*half, *full] for half, full in both]
    try:
        yield
    finally:
        for part, groups in zip(parts, before, strict=True):
            part.float16_groups = groups


def _put_in_order(part: DistributedOptimizer) -> None:
    """Fault (d): where the state of each parameter is kept: those that are fp32 themselves come first."""
    for number, group in enumerate(part.opt_group_ranges):
        kept = sorted(group["params"], key=lambda parameter: parameter.dtype != torch.float32)
        for order, parameter in enumerate(kept):
            part.model_param_group_index_map[parameter] = (number, order)


def _fill_empty_state(part: MegatronOptimizer) -> None:
    """Fault (a): what Adam itself would make at its first step, before there was one."""
    for group in part.optimizer.param_groups:
        for parameter in group["params"]:
            state = part.optimizer.state[parameter]
            if "step" not in state:
                state["step"] = torch.zeros((), device=_device_of_step(group, parameter))
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment not in state:
                    state[moment] = torch.zeros_like(parameter.data)


@contextmanager
def _step_kept(part: DistributedOptimizer) -> Iterator[None]:
    """Fault (b): the step that is there already goes along with the tensors that are put in."""
    put = part._set_main_param_and_optimizer_states

    def put_with_step(model_param: torch.nn.Parameter, tensors: dict[str, torch.Tensor]) -> None:
        group, order = part.model_param_group_index_map[model_param]
        main_param = part.optimizer.param_groups[group]["params"][order]
        put(model_param, {"step": part.optimizer.state[main_param]["step"], **tensors})

    part._set_main_param_and_optimizer_states = put_with_step  # type: ignore[method-assign]
    try:
        yield
    finally:
        del part._set_main_param_and_optimizer_states  # the class's own is back


def _give_each_its_own_step(optimizer: MegatronOptimizer) -> None:
    """Fault (c): a step tensor per parameter, with the value they shared."""
    for part in _parts(optimizer):
        if _is_torch_adam(part):
            for group in part.optimizer.param_groups:
                for parameter in group["params"]:
                    state = part.optimizer.state[parameter]
                    step = state.get("step", torch.zeros((), dtype=torch.float32))
                    state["step"] = step.detach().clone().to(_device_of_step(group, parameter))


def _device_of_step(group: State, parameter: torch.Tensor) -> torch.device:
    """Where torch's Adam keeps its count: beside the parameter only when its kernel needs it there."""
    on_device = group.get("capturable") or group.get("fused")
    return parameter.device if on_device else torch.device("cpu")


def _is_torch_adam(part: MegatronOptimizer) -> bool:
    return isinstance(part.optimizer, (torch.optim.Adam, torch.optim.AdamW))


def _parts(optimizer: MegatronOptimizer) -> list[MegatronOptimizer]:
    return list(getattr(optimizer, "chained_optimizers", [optimizer]))
