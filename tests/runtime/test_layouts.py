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
    "PP2-VP3-bare-ends": Layout(pp=2, vp=3, stage_layers=(0, 1, 1, 1, 1, 0)),
    "DP2": Layout(dp=2),
    "TP2-PP2": Layout(tp=2, pp=2, sequence_parallel=True),
    "TP2-DP2": Layout(tp=2, dp=2),
    "PP4": Layout(pp=4),
}


@pytest.fixture(scope="module")
def alone(world):
    """What a role does on one process, each asked for once."""
    known = {}

    def run(role, steps, mean="token"):
        key = repr((role, steps, mean))
        if key not in known:
            known[key] = world(1, toys.trained, role, steps, mean=mean)[0]
        return known[key]

    return run


def assert_same_step(one, ranks, loss=1e-5, gradient=1e-5):
    """Loss and norm of step 1 within `loss` relative; of each tensor ||g - g'|| < `gradient` ||g||.

    The order of sums in fp32 leaves 2e-6 at most.
    """
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


MEANS = ["TP2-SP", "PP2-VP2", "DP2", "TP2-PP2"]


@pytest.mark.parametrize("layout", [Layout(), *map(LAYOUTS.get, MEANS)], ids=["one", *MEANS])
def test_the_mean_over_sequences_is_one_mean_under_every_layout(world, alone, layout):
    """Sequences of unlike lengths, dealt to ranks and microbatches: each counts the same."""
    ranks = world(layout.world_size, toys.trained, toys.role(layout, micro_batch=4), 1, mean="sequence")
    expected = alone(toys.role(), 1, mean="sequence")
    assert_same_step(expected, ranks)
    assert expected[0] != pytest.approx(alone(toys.role(), 1)[0], rel=1e-4)  # it is another loss


@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("layout", [Layout(), LAYOUTS["TP2-SP"], LAYOUTS["PP2"], LAYOUTS["DP2"]], ids=str)
def test_step_one_is_the_same_packed_or_not(world, alone, layout, micro_batch):
    role = toys.role(layout, micro_batch=micro_batch)
    ranks = world(layout.world_size, toys.trained, role, 1, packed=True)
    assert_same_step(alone(toys.role(), 1), ranks)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_ten_steps_stay_together(world, alone, layout):
    losses, norms, _ = alone(toys.role(), 10)
    role = toys.role(layout, micro_batch=2, distributed_optimizer=True)
    for rank_losses, rank_norms, _ in world(layout.world_size, toys.trained, role, 10):
        assert rank_losses == pytest.approx(losses, rel=1e-4)
        assert rank_norms == pytest.approx(norms, rel=1e-3)


@pytest.mark.parametrize("layout", [Layout(), LAYOUTS["TP2-PP2"], LAYOUTS["DP2"]], ids=str)
def test_bf16_stays_near_fp32(world, alone, layout):
    losses, _, _ = alone(toys.role(), 10)
    role = toys.role(layout, precision="bf16", distributed_optimizer=True)
    for rank_losses, _, _ in world(layout.world_size, toys.trained, role, 10):
        assert rank_losses == pytest.approx(losses, rel=2e-2)


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("layout", [Layout(), LAYOUTS["TP2-SP"], LAYOUTS["PP2-VP2"]], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_recomputation_changes_nothing(world, alone, layout, recompute, packed):
    role = toys.role(layout, recompute=recompute)
    ranks = world(layout.world_size, toys.trained, role, 1, packed)
    assert_same_step(alone(toys.role(), 1), ranks, loss=1e-6, gradient=1e-5)


EXPERTS = toys.shape(experts=4, experts_per_token=2, expert_ffn=32)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(dp=2, ep=2),
        Layout(dp=2),
        Layout(pp=2),
        Layout(tp=2, sequence_parallel=True, ep=2),
        Layout(tp=2, sequence_parallel=True, etp=2),
        Layout(pp=2, dp=2, ep=2),
    ],
    ids=str,
)
def test_experts_give_the_same_step_under_every_layout(world, alone, layout):
    ranks = world(layout.world_size, toys.trained, toys.role(layout, EXPERTS), 1)
    assert_same_step(alone(toys.role(shape=EXPERTS), 1), ranks)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "family": "gemma",
            "norm": "rmsnorm_1p",
            "activation": "geglu",
            "tied": True,
            "embedding_scale": 8.0,
        },
        {"family": "qwen3", "qk_norm": True, "head_dim": 24, "tied": True},
        {"family": "qwen2", "qkv_bias": True},
        {"family": "nemotron", "norm": "layernorm_1p", "activation": "squared_relu", "rope_percent": 0.5},
        {
            "family": "gpt",
            "norm": "layernorm",
            "activation": "gelu",
            "position": "learned",
            "linear_bias": True,
        },
        {"family": "mistral", "sliding_window": 7},
        {"family": "gemma-2b", "kv_groups": 1},
    ],
    ids=lambda changes: changes["family"],
)
@pytest.mark.parametrize("layout", [LAYOUTS["TP2"], LAYOUTS["TP2-PP2"]], ids=str)
def test_every_family_gives_the_same_step_under_every_layout(world, alone, changes, layout):
    shape = toys.shape(**changes)
    ranks = world(layout.world_size, toys.trained, toys.role(layout, shape), 1)
    assert_same_step(alone(toys.role(shape=shape), 1), ranks)


def test_the_same_layout_gives_the_same_bits(world):
    role = toys.role(LAYOUTS["TP2-PP2"], distributed_optimizer=True)
    first, second = (world(4, toys.trained, role, 5) for _ in range(2))
    assert [rank[:2] for rank in first] == [rank[:2] for rank in second]
