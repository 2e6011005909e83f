"""What algorithms have in common that learn from preferences: their rows, and a reference."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from specc.spec.data import FIELD, Rows
from specc.spec.model import Model
from specc.spec.section import Section, Shorthand, maths
from specc.spec.section import placement as placed
from specc.spec.stage import TrainingSpec
from specc.spec.train import Train
from specc.spec.units import conflict


class Compared(Rows):
    """Rows of a prompt with a better and a worse response; text alone is their path."""

    format: Literal["auto", "hh"] = maths("auto")
    """Form of a row: the fields of the templates, or turns of a conversation in their place (auto), or
    Anthropic's dialogues (hh)."""

    prompt: str = maths("{prompt}")
    """Template of the prompt, with a row's fields in braces."""

    chosen: str = maths("{chosen}")
    """Template of the better response."""

    rejected: str = maths("{rejected}")
    """Template of the worse response."""

    @model_validator(mode="after")
    def _templates_name_fields(self) -> Compared:
        check_templates(self, ("prompt", "chosen", "rejected"), self.format == "hh")
        return self


class ComparedData(Section):
    """Data sets of an algorithm that compares two responses."""

    train: Compared = maths()
    """Rows to learn from."""

    validation: Compared | None = maths(None)
    """Rows on which loss and accuracy are measured, and the best checkpoint chosen; left out, no
    validation."""


class Verdicts(Rows):
    """Rows of a prompt with one response that somebody liked or not; text alone is their path."""

    prompt: str = maths("{prompt}")
    """Template of the prompt, with a row's fields in braces."""

    response: str = maths("{response}")
    """Template of the response; `preference: chosen` or `rejected`, or `label: true` or `false`, says in each
    row whether it was liked."""

    @model_validator(mode="after")
    def _templates_name_fields(self) -> Verdicts:
        check_templates(self, ("prompt", "response"), False)
        return self


class VerdictData(Section):
    """Data sets of an algorithm that learns from single verdicts."""

    train: Verdicts = maths()
    """Rows to learn from."""

    validation: Verdicts | None = maths(None)
    """Rows on which the loss is measured, and the best checkpoint chosen; left out, no validation."""


def check_templates(rows: Rows, keys: tuple[str, ...], are_dialogues: bool) -> None:
    """Raise a template that names no field, or that dialogues have no use for."""
    for key in keys:
        said = getattr(rows, key) != type(rows).model_fields[key].default
        if said and are_dialogues:
            raise conflict(f"hh rows have no `{key}` template", key, f"remove `{key}`, or use format: auto")
        if key != "prompt" and not FIELD.search(getattr(rows, key)):
            message = f"the {key} template names no field of the rows"
            raise conflict(message, key, f'put a field in braces, e.g. {key}: "{{{key}}}"')


class Reference(Shorthand):
    """The policy that training shall not move far away from; text alone says where its weights are."""

    shorthand = "weights"

    model: Model | None = maths(None)
    """Left out, the weights that training starts from."""

    weights: Literal["swap", "stored"] = placed("swap")
    """`swap` keeps them in the host's memory, and they trade places with the model's at each step; `stored`
    asks them once about all rows, before the first step, and reads the numbers from disk."""


class PreferenceTrain(Train):
    """One training run on preferences."""

    global_batch: int = maths(64, ge=1, le=10**7)
    """Rows per optimizer step, over all GPUs; two responses that are compared are one row."""

    lr: float = maths(9e-6, ge=0, le=10)
    """Highest learning rate, reached after the warm-up."""

    min_lr: float = maths(9e-7, ge=0, le=10)
    """Learning rate at the end of the schedule."""

    weight_decay: float = maths(0.1, ge=0, le=10)
    """Decoupled weight decay; biases and norms have none."""

    packing: bool = maths(False)
    """Put several rows into one line of `seq_length` tokens for each response of a row; the loss stays the
    same, the padding goes."""


class Responses(Section):
    """What becomes of a row's responses."""

    truncation: Literal["drop", "error"] = maths("drop")
    """What happens to a row with a response that, with its prompt, has more than `seq_length` tokens: it is
    left out and counted, or refused."""

    add_eos: bool = maths(True)
    """Append the end token to each response."""

    add_bos: bool = maths(False)
    """Put the begin token before each prompt."""


class ReferenceSpec(TrainingSpec):
    """A stage that learns from preferences beside a reference."""

    train: PreferenceTrain = maths(PreferenceTrain())  # type: ignore[assignment]  # with other defaults
    """Batches, optimizer, schedule, checkpoints."""

    reference: Reference = maths(Reference())
    """The policy that training shall not move far away from."""

    @model_validator(mode="after")
    def _whole_texts(self) -> ReferenceSpec:
        check_whole_texts(self)
        return self


def check_whole_texts(spec: TrainingSpec) -> None:
    """Raise a layout that cuts a text, whose tokens' log-probabilities are summed before the loss."""
    if (spec.parallel.cp or 1) > 1:
        message = f"cp {spec.parallel.cp} cuts a text over GPUs, but the loss is a function of the whole text"
        raise conflict(message, "parallel.cp", "remove `cp`; use tp or recompute where memory is short")
