"""What an algorithm may touch: settings, data, its model, metrics, and the step it is at.

Each component knows whether it is due; the loop knows where. `step` counts the updates that are done,
so `checkpoint/step-20` and the line of `metrics.jsonl` with step 20 mean the same moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from runtime import checkpoint, metrics, output
from runtime.agreement import told
from runtime.batch import Batch, Bin, dealt
from runtime.commits import Commits, commits_of
from runtime.data.order import max_steps
from runtime.data.stream import Stream
from runtime.dealing import Table
from runtime.engine import Engine
from runtime.loop import program
from runtime.place import Place
from runtime.problem import Problem
from runtime.schedule import learning_rate
from runtime.stop import StopFlag
from runtime.weights import take_first_weights
from specc.plan import Job, Plan, Role

Form = TypeVar("Form")

SAID = ("validation_loss", "validation_acc", "validation_reward", "validation_right")
"""Measurements that are said on stdout too."""


@dataclass
class Run:
    """One role of one job on this process."""

    plan: Plan
    job: Job
    role: Role
    place: Place
    model: Engine
    data: Stream
    validation: Stream | None
    stop: StopFlag
    pad_id: int = 0
    step: int = 0
    online: Any = None  # runtime.online.Online, of an algorithm that learns from its own responses
    reference: Any = None  # runtime.reference.Reference, of an algorithm that asks one
    carried: dict[str, Any] = field(default_factory=dict)  # what an algorithm takes from step to step

    _saved: int | None = field(default=None, init=False)
    _measured: tuple[int, dict[str, float]] | None = field(default=None, init=False)
    _parts: dict[str, float] = field(default_factory=dict, init=False)
    _sinks: list[metrics.Sink] = field(default_factory=list, init=False)
    _lengths: list[int] = field(default_factory=list, init=False)
    _started: float = field(default=0.0, init=False)

    # ── what algorithms use ────────────────────────────────────────────────────────────────────

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The algorithm's own section of the plan."""
        return self.job.settings.get(self.role.program) or {}

    @cached_property
    def commits(self) -> Commits | None:
        """The steps that several roles have saved together; None where one role learns."""
        return commits_of(self.job, self.place.stage)

    @cached_property
    def train(self) -> dict[str, Any]:
        """The section `train`: steps, rate, and what is due how often."""
        return self.job.settings["train"]

    @cached_property
    def max_steps(self) -> int:
        """Updates of the whole run."""
        return max_steps(self.train, self.data.rows, self.data.global_batch)

    def program_settings(self, form: type[Form]) -> Form:
        """The algorithm's own section as its dataclass; what it does not say is as declared there."""
        names = {each.name for each in fields(form)}  # type: ignore[arg-type]
        return form(**{name: value for name, value in self.settings.items() if name in names})

    def table(self) -> Table:
        """How this role's ranks sit, for dealing samples by their lengths."""
        layout = self.role.layout
        rounds = layout.pp if layout.vp > 1 else 1
        multiple = 2 * layout.cp * layout.tp
        return Table(
            self.model.parallel.dp_rank, layout.dp, self.role.micro_batch, multiple, rounds, self.pad_id
        )

    def learning_rate(self) -> float:
        """The rate of the update that comes next."""
        return learning_rate(self.step, self.max_steps, self.train)

    def dealt(self, bins: Sequence[Bin]) -> list[Batch]:
        """This rank's microbatches of a global batch."""
        layout = self.role.layout
        self._lengths = [sample.columns for line in bins for sample in line]
        return dealt(
            bins,
            self.model.parallel.dp_rank,
            layout.dp,
            self.role.micro_batch * self.data.lines,
            multiple=2 * layout.cp * layout.tp,
            rounds_multiple=layout.pp if layout.vp > 1 else 1,
            pad_id=self.pad_id,
            packed=bool(self.train.get("packing")),
        )

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of this block as `NAME_seconds` of the step."""
        began = time.perf_counter()
        yield
        self._parts[name] = self._parts.get(name, 0.0) + time.perf_counter() - began

    def alive(self) -> None:
        """Show a sign of life: a watchdog ends a run whose heartbeat is too old."""
        if self.place.is_first:
            (self.place.stage / "heartbeat").touch()

    # ── what the loop calls ────────────────────────────────────────────────────────────────────

    def resume(self) -> None:
        """Go on from the newest checkpoint that holds; without one, take the first weights."""
        self.alive()
        found = checkpoint.resume(self.place.checkpoints, self.model, self.commits)  # type: ignore[arg-type]
        if self.online is not None:
            self.online.resume(self.commits, found[0] if found else 0)
        if found is None:
            take_first_weights(self)
        else:
            self.step, state = found
            self._saved = self.step
            self._refuse_other_data(state)
            self.carried = dict(state.get("carried") or {})
            self.say(f"resuming after step {self.step} of {self.max_steps}")
        if self.place.is_first:
            for name in ("metrics.jsonl", "samples.jsonl"):
                metrics.cut_to_step(self.place.role / name, self.step, self.place.attempt)
            self._sinks = self._open_sinks()
        self._started = time.perf_counter()

    def is_told_to_stop(self) -> bool:
        """Was any rank told to stop? The same answer on every rank."""
        raised = self.stop.is_raised() if self.place.is_first else self.stop.signalled
        told = torch.tensor([float(raised)], device=self.model.parallel.device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        if told.item() > 0:
            self.say(f"told to stop: saving after step {self.step} of {self.max_steps}")
        return told.item() > 0

    def log(self, values: dict[str, Any]) -> None:
        """Write the step's line, with its times and rates."""
        seconds = time.perf_counter() - self._started
        self._started = time.perf_counter()
        parts = {f"{name}_seconds": round(spent, 6) for name, spent in self._parts.items()}
        self._parts = {}
        self.alive()
        every = int(self.train.get("log_every") or 1)
        if self.place.is_first and (self.step % every == 0 or self.step in (1, self.max_steps)):
            self._write({"step": self.step, **values, **self._rates(values, seconds), **parts})
            if "loss" in values:
                rate = values.get("tokens", 0) / seconds
                self.say(f"step {self.step}/{self.max_steps} loss {values['loss']:.4f} {rate:,.0f} tokens/s")

    def show(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, each with its `step`, to `samples.jsonl`, a table for people."""
        if self.place.is_first:
            with open(self.place.role / "samples.jsonl", "a", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def evaluate_if_due(self) -> None:
        """Measure on the validation set, every `validate_every` steps and after the last one."""
        every = int(self.train.get("validate_every") or 0)
        if self.validation is None or not (self._is_due(every) or self.step == self.max_steps):
            return
        self.alive()
        began = time.perf_counter()
        measured = program(self.role.program).evaluate(self)
        self._measured = (self.step, measured)
        spent = round(time.perf_counter() - began, 6)
        self._write({"step": self.step, **measured, "validation_seconds": spent})
        said = ", ".join(
            f"{name.replace('_', ' ')} {measured[name]:.4f}" for name in SAID if name in measured
        )
        self.say(f"step {self.step}/{self.max_steps} {said}")
        self._started = time.perf_counter()

    def save_if_due(self) -> None:
        """Save every `save_every` steps."""
        if self._is_due(int(self.train.get("save_every") or 0)):
            self.save()

    def save(self) -> None:
        """Save the whole state at this step, unless that is done."""
        if self._saved == self.step:
            return
        self.alive()
        state = self._state()
        if self.online is not None:  # before our own: the step counts when all have saved it
            self.online.judges.save(self.step)
        last = int(self.train.get("keep_last") or 0)
        checkpoint.save(
            self.place.checkpoints,
            self.step,
            self.model,  # type: ignore[arg-type]
            state,
            keep_last=last + (self.commits is not None) if last else None,
            keep_best=int(self.train.get("keep_best") or 0) or None,
            metric=state.get(self._best[0]),
            lower_is_better=self._best[1],
        )
        if (commits := self.commits) is not None:
            told("R020", f"cannot commit step {self.step}", lambda: commits.write(self.step))
        self._saved = self.step
        self.alive()
        self._started = time.perf_counter()

    def finish(self) -> None:
        """Export the model where that is asked, then write `output.json`. Collective."""
        output.finish(self)

    def close(self) -> None:
        """Let TensorBoard and the others write what they hold."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []
        if self.online is not None:
            self.online.close()

    def say(self, text: str) -> None:
        """One line on stdout, from rank 0."""
        if self.place.is_first:
            print(text, flush=True)

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _best(self) -> tuple[str, bool]:
        """The metric that the best checkpoint is chosen by, and whether less of it is better; none where the
        plan hands over the last one, as between iterations of one algorithm.
        """
        if self.settings.get("hand_over") == "last":
            return "", True
        return getattr(program(self.role.program), "BEST", ("validation_loss", True))

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "seed": self.plan.seed,
            "data": self.data.samples.hash,
            "max_steps": self.max_steps,
            "epoch": self.data.epoch(self.step),
        }
        measured = self._measured[1] if self._measured and self._measured[0] == self.step else {}
        if self._best[0] in measured:
            state[self._best[0]] = measured[self._best[0]]
        if self.carried:
            state["carried"] = self.carried
        facts = getattr(program(self.role.program), "facts", None)
        if facts:
            state["facts"] = facts(self, measured)
        return state

    def _refuse_other_data(self, state: dict[str, Any]) -> None:
        if state.get("data") not in (None, self.data.samples.hash):
            message = (
                f"the training data is not what steps 1 to {self.step} were trained on; "
                f"restore it, or --fresh {self.job.stage} to begin again"
            )
            raise Problem("R014", message)

    def _rates(self, values: dict[str, Any], seconds: float) -> dict[str, float]:
        device = self.model.parallel.device
        rates = {"step_seconds": round(seconds, 6), "memory_gib": round(metrics.memory_gib(device), 4)}
        if "tokens" in values:
            rates["tokens_per_second"] = round(values["tokens"] / seconds, 3)
        if self._lengths:
            model = self.role.model
            outputs = 0 if model.head == "language" else max(len(model.attributes), 1)
            flops = metrics.training_flops(model.shape, self._lengths, outputs)
            rates["tflops_per_gpu"] = round(flops / seconds / self.place.world / 1e12, 6)
            peak = metrics.peak_tflops(device)
            if peak:
                rates["mfu"] = round(rates["tflops_per_gpu"] / peak, 6)
        return rates

    def _write(self, values: dict[str, Any]) -> None:
        for sink in self._sinks:
            sink.write(values)

    def _open_sinks(self) -> list[metrics.Sink]:
        name, settings = f"{self.plan.name}/{self.job.stage}", dict(self.job.settings)
        return metrics.sinks(self.place.role, self.train, self.step, name, settings)
