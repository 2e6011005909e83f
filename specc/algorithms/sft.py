"""Supervised fine-tuning: one role that learns to answer as the data does."""

from __future__ import annotations

from typing import Literal

from specc.graph import Stage, training_role, training_stage
from specc.spec.section import Section, maths
from specc.spec.stage import TrainingSpec


class Sft(Section):
    """What is special about fine-tuning."""

    answer_only: bool = maths(True)
    """Learn the responses only, not the prompts."""

    turns: Literal["all", "last"] = maths("all")
    """Which answers of a conversation are learnt: `all`, or the `last` one, which is what a stage that
    generates has added to a prompt. Without `answer_only` the whole row is learnt in either case."""

    truncation: Literal["right", "left", "drop", "error"] = maths("right")
    """What happens to a row of more than `seq_length` tokens: cut it at that end, or leave it out."""

    add_eos: bool = maths(True)
    """Append the end token to each response and learn it."""

    add_bos: bool = maths(False)
    """Put the begin token before each row."""

    cut_answers: Literal["open", "closed"] = maths("open")
    """How an answer is learnt that a stage cut at its limit (`finish: length` in its row): `open`, without
    the end token or the chat template's end of a turn, which it never said; or `closed` like any other, as
    NeMo-Aligner does, which teaches to stop in mid-sentence."""


class Spec(TrainingSpec):
    """Supervised fine-tuning of one model."""

    algorithm: Literal["sft"] = maths()
    """`sft`."""

    sft: Sft = maths(Sft())
    """What is learnt of a row."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage, one role."""
    role = training_role(spec, program="sft")
    return [training_stage(spec, name, role, settings={"sft": spec.sft.model_dump(mode="json")})]
