"""Rows that a stage learns from, and what they are measured on."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import model_validator

from specc.spec.model import From
from specc.spec.section import Section, Shorthand, maths
from specc.spec.units import Given, conflict

FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
"""A placeholder of a template."""


class Rows(Shorthand):
    """Where rows come from; text alone is their path."""

    shorthand = "path"

    path: Given | None = maths(None)
    """File, folder or URL of JSONL or Parquet, a Hugging Face data set's id, or `builtin:arithmetic`."""

    from_: From | None = maths(None, alias="from")
    """Stage that makes the rows, instead of a path: a name, or `{run: FOLDER, stage: NAME}` for another
    run's."""

    split: Given | None = maths(None)
    """Split of a data set that has several; left out, `train`."""

    subset: Given | None = maths(None)
    """Configuration of a Hugging Face data set."""

    limit: int | None = maths(None, ge=1)
    """Number of rows to take from the front; left out, all."""

    @model_validator(mode="after")
    def _come_from_one_place(self) -> Rows:
        if self.path is None and self.from_ is None:
            raise conflict("rows need `path` or `from`", "", "e.g. path: data/train.jsonl, or from: STAGE")
        if self.from_ is not None:
            for key in ("path", "split", "subset"):
                if getattr(self, key) is not None:
                    message = f"rows that a stage makes (`from`) have no `{key}`"
                    raise conflict(message, key, f"remove `{key}`, or `from`")
        return self


class Dataset(Rows):
    """Rows of one data set; text alone is its path."""

    format: Literal["auto", "chat", "prompt_response", "hh"] = maths("auto")
    """Form of a row: `messages` or `conversations` (chat), fields, or a pair of dialogues of Anthropic-HH, of
    which the chosen one counts; `auto` looks at the first row for one of the first two."""

    prompt: str = maths("{input}")
    """Template of the prompt, with a row's fields in braces."""

    response: str = maths("{output}")
    """Template of the response, with a row's fields in braces; it is what is learnt."""

    @model_validator(mode="after")
    def _templates_name_fields(self) -> Dataset:
        if self.format in ("chat", "hh"):
            forms = (
                "the tokenizer's chat template forms them" if self.format == "chat" else "they are dialogues"
            )
            for key in ("prompt", "response"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    message = f"{self.format} rows have no `{key}` template; {forms}"
                    raise conflict(message, key, f"remove `{key}`, or use format: prompt_response")
        elif not FIELD.search(self.response):
            message = "the response template names no field of the rows"
            raise conflict(message, "response", 'put a field in braces, e.g. response: "{output}"')
        return self


class Data(Section):
    """Data sets of a training stage."""

    train: Dataset = maths()
    """Rows to learn from."""

    validation: Dataset | None = maths(None)
    """Rows on which the loss is measured, and the best checkpoint chosen; left out, no validation."""


class Judged(Rows):
    """Texts that people compared or gave marks to; text alone is its path."""

    format: Literal["auto", "comparisons", "attributes", "hh"] = maths("auto")
    """Form of a row: `chosen` and `rejected`, or one `text`, of two the better first (comparisons); `text` or
    a conversation with a list `label` (attributes); Anthropic's dialogues (hh). `auto`: as the loss wants."""

    prompt: str = maths("{prompt}")
    """Template of what comes before both texts of a comparison, with a row's fields in braces."""

    chosen: str = maths("{chosen}")
    """Template of the better text."""

    rejected: str = maths("{rejected}")
    """Template of the other text."""

    @model_validator(mode="after")
    def _templates_belong_to_comparisons(self) -> Judged:
        for key in ("prompt", "chosen", "rejected"):
            said = getattr(self, key) != type(self).model_fields[key].default
            if said and self.format in ("attributes", "hh"):
                message = f"{self.format} rows have no `{key}` template"
                raise conflict(message, key, f"remove `{key}`, or use format: comparisons")
            if key != "prompt" and not FIELD.search(getattr(self, key)):
                message = f"the {key} template names no field of the rows"
                raise conflict(message, key, f'put a field in braces, e.g. {key}: "{{{key}}}"')
        return self


class JudgedData(Section):
    """Data sets of a reward model."""

    train: Judged = maths()
    """Rows to learn from."""

    validation: Judged | None = maths(None)
    """Rows on which loss and accuracy are measured, the reward's mean and deviation too, and the best
    checkpoint chosen; left out, no validation."""


class Asked(Rows):
    """Prompts to be answered; text alone is their path."""

    format: Literal["auto", "chat", "prompt_response", "hh"] = maths("auto")
    """Form of a row: `messages` or `conversations`, whose last answer is left out (chat), fields of the
    template, or Anthropic's dialogues (hh); `auto` looks at each row; `prompt` or `text` stay as they are."""

    prompt: str = maths("{input}")
    """Template of the prompt, with a row's fields in braces."""

    @model_validator(mode="after")
    def _template_names_fields(self) -> Asked:
        said = self.prompt != type(self).model_fields["prompt"].default
        if said and self.format in ("chat", "hh"):
            message = f"{self.format} rows have no `prompt` template"
            raise conflict(message, "prompt", "remove `prompt`, or use format: prompt_response")
        if said and not FIELD.search(self.prompt):
            message = "the prompt template names no field of the rows"
            raise conflict(message, "prompt", 'put a field in braces, e.g. prompt: "{question}"')
        return self


class PromptData(Section):
    """Data sets of a stage that learns from what it generates."""

    prompts: Asked = maths()
    """Prompts to learn on."""

    validation: Asked | None = maths(None)
    """Prompts whose responses are scored now and then, and the best checkpoint chosen; left out, none."""
