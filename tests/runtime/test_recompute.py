"""Whatever is computed again instead of kept, a step is the same step."""

import pytest
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch

DENSE = [
    {"recompute": "full"},
    {"recompute": "full", "recompute_layers": 1},
    {"recompute": "full", "recompute_layers": 3},
    {"recompute": "selective"},
    {"recompute": "selective", "recompute_modules": ("layernorm",)},
    {"recompute": "selective", "recompute_modules": ("mlp",)},
    {"recompute": "selective", "recompute_modules": ("core_attn", "layernorm", "mlp")},
]
EXPERTS = [
    {"recompute": "full", "recompute_layers": 1},
    {"recompute": "selective", "recompute_modules": ("moe",)},
    {"recompute": "selective", "recompute_modules": ("layernorm", "shared_experts")},
    {"recompute": "selective", "recompute_modules": ("core_attn", "moe", "shared_experts")},
]
MIXED = toys.shape(experts=4, experts_per_token=2, expert_ffn=32, shared_expert_ffn=48)


def steps(roles):
    """Losses and gradient norms of two steps of each role, as this rank has them."""
    from runtime import parallel

    found = []
    for role in roles:
        found.append(toys.trained(role, 2)[:2])
        parallel.parallel_state.destroy_model_parallel()
    return found


@pytest.mark.parametrize(
    ("layout", "shape", "modes", "precision"),
    [
        (Layout(), toys.SHAPE, DENSE, "fp32"),
        (Layout(), toys.SHAPE, DENSE, "bf16"),
        (Layout(), MIXED, EXPERTS, "fp32"),
        (Layout(tp=2, sequence_parallel=True), toys.SHAPE, DENSE, "fp32"),
        (Layout(pp=2, vp=2), toys.SHAPE, DENSE, "bf16"),
        (Layout(dp=2, ep=2), MIXED, EXPERTS[:2], "fp32"),
    ],
    ids=["dense fp32", "dense bf16", "experts", "TP2", "PP2-VP2", "EP2"],
)
def test_two_steps_are_the_same_in_every_mode(world, layout, shape, modes, precision):
    """To the last bit, but where norms are made again: there gradients are added up in another order."""
    roles = [toys.role(layout, shape, precision=precision, **mode) for mode in [{}, *modes]]
    for (losses, norms), *others in world(layout.world_size, steps, roles):
        for mode, (other_losses, other_norms) in zip(modes, others, strict=True):
            reordered = "layernorm" in mode.get("recompute_modules", ())
            within = 1e-6 if reordered and precision == "fp32" else 0.0
            assert other_losses == pytest.approx(losses, rel=within, abs=0.0), mode
            assert other_norms == pytest.approx(norms, rel=10 * within, abs=0.0), mode
