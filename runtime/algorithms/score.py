"""Rewards of rows: what a reward model, a function or a verifier says of each.

    reward = clip((sum of weight x attribute - mean) / deviation)

The text is `input` and `output` without anything between, tokenised as the reward model's texts were, with
an end token behind it where they had one (`add_eos`). The score is read at the last token. A text that is
too long loses its last tokens before the end token (`truncation: right`; left: its first ones) and counts
in `texts_cut`. A row that is a conversation goes through the chat template instead, as in training.

Mean and deviation are the plan's (`standardise: given`), the reward model's own (`model`), or those of all
rows that are scored (`rows`), the deviation with N - 1, in float64. A head of several numbers leaves them
in `attributes`, too.

A function sees the prompt, the response and the prompt's own row (`source`); then no model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.data import conversations
from runtime.data.comparisons import filled
from runtime.data.judged import JudgedForm, judged_conversation, judged_text
from runtime.data.prompt_response import Encoded
from runtime.making import check_vocabulary, means
from runtime.problem import Problem
from runtime.scoring import Rewarding, Scoring, function_of, scoring_of

if TYPE_CHECKING:
    from runtime.making import Making

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The section `score` of the plan."""

    function: str = ""  # module:function or builtin:NAME; empty: the model
    prompt: str = "{input}"  # template of a row's prompt
    response: str = "{output}"
    seq_length: int = 0  # tokens of a text at most; 0: the model's positions
    truncation: str = "right"  # right | left | error
    add_bos: bool = False
    add_eos: bool = True
    standardise: str = ""  # given | model | rows; empty: not
    clip: float = 0.0  # 0: not held


@dataclass(frozen=True)
class Scorer:
    """What every step needs."""

    settings: Settings
    scoring: Scoring
    function: Rewarding | None = None


def opening(run: Making) -> Scorer:
    """The function, or how the model's numbers become one."""
    settings = run.program_settings(Settings)
    if settings.function:
        scoring = given(run.settings, Scoring((1.0,), clip=settings.clip))
        return Scorer(settings, scoring, function_of(settings.function))
    section = dict(run.settings)
    if settings.standardise == "rows":
        section |= {"standardise": False, "clip": 0.0}
    return Scorer(settings, scoring_of(section, run.role, run.place.run_folder))


def given(section: Mapping[str, Any], plain: Scoring) -> Scoring:
    """A function's scoring: standardised only by numbers that the plan says."""
    if section.get("standardise") == "rows":
        return Scoring((1.0,))
    if not section.get("standardise"):
        return plain
    mean, deviation = section.get("mean"), section.get("std")
    if mean is None or deviation is None:
        raise Problem(
            "R016", "nobody measured the function's rewards; say mean and std, or standardise: rows"
        )
    return Scoring((1.0,), float(mean), float(deviation) or 1.0, plain.clip)


def step(run: Making) -> dict[str, Any]:
    """Rewards of the next rows."""
    scorer: Scorer = run.opened
    rows, where = run.batch(), [run.source.where(i) for i in run.indices()]
    if scorer.function is not None:
        said_NA = run.on_first(lambda: called(scorer, rows, where))
    else:
        said_NA = asked(run, scorer, rows, where)
    rewards = scorer.scoring.of(said_NA).tolist()
    run.put(rewarded(rows, rewards, said_NA, run.role.model.attributes))
    return {
        **means({"reward": rewards}),
        "reward_std": float(np.std(rewards)) if rewards else 0.0,
        **{
            name: float(column.mean())
            for name, column in zip(run.role.model.attributes, said_NA.T, strict=False)
        },
    }


def rewarded(
    rows: Sequence[Row], rewards: Sequence[float], said_NA: np.ndarray, names: Sequence[str]
) -> list[Row]:
    """The rows with what was said of them."""
    found = []
    for row, reward, said in zip(rows, rewards, said_NA.tolist(), strict=True):
        more = {"attributes": dict(zip(names, said, strict=True))} if len(names) > 1 else {}
        found.append({**row, "reward": reward, **more})
    return found


def called(scorer: Scorer, rows: Sequence[Row], where: Sequence[str]) -> np.ndarray:
    """What the function says of each row [N, 1]. Problem R055 names the row."""
    assert scorer.function is not None
    settings, found = scorer.settings, []
    for row, place in zip(rows, where, strict=True):
        prompt, response = filled(settings.prompt, row, place), filled(settings.response, row, place)
        source = row.get("source")
        try:
            said = float(scorer.function(prompt, response, source if isinstance(source, dict) else row))
        except Exception as error:  # it is the user's
            raise Problem("R055", f"the reward function failed: {place}, {_what(error)}") from None
        if not math.isfinite(said):
            raise Problem("R055", f"the reward function failed: {place}, it gave {said}")
        found.append([said])
    return np.asarray(found, np.float64).reshape(len(rows), 1)


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def asked(run: Making, scorer: Scorer, rows: Sequence[Row], where: Sequence[str]) -> np.ndarray:
    """What the model's head says at the end of each text [N, outputs] fp64. Problem R053."""
    from runtime.batch import Sample
    from runtime.judges import heard

    with run.part("data"):
        texts = [encoded(run, scorer.settings, row, place) for row, place in zip(rows, where, strict=True)]
        samples = [Sample(i, text.tokens, text.mask) for i, text in enumerate(texts)]
    run.count(texts_cut=sum(text.cut for text in texts))
    assert run.model is not None
    with run.part("judge"):
        found = heard(run.model, samples, run.table())
    said_NA = np.stack([found[i][-1] for i in range(len(samples))]).astype(np.float64)
    strange = np.argwhere(~np.isfinite(said_NA))
    if len(strange):
        row = int(strange[0][0])
        raise Problem("R053", f"the reward of {where[row]} is {said_NA[row].tolist()}")
    return said_NA


def encoded(run: Making, settings: Settings, row: Row, where: str) -> Encoded:
    """A row's tokens, read at the last one; Problem R010 names a bad row."""
    form = JudgedForm(
        seq_length=settings.seq_length or run.role.model.shape.max_positions,
        truncation=settings.truncation,
        add_bos=settings.add_bos,
        add_eos=settings.add_eos,
    )
    if conversations.is_conversation(row):
        keys = ("messages", "conversations", "system", "mask", "type")
        talk = {key: row[key] for key in keys if key in row}
        text = judged_conversation(talk, where, run.tokenizer, run.role.model.chat_template, form)
    else:
        whole = filled(settings.prompt, row, where) + filled(settings.response, row, where)
        text = judged_text(whole, where, run.tokenizer, form)
    if text.dropped:  # begin and end alone do not fit
        raise Problem("R010", f"{where}: {text.dropped}")
    check_vocabulary(text.tokens, where, run.role.model.shape.vocab)
    return text


# ── over all rows ────────────────────────────────────────────────────────────────────────────────


def closing(run: Making, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows, standardised by all of them where that was asked; mean and deviation stand in output.json."""
    mean, deviation = moments(row["reward"] for row in rows())
    run.facts |= {"reward_mean": mean, "reward_std": deviation}
    settings = run.program_settings(Settings)
    if settings.standardise != "rows":
        yield from rows()
        return
    scoring = Scoring((1.0,), mean, deviation or 1.0, settings.clip)
    for row in rows():
        yield {**row, "reward": float(scoring.of(np.array([[row["reward"]]]))[0])}


def moments(rewards: Iterator[float]) -> tuple[float, float]:
    """Mean and deviation (N - 1) in float64, without rounding on the way: sums are exact."""
    found = list(rewards)
    if not found:
        return 0.0, 0.0
    mean = math.fsum(found) / len(found)
    squares = math.fsum((reward - mean) ** 2 for reward in found)
    return mean, math.sqrt(squares / (len(found) - 1)) if len(found) > 1 else 0.0
