"""What the planner says a rank holds, against the real model, gradients and optimizer on that rank."""

import dataclasses

import pytest
import toys

from specc import models
from specc.plan import Layout
from specc.planner import buffers
from specc.planner.buffers import Place
from specc.planner.shapes import stage_parameters
from specc.planner.workload import Workload

pytestmark = pytest.mark.torch

SPLIT = Layout(tp=2, sequence_parallel=True)


def held(roles):
    """For each role: this rank's place, its parameters and those of its experts, and the bytes of all."""
    from runtime import cpu

    cpu.install()
    from runtime import parallel

    found = []
    for role in roles:
        here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
        place = Place(here.pp_rank, here.groups.dp_cp.rank(), here.groups.expt_dp.rank())
        found.append((place, *_counted(role, here)))
        parallel.parallel_state.destroy_model_parallel()
    return found


def _counted(role, here):
    from runtime.engine import Engine, OptimizerSettings

    engine = Engine(role, here, OptimizerSettings())
    batches = toys.microbatches(role, here.dp_rank, toys.samples())
    shown = lambda out, batch: (out.float().sum() / 1e4, {})  # noqa: E731
    engine.forward_backward(batches, shown)
    engine.optim_step(1e-4)  # Adam makes its moments at the first step
    named = [pair for chunk in engine.chunks for pair in chunk.named_parameters()]
    experts = sum(p.numel() for name, p in named if ".experts." in name)
    dense = sum(p.numel() for _, p in named) - experts
    return dense, experts, (_weights(named), _gradients(engine, named), _optimizer(engine, named))


def _of_storages(tensors, but=()):
    """Bytes of storages, each once and whole, without those of `but`."""
    other = {each.untyped_storage().data_ptr() for each in but}
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(size for at, size in storages.items() if at not in other and size)


def _weights(named):
    return _of_storages([p.data for _, p in named])


def _gradients(engine, named):
    wrapped = engine._wrapped
    found = [b.grad_data for w in wrapped for b in (*w.buffers, *w.expert_parallel_buffers)]
    return _of_storages([*found, *(p.grad for _, p in named if p.grad is not None)])


def _optimizer(engine, named):
    """Masters and moments; a gradient in another precision would count, the steps on the host do not."""
    gradients = [p.main_grad for _, p in named]
    found = []
    for part in engine._optimizers():
        for group in part.optimizer.param_groups:
            for p in group["params"]:
                state = part.optimizer.state[p]
                found += [p.data, state["exp_avg"], state["exp_avg_sq"]]
                found += [p.grad] if p.grad is not None else []
    return _of_storages(found, [*(p.data for _, p in named), *gradients])


def catalog(name, layout, **changes):
    return toys.role(layout, models.catalog()[name].shape, **({"precision": "bf16"} | changes))


ODD = toys.shape(hidden=36, ffn=92, head_dim=10, vocab=131)
"""Sizes of which none is a multiple of 64."""
DENSE = toys.shape(kv_groups=4, norm="layernorm", activation="gelu", position="learned", linear_bias=True)
EXPERTS = toys.shape(experts=4, experts_per_token=2, expert_ffn=44, shared_expert_ffn=52, qk_norm=True)
WHOLE = {"distributed_optimizer": False}
SHARED = {"distributed_optimizer": True}

CASES = {
    "one process": [
        catalog("tiny-llama", Layout()),
        catalog("tiny-qwen3", Layout(), **SHARED),
        catalog("tiny-mixtral", Layout()),
        toys.role(None, ODD, precision="fp32", **SHARED),
        toys.role(None, ODD, precision="bf16", **SHARED),
        toys.role(None, DENSE, precision="bf16", **WHOLE),
        toys.role(None, DENSE, precision="fp32", **WHOLE),
        toys.role(None, ODD, head="scalar", precision="bf16", **SHARED),
        toys.role(None, ODD, head="scalar", precision="bf16", **WHOLE),
        toys.role(None, EXPERTS, precision="bf16", **SHARED),
    ],
    "two processes": [
        catalog("tiny-llama", SPLIT),
        catalog("tiny-llama", Layout(pp=2, stage_layers=(1, 3)), **SHARED),
        catalog("tiny-llama", Layout(pp=2, vp=2), **SHARED),
        catalog("tiny-qwen2", SPLIT, **SHARED),
        catalog("tiny-qwen3", Layout(pp=2), **SHARED),  # tied: a second copy of the embedding
        catalog("tiny-qwen3", Layout(pp=2), precision="fp32", **WHOLE),
        catalog("tiny-gemma", SPLIT, **SHARED),  # one key-value group for two ranks
        catalog("tiny-nemotron", SPLIT, precision="fp32", **SHARED),
        toys.role(Layout(dp=2), ODD, precision="bf16", **SHARED),
        toys.role(Layout(dp=2), ODD, precision="fp32", **SHARED),
        toys.role(Layout(dp=2), ODD, precision="bf16", **WHOLE),
        toys.role(SPLIT, DENSE, precision="bf16", **SHARED),
        toys.role(Layout(dp=2, ep=2), EXPERTS, precision="bf16", **SHARED),
        toys.role(Layout(tp=2, sequence_parallel=True, etp=2), EXPERTS, precision="fp32", **SHARED),
        toys.role(Layout(pp=2), ODD, head="attributes", precision="bf16", **SHARED),
        toys.role(SPLIT, DENSE, head="scalar", precision="fp32", **SHARED),
    ],
    "three processes": [
        toys.role(Layout(dp=3), ODD, precision="bf16", global_batch=9, **SHARED),
        toys.role(Layout(dp=3), ODD, precision="fp32", global_batch=9, **SHARED),
    ],
    "four processes": [
        catalog("tiny-qwen3", Layout(tp=2, pp=2, sequence_parallel=True), **SHARED),
        catalog("tiny-qwen3", Layout(pp=2, dp=2), **SHARED),
        toys.role(Layout(pp=2, vp=2, dp=2), ODD, precision="bf16", **SHARED),
        toys.role(Layout(tp=2, dp=2, sequence_parallel=True), DENSE, precision="fp32", **SHARED),
        catalog("tiny-mixtral", Layout(pp=2, dp=2, ep=2), **SHARED),
        toys.role(Layout(dp=4, ep=2), EXPERTS, precision="bf16", **SHARED),
    ],
}


def work_of(role):
    return Workload(
        role.model.shape,
        32,
        role.global_batch,
        head=role.model.head,
        precision=role.precision,
        implementation="local",
        distributed_optimizer=role.distributed_optimizer,
    )


@pytest.mark.parametrize("roles", CASES.values(), ids=CASES)
def test_a_rank_holds_the_bytes_that_are_predicted(world, roles):
    """Weights, gradients and optimizer state, to the byte; and the parameters that the search counts."""
    ranks = world(roles[0].layout.world_size, held, roles)
    for number, role in enumerate(roles):
        shape, layout, work = role.model.shape, role.layout, work_of(role)
        for rank in ranks:
            place, dense, experts, found = rank[number]
            outputs = len(role.model.attributes) if role.model.head == "attributes" else 1
            told = buffers.state(work, layout, place, outputs)
            assert found == dataclasses.astuple(told), (number, layout, place)
            counted = stage_parameters(shape, layout, place.stage, role.model.head)
            if role.model.head != "attributes":
                assert (dense, experts) == (counted.dense, counted.experts), (number, layout, place)
