"""Actor and critic chosen together: against plain enumeration, budgets, pins, and what the other waits."""

import itertools
import time

import pytest

from specc import models
from specc.planner import hardware
from specc.planner.balance import NOTHING, PATIENCE, ActorSide, CriticSide, _OfCut, joined, pair
from specc.planner.placement import Request
from specc.planner.ppo import Rollouts
from specc.planner.rollout import Lengths
from specc.planner.space import Pins
from specc.planner.workload import Workload

CARD = hardware.gpu("h100-80gb")


def sides(
    name="llama3-8b", gpus=8, offload=None, critic="", seq=2048, engine="megatron", whole=True, **rollouts
):
    model, other = models.catalog()[name], models.catalog()[critic or name]
    found = Rollouts(
        **{"count": 128, "epochs": 1, "prompt": 256, "lengths": Lengths(256, seq // 2), "rows": 0} | rollouts
    )
    shared = {"seq_length": seq, "global_batch": 64, "reference": "swap"}
    tokens = {"prompt_tokens": seq // 2, "response_tokens": seq // 2, "rollout_micro_batch": 1}
    actor = Workload(model.shape, phase="actor", engine=engine, engine_resharded=whole, **tokens, **shared)
    judge = Workload(other.shape, phase="critic", head="scalar", **shared)
    scorer = Workload(other.shape, seq, 128, trains=False, head="scalar")
    paths = {"": "roles"}
    requests = [
        Request(role, "ppo", shape, work, Pins(cp=1), None, None, paths)
        for role, shape, work in (("actor", model, actor), ("critic", other, judge))
    ]
    return (
        ActorSide(requests[0], CARD, gpus, found, offload),
        CriticSide(requests[1], CARD, gpus, found, scorer),
    )


def enumerated(actor, critic, most):
    """Every pair within the budget, plainly."""
    for a, c in itertools.product(range(1, most), repeat=2):
        one, other = actor.best(a), critic.best(c)
        if a + c <= most and one is not None and other is not None:
            yield joined(one, other, critic)


@pytest.mark.parametrize(
    ("name", "gpus", "most"), [("llama3-8b", 8, 8), ("llama2-13b", 8, 9), ("llama3-8b", 4, 7)]
)
def test_the_fastest_pair_within_a_budget_is_that_of_plain_enumeration(name, gpus, most):
    actor, critic = sides(name, gpus)
    found = pair(actor, critic, (None, None), "earliest", most)
    best = min(enumerated(*sides(name, gpus), most), key=lambda p: p.step.seconds)
    assert found is not None
    assert found.step.seconds <= best.step.seconds * (1 + 2 * NOTHING)
    assert found.nodes <= most


def test_the_cheapest_pair_is_that_of_plain_enumeration():
    actor, critic = sides()
    found = pair(actor, critic, (None, None), "cheapest", 8)
    best = min(p.step.seconds * p.nodes for p in enumerated(*sides(), 8))
    assert found is not None
    assert found.step.seconds * found.nodes <= best * (1 + 2 * NOTHING)


@pytest.mark.parametrize("nodes", [3, 4, 6])
def test_no_cut_that_is_left_out_by_its_bound_would_have_been_better(nodes):
    for side in sides("llama3-70b"):
        every = [
            next(filter(None, map(side._of, _OfCut(side._bounds, nodes, cut))), None)
            for cut in side._bounds.space.cuts(nodes)
        ]
        owned = [side.own(choice) for choice in every if choice is not None]
        best = side.best(nodes)
        assert best is not None
        assert side.own(best) == pytest.approx(min(owned))
        assert side.least(nodes) <= min(owned)


def test_the_fewest_nodes_are_the_fewest_of_each_while_nobody_waits_long():
    actor, critic = sides()
    found = pair(actor, critic, (None, None), "fewest_nodes", None)
    assert found is not None
    assert actor.best(found.actor.nodes - 1) is None
    assert found.waits <= PATIENCE or found.critic.nodes >= found.actor.nodes


def test_a_critic_that_keeps_the_actor_waiting_gets_more_nodes():
    """A small actor beside a large critic: the fewest nodes of the critic would be waited for."""
    actor, critic = sides("llama3-8b", critic="llama3-70b", count=1024)
    found = pair(actor, critic, (8, None), "fewest_nodes", None)
    assert found is not None
    fewest = next(n for n in range(1, 20) if critic.best(n) is not None)
    first = joined(found.actor, critic.best(fewest), critic)
    assert first.waits > PATIENCE
    assert found.critic.nodes > fewest
    assert found.step.seconds < first.step.seconds


def test_pinned_nodes_stay():
    actor, critic = sides()
    found = pair(actor, critic, (3, None), "earliest", 8)
    assert found is not None
    assert found.actor.nodes == 3
    assert found.nodes <= 8


def test_a_budget_that_is_too_small_has_no_pair():
    assert pair(*sides("llama3-70b"), (None, None), "earliest", 4) is None


def test_a_larger_budget_is_never_slower():
    times = [pair(*sides(), (None, None), "earliest", most).step.seconds for most in range(2, 10)]
    assert all(later <= earlier * (1 + NOTHING) for earlier, later in itertools.pairwise(times))


def test_adams_state_is_offloaded_only_where_there_is_no_room_else():
    def choice(offload):
        actor, _ = sides("llama3-8b", gpus=8, offload=offload, engine="trtllm", seq=4096)
        return actor.best(1)

    kept, free = choice(False), choice(None)
    assert free is not None
    if kept is not None:
        assert free.times["actor"] <= kept.times["actor"]
    assert choice(True).times["offload"] > 0


def test_more_rows_at_once_than_fit_are_not_generated():
    actor, _ = sides("llama3-8b", count=4096, seq=8192)
    best = actor.best(1)
    assert best is not None
    assert 1 <= best.rows < 4096 // best.found.case.layout.dp


def test_405b_on_up_to_126_nodes_is_chosen_in_a_second():
    began = time.process_time()
    large = sides("llama3.1-405b", seq=4096, engine="trtllm", whole=False)
    found = pair(*large, (None, None), "earliest", 126)
    assert time.process_time() - began < 1.0
    assert found is not None
    assert found.nodes <= 126
