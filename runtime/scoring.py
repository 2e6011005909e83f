"""From what a reward model's head says, or a function, to the score of a response.

    score = clip((sum of weight x attribute - mean) / deviation)

Weights, mean and deviation are the plan's where it says them, else what the model's stage measured.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.agreement import told
from runtime.data.rows import Rows
from runtime.problem import Problem
from specc.plan import Role

if TYPE_CHECKING:
    from runtime.rollouts import Rollout

BUILTIN = "builtin:"


@dataclass(frozen=True)
class Scoring:
    """How the numbers of a head become one; `clip` 0: not held."""

    weights: tuple[float, ...]
    mean: float = 0.0
    deviation: float = 1.0
    clip: float = 0.0

    def of(self, outputs_NA: np.ndarray) -> np.ndarray:
        """The scores [N] of outputs [N, A], fp64."""
        scores = outputs_NA.astype(np.float64) @ np.asarray(self.weights, np.float64)
        return self.held((scores - self.mean) / self.deviation)

    def held(self, scores: np.ndarray) -> np.ndarray:
        return scores.clip(-self.clip, self.clip) if self.clip else scores


PLAIN = Scoring((1.0,))
"""One number, as it is."""


def scoring_of(settings: Mapping[str, Any], role: Role, run_folder: Path) -> Scoring:
    """From the plan's section `reward` and what the model's stage left in `output.json`. Problem R016."""
    output = _output(role, run_folder)
    names = role.model.attributes or ("reward",)
    merge = settings.get("merge") or {}
    if merge:
        weights = tuple(float(merge.get(name, 0.0)) for name in names)
    else:
        weights = tuple(output.get("weights") or ()) or tuple(1.0 / len(names) for _ in names)
    if len(weights) != len(names):
        raise Problem("R016", f"the reward model says {len(names)} numbers, but has {len(weights)} weights")
    clip = float(settings.get("clip") or 0.0)
    if not settings.get("standardise"):
        return Scoring(weights, clip=clip)
    mean = settings["mean"] if settings.get("mean") is not None else output.get("reward_mean")
    deviation = settings["std"] if settings.get("std") is not None else output.get("reward_std")
    if mean is None or deviation is None:
        message = "mean and deviation of the rewards are not known: the model's stage did not measure them"
        raise Problem("R016", f"{message}; say reward.mean and reward.std, or standardise: false")
    return Scoring(weights, float(mean), float(deviation) or 1.0, clip)


def _output(role: Role, run_folder: Path) -> dict[str, Any]:
    """What the stage that trained the model said of it; nothing for a model from elsewhere."""
    weights = role.model.weights
    if weights.kind not in ("stage", "run"):
        return {}
    file = (Path(weights.path) if weights.kind == "run" else run_folder) / weights.stage / "output.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem("R016", f"stage `{weights.stage}` has no output.json to read: {error}") from None
    return found if isinstance(found, dict) else {}


# ── functions ────────────────────────────────────────────────────────────────────────────────────


Rewarding = Callable[[str, str, Mapping[str, Any]], float]
"""A reward that is a function of the prompt, the response and the data's row."""


def function_of(name: str) -> Rewarding:
    """`module:function`, or `builtin:NAME` of `runtime.verifiers`. It may take the row or not. R016."""
    if name.startswith(BUILTIN):
        name = f"runtime.verifiers:{name.removeprefix(BUILTIN)}"
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
        takes = len(inspect.signature(function).parameters)
    except Exception as error:  # the module is the user's, and may do anything when it is imported
        message = f"the reward function `{name}` cannot be had: {type(error).__name__}: {error}"
        raise Problem("R016", f"{message}; name it as module:function, on the job's PYTHONPATH") from None
    return function if takes > 2 else lambda prompt, response, row: function(prompt, response)


def right_score(settings: Mapping[str, Any]) -> float | None:
    """What a right response scores under the plan's section `reward`, where its function is a verifier: one
    of `runtime.verifiers`, or one that says so of itself by `verifies = True`. None for any other reward.
    """
    name, clip = str(settings.get("function") or ""), float(settings.get("clip") or 0.0)
    if not name.startswith(BUILTIN):
        module, _, attribute = name.partition(":")
        found = getattr(sys.modules.get(module), attribute, None) if attribute else None
        if getattr(found, "verifies", False) is not True:
            return None
    return min(1.0, clip) if clip else 1.0


def scored_by(
    function: Rewarding,
    decode: Callable[[list[int]], str],
    rows: Mapping[str, Rows],
    ends: Sequence[int] = (),
) -> Callable[[Sequence[Rollout]], list[float]]:
    """The function over rollouts: rank 0 calls it, every rank has its scores. `rows` are the data's by their
    use. What it is given of a response is without the token of `ends` that ended it. Problem R055 names the
    row.
    """

    def score(rollouts: Sequence[Rollout]) -> list[float]:
        return told("R055", "the reward function failed", lambda: [one(r) for r in rollouts])

    def one(rollout: Rollout) -> float:
        tokens = list(rollout.response)
        if rollout.ended and tokens[-1] in ends:
            tokens.pop()
        prompt, response = decode(list(rollout.prompt)), decode(tokens)
        try:
            found = float(function(prompt, response, rows[rollout.data][rollout.row]))
        except Exception as error:  # it is the user's
            said = f"{type(error).__name__}: {error}"
            raise Problem("R055", f"row {rollout.row}, {said}") from None
        if not np.isfinite(found):
            raise Problem("R055", f"row {rollout.row}, it gave {found}")
        return found

    return score
