"""What a stage trains or uses: a model by name, from a folder, by its numbers, or from another stage."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from specc.spec.section import Shorthand, maths
from specc.spec.units import Given, conflict


class From(Shorthand):
    """Another stage's checkpoint: its best if it validated, else its last."""

    shorthand = "stage"

    stage: Given = maths()
    """Name of the stage."""

    run: Given | None = maths(None)
    """Run folder of another spec that holds the stage; left out, the stage is one of this spec."""


class Model(Shorthand):
    """A model; text alone is its name."""

    shorthand = "name"

    name: Given | None = maths(None)
    """Name in the catalog, Hugging Face id with an optional `@revision`, or a folder."""

    path: Given | None = maths(None)
    """Folder or URL of a Hugging Face model; `name` then says which model it is where it is not at hand."""

    from_: From | None = maths(None, alias="from")
    """Stage whose checkpoint it is: a name, or `{run: FOLDER, stage: NAME}` for another run's."""

    shape: dict[str, Any] | None = maths(None)
    """Numbers of a model with random weights: `layers`, `hidden`, `heads` and what else a shape has."""

    weights: Literal["load", "random"] | None = maths(None)
    """Whether the weights are loaded (the default where there are some) or drawn at random."""

    tokenizer: Given | None = maths(None)
    """Folder, `tokenizer.json`, SentencePiece `.model` or `builtin:bytes`; left out, the model's own."""

    chat_template: str | None = maths(None)
    """Built-in template (`extra_id`) or a jinja2 text; left out, the tokenizer's own."""

    @model_validator(mode="after")
    def _names_one_model(self) -> Model:
        if self.from_ is not None:
            for key in ("path", "shape", "weights"):
                if getattr(self, key) is not None:
                    message = f"a model with `from` takes the stage's weights, so `{key}` has no meaning"
                    raise conflict(message, key, f"remove `{key}`, or `from`")
        elif self.name is None and self.path is None and self.shape is None:
            raise conflict("a model needs `name`, `path`, `from` or `shape`", "", "e.g. model: llama3-8b")
        return self
