"""Rewards written into prompts: a decision transformer over text (arXiv:2308.12050).

The model learns what a response of that reward looks like; asked with a high one, it is to give such. The
template has `{reward}` and `{input}`; nothing is left out. A row that is a conversation is from here on the
text that its chat template made of it, so that what is learnt has the reward in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.algorithms.above import checked
from runtime.data.conversations import KEYS
from runtime.making import means

if TYPE_CHECKING:
    from runtime.making import Making

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The section `reward_prompt` of the plan."""

    template: str = "{input} <rm_score>: {reward} "
    decimals: int = 1


def step(run: Making) -> dict[str, float]:
    """The next rows with their rewards in their prompts."""
    settings = run.program_settings(Settings)
    rows = checked(run, "input")
    run.put(prompted(row, settings.template, settings.decimals) for row in rows)
    return means({"reward": [row["reward"] for row in rows]})


def prompted(row: Row, template: str, decimals: int = 1) -> Row:
    """The row with another prompt. Braces in the prompt itself are not filled in."""
    reward = f"{row['reward']:.{decimals}f}"
    parts = [part.replace("{reward}", reward) for part in template.split("{input}")]
    rest = {name: value for name, value in row.items() if name not in KEYS}
    return {**rest, "input": row["input"].join(parts)}
