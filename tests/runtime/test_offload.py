"""Adam's state on the host between two steps: it goes, it comes back, and nothing else changes."""

import pytest
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch

KINDS = {
    "fp32": {"precision": "fp32", "distributed_optimizer": False},
    "bf16": {"precision": "bf16", "distributed_optimizer": False},
    "fp32-distributed": {"precision": "fp32", "distributed_optimizer": True},
    "bf16-distributed": {"precision": "bf16", "distributed_optimizer": True},
}


def rested(role, rests):
    """Losses and norms of three steps, with rests between them where the role says so; what went away."""
    from runtime import batch, cpu, parallel
    from runtime.engine import Engine, OptimizerSettings

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    engine = Engine(role, here, OptimizerSettings())
    said, away, moved = [], [], []
    for step in range(3):
        if rests:
            places = state_places(engine)
            engine.rest()
            engine.rest()  # a second time is no harm
            away.append(engine.offload.bytes_away)
            moved.append(all(one != two for one, two in zip(places, state_places(engine), strict=True)))
        data = toys.samples(8, seed=step)
        total = batch.trained_tokens([data])
        loss = engine.forward_backward(toys.microbatches(role, here.dp_rank, data), toys.sft_loss(total))
        assert engine.offload.bytes_away == 0
        said.append((loss["loss"], engine.optim_step(1e-3)["grad_norm"]))
    return (
        said,
        away,
        moved,
        sum(parameter.numel() for chunk in engine.chunks for parameter in chunk.parameters()),
    )


def state_places(engine):
    from runtime.offload import state_of

    return [tensor.data_ptr() for one in engine._optimizers() for tensor in state_of(one)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_waits_on_the_host_comes_back_bit_by_bit(world, kind):
    n = 2 if "distributed" in kind else 1
    role = toys.role(Layout(dp=n), offload_optimizer=True, **KINDS[kind])
    told = world(n, rested, role, True)
    assert [one[0] for one in told] == [one[0] for one in world(n, rested, role, False)]
    sizes = [one[1] for one in told]
    weights = told[0][3]
    each = 12 if "bf16" in kind else 8  # two moments, and the fp32 copies of bf16 weights
    assert sizes[0][1] == sizes[0][2] > 0
    assert abs(sum(size[1] for size in sizes) - each * weights) <= 1024 * n
    assert all(one[2][1:] == [True, True] for one in told)


def test_a_state_stays_where_the_plan_does_not_send_it_away(world):
    [(_, away, _, _)] = world(1, rested, toys.role(), True)
    assert away == [0, 0, 0]
