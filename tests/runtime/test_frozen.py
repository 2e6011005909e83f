"""Weights that trade places: what answers inside, and what is there afterwards."""

import dataclasses
from pathlib import Path

import pytest
import toy_ppo
import toy_runs
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch


def traded(head, attributes):
    """A guest's answers in its own engine and in the host's place; the host's before, meanwhile, after."""
    import torch

    from runtime import cpu, parallel
    from runtime.engine import Engine, OptimizerSettings
    from runtime.frozen import Guest

    cpu.install()
    layout = Layout(tp=2, sequence_parallel=True)
    here = parallel.start(layout, "gloo", "cpu", timeout_seconds=60)
    host = Engine(toys.role(layout), here, OptimizerSettings())
    asking = toys.role(layout, head=head, name="reward")
    asking = dataclasses.replace(asking, model=dataclasses.replace(asking.model, attributes=attributes))
    guest = Engine(asking, here, seed=7)
    rows = toys.microbatches(host.role, 0, toys.samples(4))
    alone, before = guest.forward(rows, "values"), host.forward(rows)
    frozen = Guest(host, guest)
    with frozen.in_place() as engine:
        inside = engine.forward(rows, "values")
    after = host.forward(rows)
    places = {p.data_ptr() for p in host.chunks[0].parameters()}
    own = [name for name, p in guest.chunks[0].named_parameters() if p.data_ptr() not in places]
    equal = [all(map(torch.equal, *pair)) for pair in ((alone, inside), (before, after))]
    return equal, own


@pytest.mark.parametrize(("head", "attributes"), [("scalar", ()), ("attributes", ("good", "short"))])
def test_a_guest_with_another_head_answers_in_the_hosts_place_and_holds_only_its_head(
    world, head, attributes
):
    for equal, own in world(2, traded, head, attributes):
        assert equal == [True, True]
        assert own == ["output_layer.weight"]


KINDS = {
    "beside": {"swap": False},
    "traded": {"swap": True},
    "traded and offloaded": {"swap": True, "offload": True},
}


def steps(world, folder, **how):
    found = toy_ppo.plan(
        toy_ppo.prompts(folder.parent), Layout(dp=2), train={"steps": 2}, micro_batch=2, reward=SCORER, **how
    )
    file = toy_runs.written(folder, found)
    assert world(2, toy_ppo.attempt, str(file)) == [0, 0]
    lines = toy_ppo.metrics(folder)
    return [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in lines]


SCORER = toy_ppo.Weights()  # of its own: the seed's, as the critic's are, until the critic learns


@pytest.mark.parametrize(
    "more", [{}, {"precision": "bf16", "distributed_optimizer": True}], ids=["fp32", "bf16"]
)
def test_where_weights_and_states_wait_changes_no_number(world, tmp_path, more):
    found = {}
    for name, how in KINDS.items():
        Path(tmp_path / name).mkdir()
        found[name] = steps(world, tmp_path / name / "run", of_roles=more, **how)
    changing = ("tokens_per_second", "tflops_per_gpu", "memory_gib")
    kept = {
        name: [{k: v for k, v in line.items() if k not in changing} for line in lines]
        for name, lines in found.items()
    }
    assert kept["beside"][0]["critic_loss"] > 0
    assert kept["beside"] == kept["traded"] == kept["traded and offloaded"]
