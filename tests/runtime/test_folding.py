"""Generation without pipeline stages: the same tokens, on as many replicas more, and nothing left behind."""

import pytest
import toys
from test_generate import DRAWN, KINDS, prompts, state_of

from specc.plan import Layout

pytestmark = pytest.mark.torch

ASKED = 40


def generated(role, folds, changed=False):
    """Greedy and drawn tokens of every rank; which prompts were its own; which weights were left after it."""
    import torch

    from runtime import cpu, parallel
    from runtime.engine import Engine
    from runtime.folding import Folding
    from runtime.generate import generate
    from runtime.replicas import replicas_of
    from runtime.sampling import Sampling

    cpu.install()
    engine = Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    asked, shares, answers, left = prompts(ASKED, vocab=250), [], [], 0
    kinds = [Sampling(temperature=0.0, max_tokens=12), Sampling(max_tokens=12, **DRAWN)]
    folding = Folding(engine) if folds else None
    replicas = replicas_of(engine.parallel, folds)
    for turn, sampling in enumerate(kinds * (2 if changed else 1)):
        if changed and turn == len(kinds):  # as a step would
            with torch.no_grad():
                for chunk in engine.chunks:
                    for parameter in chunk.parameters():
                        parameter.mul_(1.5)
        how = {"slots": 8, "on_share": shares.append, "replicas": replicas}
        if folding is None:
            answers.append(generate(engine, asked, sampling, **how).tokens)
            continue
        with folding.whole() as whole:
            answers.append(generate(whole, asked, sampling, **how).tokens)
        left += sum(parameter.numel() for parameter in whole.chunks[0].parameters())
    return answers, shares[0], left, state_of(engine)[2], (replicas.number, replicas.size, replicas.leads)


CASES = [
    ("dense", Layout(pp=2)),
    ("dense", Layout(pp=2, vp=2)),
    ("dense", Layout(pp=2, stage_layers=(1, 3))),
    ("dense", Layout(tp=2, pp=2)),
    ("dense", Layout(tp=2, pp=2, sequence_parallel=True)),
    ("dense", Layout(pp=2, dp=2)),
    ("tied", Layout(pp=2)),
    ("learned", Layout(pp=2)),
    ("experts", Layout(pp=2, dp=2, ep=2)),
]


@pytest.mark.parametrize(("kind", "layout"), CASES, ids=[f"{kind}-{layout}" for kind, layout in CASES])
def test_without_stages_the_same_tokens_come_from_more_replicas(world, kind, layout):
    role = toys.role(layout, shape=toys.shape(**KINDS[kind]))
    plain = world(layout.world_size, generated, role, False)
    told = world(layout.world_size, generated, role, True)
    assert [one[0] for one in told] == [one[0] for one in plain]
    assert all((left, replaced) == (0, 0) for _, _, left, replaced, _ in told)
    leads = [one for one in told if one[4][2]]
    assert sorted(one[4][0] for one in leads) == list(range(layout.dp * layout.pp))
    assert sorted(id for one in leads for id in one[1]) == list(range(ASKED))  # each prompt once
    assert max(len(one[1]) for one in leads) <= -(-ASKED // (layout.dp * layout.pp))


def test_each_rollout_has_the_weights_of_its_moment(world):
    role = toys.role(Layout(pp=2))
    plain, told = (world(2, generated, role, folds, changed=True) for folds in (False, True))
    assert [one[0] for one in told] == [one[0] for one in plain]
    assert told[0][0][0] != told[0][0][2]
