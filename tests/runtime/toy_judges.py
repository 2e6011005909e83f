"""Plans of self-rewarding on a task that a tiny model learns in a few steps: to say `a`. The
judge is the model itself, or a script that stands where the model speaks, so that all else is the real path.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import toy_ppo
import toy_runs

from specc.plan import Layout, Plan
from specc.spec.judging import SCORE, WINNER

TEMPLATE = "J{{ prompt }}|{{ response }}|"
LIKES_A = "A{{ prompt }}|{{ response }}|"
META = "M{{ prompt }}|{{ response }}|{{ judgement_a }}|{{ judgement_b }}|"
OWN = {
    "iteration": 1,
    "rollouts": 32,
    "responses": 4,
    "judgements": 3,
    "beta": 0.1,
    "template": TEMPLATE,
    "pattern": SCORE,
    "low": 0.0,
    "high": 5.0,
    "judge": {"max_tokens": 12},
    "meta_template": META,
    "meta_pattern": WINNER,
}
GENERATE = {"max_tokens": 8, "temperature": 1.0, "stop_token_ids": list(range(192, 259))}
"""A random model says one of these at every fourth token."""


def plan(
    data: Path, layout: Layout | None = None, *, own: dict[str, Any] | None = None, **changes: Any
) -> Plan:
    """An iteration of an actor and its reference in one group of processes; 8 prompts to a step."""
    answers = {"path": "builtin:arithmetic", "limit": 8, "learnt": True}
    changes = {"train": {"seq_length": 96, "lr": 3e-3, "min_lr": 3e-3} | changes.pop("train", {})} | changes
    validated = changes.pop("validated", False)
    sampled = GENERATE | changes.pop("generate", {})
    made = toy_ppo.plan(data, layout, program="self_rewarding", roles=("actor", "reference"), **changes)
    job = made.jobs[0]
    settings = {
        **job.settings,
        "self_rewarding": {**OWN, **(own or {})},
        "generate": sampled,
    }
    del settings["reward"], settings["critic"]
    data_of = {"prompts": job.data["prompts"], "validation": answers if validated else None}
    job = dataclasses.replace(job, settings=settings, data=data_of)
    return dataclasses.replace(made, jobs=(job,))


def by_script(decode: Any, prompt: Sequence[int], key: int) -> str | None:
    """What a scripted judge says: a point for each printable letter, or where asked so for each a, less a
    part that differs from judgement to judgement; and that the longer of two judgements is better. None for
    what is no question.
    """
    text = decode(list(prompt), skip_special=True)
    if match := re.search(r"M[q:]+\|(.*?)\|(.*?)\|(.*?)\|", text, re.DOTALL):
        return f"Winner: Judgement {'A' if len(match[2]) > len(match[3]) else 'B'}"
    if match := re.search(r"([JA])[q:]+\|(.*)\|", text, re.DOTALL):
        liked = "[ -~]" if match[1] == "J" else "a"
        points, slip = min(5, len(re.findall(liked, match[2]))), key % 4
        return f"{'.' * (1 + slip)} Score: {max(points - slip / 4, 0)}"
    return None


def says_q(prompt: str, response: str, row: Any) -> float:
    """Half right, whatever is said."""
    assert row["answer"] == 1
    return 0.5


def scripted(plan_file: str, name: str = "1", calls: int = 0) -> int:
    """One process of a run whose judgements come from a script. It fails when something is to be said for the
    `calls`-th time, be it responses, judgements or verdicts.
    """
    from runtime.jury import Jury

    real, left = Jury.say, [calls]

    def say(jury: Jury, prompts: Any, sampling: Any, keys: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise SystemExit(9)
        decode, end = jury.tokenizer.decode, jury.tokenizer.eos_id
        answers = [by_script(decode, prompt, key) for prompt, key in zip(prompts, keys, strict=True)]
        if None in answers:
            return real(jury, prompts, sampling, keys)
        return [((*answer.encode(), end), True) for answer in answers if answer is not None]

    Jury.say = say
    return attempt(plan_file, name)


def attempt(plan_file: str, name: str = "1") -> int:
    """One process of a run inside a worker of `world`; its exit code."""
    os.environ["SPECC_ATTEMPT"] = name
    return toy_ppo.attempt(plan_file, name)


__all__ = ["OWN", "attempt", "by_script", "plan", "scripted", "toy_runs"]
