"""One step is one step: whatever the layout, the microbatch or the packing, in fp32."""

import pytest
import toys
from test_model import whole

from specc.plan import Layout

pytestmark = pytest.mark.torch

LAYOUTS = {
    "TP2": Layout(tp=2),
    "TP2-SP": Layout(tp=2, sequence_parallel=True),
    "PP2": Layout(pp=2),
    "PP2-uneven": Layout(pp=2, stage_layers=(1, 3)),
    "PP2-VP2": Layout(pp=2, vp=2),
    "DP2": Layout(dp=2),
    "TP2-PP2": Layout(tp=2, pp=2, sequence_parallel=True),
}


@pytest.fixture(scope="module")
def alone(world):
    """What a role does on one process, each asked for once."""
    known = {}

    def run(role, steps, packed=False):
        key = repr((role, steps, packed))
        if key not in known:
            known[key] = world(1, toys.trained, role, steps, packed)[0]
        return known[key]

    return run


def assert_same_step(one, ranks, loss=1e-5, gradient=1e-4):
    """Loss and norm of step 1 within `loss` relative, each gradient within `gradient` of its own norm."""
    losses, norms, gradients = one
    for rank_losses, rank_norms, _ in ranks:
        assert rank_losses[0] == pytest.approx(losses[0], rel=loss)
        assert rank_norms[0] == pytest.approx(norms[0], rel=loss)
    expected, found = whole([gradients]), whole([rank[2] for rank in ranks])
    assert set(expected) <= set(found)
    for name, tensor in expected.items():
        error = (found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
        assert error < gradient, f"{name}: {error:.1e}"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("micro_batch", [1, 4])
def test_step_one_is_the_same_under_every_layout(world, alone, layout, micro_batch):
    ranks = world(layout.world_size, toys.trained, toys.role(layout, micro_batch=micro_batch), 1)
    assert_same_step(alone(toys.role(), 1), ranks)
