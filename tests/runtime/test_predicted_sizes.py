"""What the planner says a rank holds, against the parameters of the real model on that rank."""

import pytest
import toys

from specc import models
from specc.plan import Layout
from specc.planner.shapes import stage_parameters

pytestmark = pytest.mark.torch


def counted(role):
    """This rank's pipeline stage, its dense parameters and those of its experts."""
    from runtime import cpu, model, parallel

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    named = [pair for chunk in model.build(role, here) for pair in chunk.named_parameters()]
    experts = sum(p.numel() for name, p in named if ".experts." in name)
    return here.pp_rank, sum(p.numel() for _, p in named) - experts, experts


CASES = [
    ("tiny-llama", Layout()),
    ("tiny-llama", Layout(tp=2, sequence_parallel=True)),
    ("tiny-llama", Layout(pp=2, stage_layers=(1, 3))),
    ("tiny-llama", Layout(pp=2, vp=2)),
    ("tiny-qwen2", Layout(tp=2, sequence_parallel=True)),
    ("tiny-qwen3", Layout(pp=2)),  # tied: a second copy of the embedding
    ("tiny-qwen3", Layout(tp=2, pp=2, sequence_parallel=True)),
    ("tiny-gemma", Layout(tp=2, sequence_parallel=True)),  # one key-value group for two ranks
    ("tiny-nemotron", Layout(tp=2, sequence_parallel=True)),
    ("tiny-mixtral", Layout()),
    ("tiny-mixtral", Layout(dp=2, ep=2)),
    ("tiny-mixtral", Layout(pp=2, dp=2, ep=2)),
]


@pytest.mark.parametrize(("name", "layout"), CASES, ids=lambda value: str(value))
def test_a_rank_holds_the_parameters_that_are_predicted(world, name: str, layout: Layout):
    shape = models.catalog()[name].shape
    for stage, dense, experts in world(layout.world_size, counted, toys.role(layout, shape)):
        predicted = stage_parameters(shape, layout, stage)
        assert (dense, experts) == (predicted.dense, predicted.experts)
