"""How a critic goes through what it is taught."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch


class Counting:
    """An engine that remembers which rollouts each optimizer step saw."""

    def __init__(self):
        self.seen = []

    def forward_backward(self, microbatches, loss):
        self.seen.append(sorted(row for batch in microbatches for row in batch.rows if row >= 0))
        return {"loss": 1.0, "value_clip_fraction": 0.0}

    def optim_step(self, rate):
        return {"grad_norm": rate}


@pytest.mark.parametrize("epochs", [1, 3])
def test_each_pass_learns_all_rollouts_once_in_the_same_slices(epochs):
    from runtime.critic import fit
    from runtime.dealing import Table
    from runtime.judges import Lesson
    from runtime.rollouts import Rollout

    numbers = np.ones(3)
    lessons = [
        Lesson(Rollout(i, i, (1, 2), (3, 4), (-1.0, -1.0), "stop"), numbers, numbers, numbers)
        for i in range(5)
    ]
    engine = Counting()
    told = fit(
        engine,  # type: ignore[arg-type]
        lessons,
        table=Table(micro_batch=4),
        global_batch=2,
        clip=0.2,
        rate=0.5,
        epochs=epochs,
    )
    assert engine.seen == [[0, 1], [2, 3], [4]] * epochs
    assert told["critic_optimizer_steps"] == 3 * epochs
    assert told["critic_grad_norm"] == 0.5
