"""The actor's loss beside the clipped loss of TRL's trainers, value and gradient.

TRL 1.16.0 has no PPO trainer any more: of PPO's parts it has the clipped surrogate, the k3 KL in the loss and
the entropy bonus, in `GRPOTrainer`. Value loss, GAE, whitening and KL in the reward are held to plain
double loops in test_ppo.py and tests/runtime/test_advantages.py instead.
"""

from __future__ import annotations

import collections
import types
from typing import Any

import pytest

pytestmark = pytest.mark.torch

ROWS, PROMPT, LENGTH = 5, 3, 7


def numbers() -> dict[str, Any]:
    """Log-probabilities of responses of unlike lengths, one a single token, and what goes with them."""
    import torch

    draw = torch.Generator().manual_seed(3)

    def normal(scale: float = 1.0) -> Any:
        return torch.randn(ROWS, LENGTH, generator=draw, dtype=torch.float64) * scale

    lengths = torch.tensor([7, 4, 1, 6, 2])[:, None]
    new = normal() - 3
    return {
        "mask": (torch.arange(LENGTH) < lengths).double(),
        "new": new,
        "old": new + normal(0.3),
        "reference": new + normal(0.5),
        "advantages": normal(),
        "entropy": normal().abs(),
    }


def theirs(found: dict[str, Any], kl: float, entropy: float) -> list[Any]:
    """TRL's own loss, normalised over all tokens, and its gradients."""
    import torch

    trl = pytest.importorskip("trl")
    new, bonus = (found[name].clone().requires_grad_() for name in ("new", "entropy"))
    alike = types.SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True)
    trainer = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True),
        accelerator=alike,
        args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False),
        _get_per_token_logps_and_entropies=lambda *given, **named: (new, bonus, None),
        _entropy_bonus_enabled=bool(entropy),
        _metrics={"train": collections.defaultdict(list)},
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        loss_type="bnpo",
        use_vllm=False,
        use_adaptive_entropy=False,
        entropy_coef=entropy,
        epsilon_low=0.2,
        epsilon_high=0.2,
        beta=kl,
        current_gradient_accumulation_steps=1,
    )
    inputs = {
        "prompt_ids": torch.ones(ROWS, PROMPT, dtype=torch.long),
        "prompt_mask": torch.ones(ROWS, PROMPT),
        "completion_ids": torch.ones(ROWS, LENGTH, dtype=torch.long),
        "completion_mask": found["mask"],
        "advantages": found["advantages"],
        "old_per_token_logps": found["old"],
        "ref_per_token_logps": found["reference"],
    }
    loss = trl.GRPOTrainer._compute_loss(trainer, None, inputs)
    return [loss, *torch.autograd.grad(loss, (new, bonus), allow_unused=True)]


def ours(found: dict[str, Any], kl: float, entropy: float, split: bool) -> list[Any]:
    """The same from the actor's loss; `split`: as the sum of two microbatches' shares."""
    import torch

    from runtime.algorithms.ppo import Settings, loss
    from runtime.batch import Batch

    new, bonus = (found[name].clone().requires_grad_() for name in ("new", "entropy"))
    settings = Settings(kl_in="loss", kl_estimator="k3", clip=0.2, entropy=entropy)
    total = float(found["mask"].sum())
    shares = []
    for rows in (slice(0, 2), slice(2, ROWS)) if split else (slice(0, ROWS),):
        names = {"old": "old", "reference": "reference", "advantages": "advantages", "counts": "mask"}
        extra = {name: found[source][rows] for name, source in names.items()}
        nothing = torch.zeros_like(extra["old"])
        batch = Batch(nothing.long(), nothing.long(), nothing, nothing.long(), None, [], extra=extra)
        output = torch.stack([new[rows], bonus[rows]], dim=-1) if entropy else new[rows]
        shares.append(loss(output, batch, settings=settings, coefficient=kl, denominator=total)[0])
    whole = torch.stack(shares).sum()
    return [whole, *torch.autograd.grad(whole, (new, bonus), allow_unused=True)]


@pytest.mark.parametrize("split", [False, True], ids=["one microbatch", "two microbatches"])
@pytest.mark.parametrize(("kl", "entropy"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.05), (0.3, 0.05)])
def test_the_actor_s_loss_is_that_of_trl(kl: float, entropy: float, split: bool) -> None:
    found = numbers()
    for mine, other in zip(ours(found, kl, entropy, split), theirs(found, kl, entropy), strict=True):
        if other is None or mine is None:
            assert not entropy
            continue
        assert float((mine.double() - other.double()).detach().abs().max()) < 1e-7
