"""PPO in plain transformers, in the order of TRL's last PPO trainer, with what 1.16.0 still has of it.

A benchmark's other side: rows that are generated together wait for the longest of them, prompts are padded on
the left, the policy and the value model learn together from one loss. Log-probabilities of the samples come
from the sampler's own logits, as there; the reference is a second model.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any


def score(prompt: str, response: str) -> float:
    """A reward that costs nothing: how many letters of the response are an e."""
    return response.count("e") / max(len(response), 1)


def stepper(case: Any, config: Any, prompts: Sequence[Any]) -> Callable[[], int]:
    """A step of PPO on the next prompts; the tokens of its rollouts."""
    import torch
    from transformers import LlamaForCausalLM, LlamaForTokenClassification

    policy, values = LlamaForCausalLM(config), LlamaForTokenClassification(config)
    reference = copy.deepcopy(policy).eval()
    learnt = [*policy.parameters(), *values.parameters()]
    optimizer = torch.optim.AdamW(learnt, lr=1e-4, betas=(0.9, 0.98), fused=True)
    endless = itertools.cycle(prompts)

    def step() -> int:
        rows = [list(map(int, next(endless).tokens)) for _ in range(case.batch)]
        found = rolled_out(case, policy, rows)
        learn(case, policy, values, optimizer, judged(case, reference, values, found))
        return int(found["mask"].sum() + found["seen"][:, : found["start"]].sum())

    return step


def rolled_out(case: Any, policy: Any, rows: list[list[int]]) -> dict[str, Any]:
    """Responses [N, R], their log-probabilities, and where they are."""
    import torch
    from bench_trl import ENDS, RESPONSE
    from trl.trainer.utils import selective_log_softmax

    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    is_padded = case.rows == "padded"
    made, old = [], []
    most = RESPONSE if is_padded else 2 * RESPONSE
    for part in tokens.split(case.batch):
        out = policy.generate(
            part,
            attention_mask=(part > 0).long(),
            do_sample=True,
            top_k=0,
            temperature=1.0,
            max_new_tokens=most,
            eos_token_id=None if is_padded else ENDS,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        response = out.sequences[:, width:]
        made.append(torch.nn.functional.pad(response, (0, most - response.size(1))))
        logprobs = selective_log_softmax(torch.stack(out.scores, 1), response)
        old.append(torch.nn.functional.pad(logprobs, (0, most - response.size(1))))
    response = torch.cat(made)
    is_end = torch.isin(response, torch.tensor([] if is_padded else ENDS, dtype=torch.long))
    mask = (is_end.cumsum(1) - is_end.long() == 0).float()
    width_used = int(mask.sum(1).max())
    response, mask = response[:, :width_used], mask[:, :width_used]
    together = torch.cat([tokens, response], 1)
    seen = torch.cat([(tokens > 0).float(), mask], 1)
    return {
        "tokens": together,
        "seen": seen,
        "mask": mask,
        "old": torch.cat(old)[:, :width_used],
        "start": width,
    }


def passed(model: Any, tokens: Any, seen: Any) -> Any:
    """Logits of a model under left padding, positions counted from the first token."""
    positions = (seen.long().cumsum(1) - 1).clamp(min=0)
    return model(tokens, attention_mask=seen.long(), position_ids=positions).logits


def judged(case: Any, reference: Any, values: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Advantages and returns from the score, the KL to the reference and the values."""
    import torch
    from trl.trainer.utils import selective_log_softmax

    start, mask = found["start"], found["mask"]
    of_reference, of_values = [], []
    with torch.no_grad():
        for tokens, seen in zip(
            found["tokens"].split(case.micro_batch), found["seen"].split(case.micro_batch), strict=True
        ):
            logits = passed(reference, tokens, seen)[:, start - 1 : -1]
            of_reference.append(selective_log_softmax(logits, tokens[:, start:]))
            of_values.append(passed(values, tokens, seen)[:, start - 1 : -1, 0])
    old_values = torch.cat(of_values) * mask
    rewards = -0.01 * (found["old"] - torch.cat(of_reference)) * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(last)), last] += (found["tokens"][:, start:] % 2).float().mean(1)
    advantages, ahead = torch.zeros_like(rewards), torch.zeros(len(last))
    for t in reversed(range(rewards.size(1))):
        after = old_values[:, t + 1] if t + 1 < rewards.size(1) else 0.0
        ahead = rewards[:, t] + after - old_values[:, t] + 0.95 * ahead
        advantages[:, t] = ahead
    returns, count = advantages + old_values, mask.sum()
    mean = (advantages * mask).sum() / count
    spread = (((advantages - mean) ** 2) * mask).sum() / count
    whitened = (advantages - mean) * torch.rsqrt(spread + 1e-8)
    return found | {"values": old_values, "returns": returns, "advantages": whitened * mask}


def learn(case: Any, policy: Any, values: Any, optimizer: Any, found: dict[str, Any]) -> None:
    """One pass over the rollouts, one optimizer step."""
    import torch
    from trl.trainer.utils import selective_log_softmax

    start = found["start"]
    order = torch.randperm(case.batch)
    for chosen in order.split(case.micro_batch):
        part = {k: v[chosen] for k, v in found.items() if k != "start"}
        mask, count = part["mask"], found["mask"].sum()
        logits = passed(policy, part["tokens"], part["seen"])[:, start - 1 : -1]
        ratio = (selective_log_softmax(logits, part["tokens"][:, start:]) - part["old"]).exp()
        gain = part["advantages"]
        actor = torch.maximum(-gain * ratio, -gain * ratio.clamp(0.8, 1.2))
        now = passed(values, part["tokens"], part["seen"])[:, start - 1 : -1, 0]
        near = part["values"] + (now - part["values"]).clamp(-0.2, 0.2)
        critic = torch.maximum((now - part["returns"]) ** 2, (near - part["returns"]) ** 2) / 2
        (((actor + critic) * mask).sum() / count).backward()
        with torch.no_grad():  # as there: entropy of every position, for the log
            (-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)).mean().item()
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()
