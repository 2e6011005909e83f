"""A stage that makes rows: what its program may touch, and what the loop calls.

A program of this kind is a module of `runtime/algorithms`, as all are:

    step(run) -> metrics             handles `run.batch()`, the next rows of the source; `run.put(rows)`
    opening(run) -> Any              optional: once before the first step; kept as `run.opened`
    closing(run, rows) -> rows       optional: sees all rows in order when the last step is done; rank 0 only.
                                     `rows()` begins anew with each call. What it puts into `run.facts`
                                     stands in output.json

The source's rows are handled in order, each once, the last batch is as small as it comes. What `put` was
given lies on the disk since the last save; a run that was killed goes on behind it, and its result is the
same bytes as if nothing had happened. A program without a model (a clerk) never sees torch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from runtime import metrics, rowstore
from runtime.agreement import said
from runtime.data.blend import Blend, blended
from runtime.handover import sections
from runtime.loop import program
from runtime.place import Place
from runtime.preflight import Meeting
from runtime.problem import Problem
from runtime.rowstore import Store
from runtime.stop import StopFlag
from specc.plan import Job, Plan, Role

if TYPE_CHECKING:
    from runtime.dealing import Table
    from runtime.engine import Engine

Form = TypeVar("Form")
T = TypeVar("T")

CLERK_ROWS = 1024
"""Rows of the source that a program without a model handles in a step where nothing is said."""

SHOWN = 2
"""Rows of a step that are written down for people."""


@dataclass
class Making:
    """One role of one job that makes rows, on this process."""

    plan: Plan
    job: Job
    role: Role
    place: Place
    stop: StopFlag
    source: Blend
    model: Engine | None = None  # of a program that has one
    tokenizer: Any = None
    step: int = 0
    opened: Any = None  # what the program's `opening` gave
    counts: Counter[str] = field(default_factory=Counter)  # over the whole run, also over attempts
    facts: dict[str, Any] = field(default_factory=dict)  # for output.json

    _first: tuple[int, int] = field(default=(0, 0), init=False)  # step, rows handled when this began
    _saved: int = field(default=0, init=False)
    _made: int = field(default=0, init=False)  # rows of this step
    _shown: list[dict[str, Any]] = field(default_factory=list, init=False)
    _parts: dict[str, float] = field(default_factory=dict, init=False)
    _sink: metrics.Sink | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)

    # ── what programs use ──────────────────────────────────────────────────────────────────────

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The program's own section of the plan."""
        return self.job.settings.get(self.role.program) or {}

    def program_settings(self, form: type[Form]) -> Form:
        """The own section as its dataclass; what it does not say is as declared there."""
        names = {each.name for each in fields(form)}  # type: ignore[arg-type]
        given = {name: value for name, value in self.settings.items() if name in names}
        return form(**{name: value for name, value in given.items() if value is not None})

    @cached_property
    def rows_of_a_step(self) -> int:
        """Rows of the source that a step handles: `batch` of the program's section, else the global batch."""
        said = int(self.settings.get("batch") or 0)
        return said or max(self.role.global_batch, CLERK_ROWS if self.role.is_clerk else 1)

    def indices(self) -> range:
        """The rows of the source that this step handles."""
        return range(self._done(self.step), self._done(self.step + 1))

    def batch(self) -> list[dict[str, Any]]:
        """Those rows; Problem R010 names a bad one."""
        return [self.source[i] for i in self.indices()]

    def put(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to what the stage makes. All ranks have the same; rank 0 keeps them."""
        kept = list(rows)
        self._made += len(kept)
        if self.place.is_first:
            self._store.put(kept)
            self._shown += [dict(row) for row in kept[: SHOWN - len(self._shown)]]

    def count(self, **more: int) -> None:
        """Add to counts that output.json says at the end, over all attempts."""
        self.counts.update(more)

    @property
    def train(self) -> dict[str, Any]:
        """Nothing trains here, but a second engine asks how long a row may be."""
        return {"seq_length": self.role.model.shape.max_positions}

    def table(self) -> Table:
        """How this role's ranks sit, for dealing samples by their lengths."""
        from runtime.dealing import Table

        assert self.model is not None
        layout = self.role.layout
        rounds = layout.pp if layout.vp > 1 else 1
        multiple = 2 * layout.cp * layout.tp
        pad_id = self.tokenizer.pad_id
        return Table(self.model.parallel.dp_rank, layout.dp, self.role.micro_batch, multiple, rounds, pad_id)

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

    def say(self, text: str) -> None:
        """One line on stdout, from rank 0."""
        if self.place.is_first:
            print(text, flush=True)

    def on_first(self, action: Callable[[], T]) -> T:
        """Run `action` on rank 0 only; its result, or its Problem, on every rank."""
        return said(action)

    # ── what the loop calls ────────────────────────────────────────────────────────────────────

    @property
    def max_steps(self) -> int:
        """Steps of the whole run: those of earlier attempts, and what is left in batches."""
        step, done = self._first
        return step + -(-(len(self.source) - done) // self.rows_of_a_step)

    def resume(self) -> None:
        """Go on behind the rows that are durable, then let the program prepare."""
        self.alive()
        last = self.on_first(self._take_up)
        self.step, self._saved = last["step"], last["step"]
        self._first = (last["step"], last["done"])
        self.counts = Counter(last["counts"])
        if self.step:
            self.say(f"resuming after step {self.step} of {self.max_steps}")
        if self.place.is_first:
            for name in ("metrics.jsonl", "samples.jsonl"):
                metrics.cut_to_step(self.place.role / name, self.step, self.place.attempt)
            self._sink = metrics.JsonLines(self.place.role / "metrics.jsonl")
        if self.step < self.max_steps:
            self._prepare()
        self.alive()
        self._started = time.perf_counter()

    def _prepare(self) -> None:
        """What the steps need: the program's own, and the model's weights."""
        opening = getattr(program(self.role.program), "opening", None)
        self.opened = opening(self) if opening else None
        if self.model is not None:
            from runtime.weights import take_weights

            take_weights(self.model, self.role, self.place, say=self.say, alive=self.alive)

    def is_told_to_stop(self) -> bool:
        """Was any rank told to stop? The same answer on every rank."""
        raised = self.stop.is_raised() if self.place.is_first else self.stop.signalled
        if self.model is not None:
            import torch
            import torch.distributed as dist

            flag = torch.tensor([float(raised)], device=self.model.parallel.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            raised = flag.item() > 0
        if raised:
            self.say(f"told to stop: saving after step {self.step} of {self.max_steps}")
        return raised

    def log(self, values: Mapping[str, Any]) -> None:
        """Write the step's line with its times and rates, and a few of its rows for people."""
        seconds = time.perf_counter() - self._started
        self._started = time.perf_counter()
        parts = {f"{name}_seconds": round(spent, 6) for name, spent in self._parts.items()}
        rates = {"step_seconds": round(seconds, 6), "rows_per_second": round(self._made / seconds, 3)}
        if "tokens" in values:
            rates["tokens_per_second"] = round(values["tokens"] / seconds, 3)
        self.alive()
        if self._sink is not None:
            self._sink.write({"step": self.step, "rows": self._made, **values, **rates, **parts})
            with open(self.place.role / "samples.jsonl", "a", encoding="utf-8") as out:
                out.writelines(json.dumps({"step": self.step, **row}) + "\n" for row in self._shown)
            means = [f"{name} {values[name]:.4f}" for name in ("reward", "response_length") if name in values]
            self.say(" ".join([f"step {self.step}/{self.max_steps} {self._made} rows", *means]))
        self._made, self._shown, self._parts = 0, [], {}

    def evaluate_if_due(self) -> None:
        """Rows are measured as they are made."""

    def save_if_due(self) -> None:
        """Make what was put durable, every `save_every` steps (1)."""
        if self.step % max(int(self.settings.get("save_every") or 1), 1) == 0:
            self.save()

    def save(self) -> None:
        """Make what was put durable, unless that is done. Collective."""
        if self._saved == self.step:
            return
        done = self._done(self.step)
        self.on_first(lambda: self._store.flush(self.step, done, self.counts))
        self._saved = self.step
        self.alive()

    def close(self) -> None:
        """Let go of the metrics' file, and of what the program holds."""
        if hasattr(self.opened, "close"):
            self.opened.close()
        self.opened = None
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    # ── the end ────────────────────────────────────────────────────────────────────────────────

    def finish(self) -> None:
        """Write `rows.jsonl` by one rename, then `output.json`; the shards go. Collective."""
        self.alive()
        self.close()
        rows = self.on_first(self._write_out)
        self.say(f"finished: {rows:,} rows, {self.place.output}")

    def _write_out(self) -> int:
        own = program(self.role.program)
        closing = getattr(own, "closing", None)
        rows = closing(self, self._store.rows) if closing else self._store.rows()
        written = self._store.write(rows, self.alive)
        content: dict[str, Any] = {
            "hash": self.job.hash,
            "stage": self.job.stage,
            "program": self.role.program,
            "step": self.step,
            **written,
            "source_rows": len(self.source),
            **self.facts,
            "metrics": metrics.last_values(self.place.role / "metrics.jsonl"),
        }
        counts = {name: self.counts[name] for name in sorted(self.counts) if name not in content}
        rowstore.write_output(self.place.output, content | counts)
        self._store.remove()
        return written["rows"]

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _store(self) -> Store:
        return Store(self.place.stage)

    def _done(self, step: int) -> int:
        """Rows of the source that are handled when `step` steps are done."""
        first, done = self._first
        return min(done + (step - first) * self.rows_of_a_step, len(self.source))

    def _take_up(self) -> dict[str, Any]:
        source = {"rows": len(self.source), "sha256": digest_of(self.source, self.alive)}
        try:
            broken = self._store.open(source, self.place.attempt)
        except ValueError:
            message = (
                f"the rows that `{self.job.stage}` reads are not what it began with "
                f"({self._store.source.get('rows')} rows then, {len(self.source)} now, or other ones); "
                f"restore them, or --fresh {self.job.stage} to begin again"
            )
            raise Problem("R014", message) from None
        last = self._store.last
        if broken:
            self.say(f"{', '.join(broken)} of `{self._store.folder}` did not hold: made again")
        return {"step": last.step, "done": last.done, "counts": last.counts}


def digest_of(rows: Blend, alive: Callable[[], None]) -> str:
    """A hash of all rows, whatever file they lie in; each is read, so R010 names a bad one at once."""
    digest = hashlib.sha256()
    for i in range(len(rows)):
        if i % rowstore.BREATH == 0:
            alive()
        digest.update(rowstore.line_of(rows[i]))
    return digest.hexdigest()


def check_vocabulary(tokens: Sequence[int], where: str, vocab: int) -> None:
    """Every token is one that the model knows; Problem R019 names the row of another one."""
    if max(tokens, default=0) >= vocab:
        message = f"holds token {max(tokens)}, but the model has a vocabulary of {vocab}"
        raise Problem("R019", f"{where} {message}")


def means(columns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean of each column that holds anything."""
    return {name: sum(column) / len(column) for name, column in columns.items() if len(column)}


# ── from a plan ──────────────────────────────────────────────────────────────────────────────────


def making_of(plan: Plan, job: Job, role: Role, place: Place, meeting: Meeting, stop: StopFlag) -> Making:
    """Everything that the loop needs."""
    source, problem = None, None
    try:
        source = source_of(plan, job, place)
    except Problem as found:
        problem = found
    agreed = meeting.agree("data", problem, job.collective_timeout_seconds)
    if agreed:
        raise agreed
    assert source is not None
    run = Making(plan, job, role, place, stop, source)
    if role.is_clerk:
        return run
    from runtime import tokenizer as tokenizers
    from runtime.start import engine_of

    run.tokenizer = tokenizers.load(role.model.tokenizer)
    run.model = engine_of(plan, job, role, place)
    return run


def source_of(plan: Plan, job: Job, place: Place) -> Blend:
    """The rows that the stage is made of: its only use of data."""
    found = list(sections(job))
    uses = list(dict.fromkeys(name.split("[")[0] for name, _ in found))
    if len(uses) != 1:
        wanted = ", ".join(uses) or "nothing"
        raise Problem("R001", f"job `{job.name}` makes rows of one set of data, but the plan has {wanted}")
    split = {"split": uses[0].removeprefix("data.")}  # of generated rows: not those that are trained on
    parts = [
        {**split, **{k: v for k, v in each.items() if v}}
        if str(each.get("path")).startswith("builtin:")
        else each
        for _, each in found
    ]
    own = job.settings.get(job.roles[0].program) or {}
    cut = own.get("slice") or {}
    cache = place.stage / "data" / "fetched"
    return blended(parts, seed=plan.seed, cache=cache, size=cut.get("size"), index=cut.get("index") or 0)
