"""The end of a stage: the exported model, and `output.json`, which means that it is finished."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import checkpoint, metrics, rowstore, steps
from runtime.agreement import told
from runtime.checkpoint import read_state

if TYPE_CHECKING:
    from runtime.run import Run


def finish(run: Run) -> None:
    """Export when asked, then write `output.json` last, by one rename."""
    if run.job.export:
        from runtime.hf import export_weights

        run.alive()
        _take_what_later_stages_take(run)
        run.say(f"exporting to {run.place.stage / 'hf'}")
        dtype = "float32" if run.role.precision == "fp32" else "bfloat16"
        export_weights(run.model, run.role, run.place.stage / "hf", run.model.parallel, dtype, run.alive)
    run.close()
    told("R006", "cannot write output.json", lambda: _write(run))
    run.say(f"finished: step {run.step}, {run.place.output}")


def _take_what_later_stages_take(run: Run) -> None:
    """The weights of the checkpoint that `from:` means: the best one where it was validated. Collective."""
    step = checkpoint.chosen(run.place.checkpoints)
    if step is None or step == run.step:
        return
    run.say(f"step {step} was the best: its weights are exported, as later stages take them")
    checkpoint.load_weights(run.place.checkpoints, step, run.model, verified=True)  # type: ignore[arg-type]


def _facts(step: Path) -> dict[str, Any]:
    """What the program said of the checkpoint that later stages take, such as the mean of its rewards."""
    return read_state(step)["state"].get("facts") or {}


def _write(run: Run) -> None:
    best = steps.best_of(run.place.checkpoints)
    taken = f"step-{run.step if best is None else best}"
    model = run.role.model
    content: dict[str, Any] = {
        "hash": run.job.hash,
        "stage": run.job.stage,
        "program": run.role.program,
        "step": run.step,
        "family": model.shape.family,
        "head": model.head,
        "attributes": list(model.attributes),
        "tokenizer": model.tokenizer,
        "chat_template": model.chat_template,
        "checkpoint": taken,
        "hf": "hf" if run.job.export else None,
        **_facts(run.place.checkpoints / taken),
        "metrics": metrics.last_values(run.place.role / "metrics.jsonl"),
    }
    rowstore.write_output(run.place.output, content)
