"""A model's first weights: random, a Hugging Face folder, or what another stage ended with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runtime import checkpoint
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.run import Run


def take_first_weights(run: Run) -> None:
    """Put the plan's initial weights into the model; random ones are there since it was built."""
    weights = run.role.model.weights
    if weights.kind == "random":
        return
    with_head = bool(run.settings.get("load_head", True))
    run.say(f"initial weights: {weights.kind} {weights.path} {weights.stage}".rstrip())
    if weights.kind == "hf":
        from runtime.hf import import_weights

        import_weights(run.model, run.role, weights.path, run.model.parallel, run.alive, with_head)
        return
    folder = Path(weights.path) if weights.kind == "run" else run.place.run_folder
    source = folder / weights.stage / "checkpoint"
    step = checkpoint.chosen(source)
    if step is None:
        raise Problem(
            "R016", f"stage `{weights.stage}` has no checkpoint that holds in `{source}`", outside=True
        )
    checkpoint.load_weights(source, step, run.model, verified=True, with_head=with_head)  # type: ignore[arg-type]
