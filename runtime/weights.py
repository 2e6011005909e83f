"""A model's first weights: random, a Hugging Face folder, or what another stage ended with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import checkpoint
from runtime.problem import Problem

if TYPE_CHECKING:
    from runtime.engine import Engine
    from runtime.place import Place
    from runtime.run import Run
    from specc.plan import Role, Weights


def take_first_weights(run: Run) -> None:
    """Put the plan's initial weights into the run's model; random ones are there since it was built."""
    with_head = bool(run.settings.get("load_head", True))
    take_weights(run.model, run.role, run.place, with_head=with_head, say=run.say, alive=run.alive)


def take_weights(
    engine: Engine,
    role: Role,
    place: Place,
    *,
    with_head: bool = True,
    say: Callable[[str], None] = lambda text: None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Put a role's initial weights into an engine. Collective. Problem R016 when there are none."""
    weights = role.model.weights
    if weights.kind == "random":
        return
    say(f"initial weights: {weights.kind} {weights.path} {weights.stage}".rstrip())
    if weights.kind == "hf":
        from runtime.hf import import_weights

        import_weights(engine, role, weights.path, engine.parallel, alive, with_head)
        return
    source, step, verified = step_of(weights, place)
    load = checkpoint.load_weights
    load(source, step, engine, verified=verified, with_head=with_head)  # type: ignore[arg-type]


def step_of(weights: Weights, place: Place) -> tuple[Path, int, bool]:
    """The folder of steps that weights of a stage or a checkpoint mean, which step of it, and whether it was
    examined: what `chosen` gives it has; a step that somebody named, nobody has. Collective. R016.
    """
    folder, step = stage_of(weights, place) / "checkpoint", None
    if weights.kind == "checkpoint":
        folder, step = _step_of(Path(weights.path))
    if step is not None:
        return folder, step, False
    step = checkpoint.chosen(folder)
    if step is None:
        message = f"stage `{weights.stage}` has no checkpoint that holds in `{folder}`"
        raise Problem("R016", message, outside=True)
    return folder, step, True


def _step_of(path: Path) -> tuple[Path, int | None]:
    """A folder of steps, and the step that is meant where `path` is one."""
    number = path.name.removeprefix("step-")
    return (path.parent, int(number)) if path.name != number and number.isdecimal() else (path, None)


def stage_of(weights: Weights, place: Place) -> Path:
    """Where the role that made these weights left its checkpoints: the stage's folder, or its actor's."""
    stage = (Path(weights.path) if weights.kind == "run" else place.run_folder) / weights.stage
    return stage / "actor" if (stage / "actor").is_dir() else stage
