"""The engine on one process: losses, steps, and what it refuses."""

import pytest
import toys

pytestmark = pytest.mark.torch


def test_the_loss_falls_when_the_same_batch_comes_again(world):
    [(losses, norms, _)] = world(1, toys.trained, toys.role(), 5, repeat=True)
    assert losses == sorted(losses, reverse=True)
    assert all(norm > 0 for norm in norms)
