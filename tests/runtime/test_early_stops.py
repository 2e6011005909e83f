"""Stop tokens that a least length puts out of reach have no probability in what is learnt from either."""

import dataclasses

import pytest
import toy_ppo
import toy_runs
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch

STOPS = (7, 200)


def rows():
    """Samples whose first trained columns came before the least length."""
    found = []
    for sample in toys.samples(8):
        columns = len(sample.tokens) - 1
        start = columns // 3
        early = [int(start <= column < start + 4) for column in range(columns)]
        tokens = [
            token if not (place and early[place - 1] and token in STOPS) else 9
            for place, token in enumerate(sample.tokens)
        ]
        found.append(dataclasses.replace(sample, tokens=tokens, extra={"early": early}))
    return found


def scored(role):
    """How far log-probabilities are off the definition in float64; a loss of both outputs and its norm."""
    import torch

    from runtime import cpu, parallel
    from runtime.engine import Engine, OptimizerSettings

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    engine = Engine(role, here, OptimizerSettings())
    batches = toys.microbatches(role, here.dp_rank, rows())
    plain = engine.forward(batches)
    logits = [one.double() for one in engine.forward(batches, "logits")]
    engine.stops = STOPS
    ours = engine.forward(batches)
    off = []
    for batch, said, before, whole in zip(batches, ours, plain, logits, strict=True):
        early = batch.extra["early"] > 0
        whole[..., list(STOPS)] = whole[..., list(STOPS)].masked_fill(early[..., None], -torch.inf)
        expected = whole.log_softmax(-1).gather(-1, batch.labels_BT[..., None])[..., 0]
        valid = batch.mask_BT > 0
        off.append(float((said.double() - expected)[valid].abs().max()))
        assert float((said - before)[valid & ~early].abs().max()) == 0.0
        assert float((said - before)[valid & early].min()) > 0.0  # the rest share what the stops had

    def loss(output, batch):
        value = -(output[..., 0] + output[..., 1]) * batch.mask_BT
        return value.sum() / 100, {}

    found = engine.forward_backward(batches, loss, entropy=True)["loss"]
    norm = engine.optim_step(0.0)["grad_norm"]
    return max(off), found, norm


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(tp=2, sequence_parallel=True), Layout(pp=2), Layout(pp=2, vp=2)], ids=str
)
def test_they_have_no_share_under_any_layout(world, layout):
    told = world(layout.world_size, scored, toys.role(layout))
    [alone] = world(1, scored, toys.role())
    for off, loss, norm in told:
        assert off < 1e-5
        assert (loss, norm) == pytest.approx(alone[1:], rel=1e-5)


@pytest.mark.parametrize("swap", [True, False])
def test_a_least_length_leaves_the_first_ratio_1_and_the_kl_to_oneself_0(world, tmp_path, swap):
    plan = toy_ppo.plan(
        toy_ppo.prompts(tmp_path),
        swap=swap,
        ppo={"rollouts": 8, "entropy": 0.01},
        train={"steps": 3, "lr": 1e-2, "min_lr": 1e-2, "save_every": 0},
        generate={"min_tokens": 4, "stop_token_ids": list(range(100))},
    )
    assert world(1, toy_ppo.attempt, str(toy_runs.written(tmp_path / "run", plan))) == [0]
    steps = toy_ppo.metrics(tmp_path / "run")
    assert [step["ratio"] for step in steps] == [1.0] * 3
    assert steps[0]["kl"] == 0.0
    assert steps[1]["kl"] != 0.0
    assert all(step["sampler_gap"] < 1e-5 for step in steps)
    assert all(4 <= step["response_length"] < 8 for step in steps)


def test_a_rollout_says_which_of_its_tokens_could_be_no_stop():
    from runtime.rollouts import Rollout

    rollout = Rollout(0, 0, (1, 2, 3), (4, 5, 6), (-1.0,) * 3, "stop", early=2)
    assert rollout.sample().extra["early"] == [0, 0, 1, 1, 0]
    assert rollout.sample({"old": [0.0] * 5}).extra.keys() == {"old", "early"}
    assert dataclasses.replace(rollout, early=9).sample().extra["early"] == [0, 0, 1, 1, 1]
    assert "early" not in dataclasses.replace(rollout, early=0).sample().extra
