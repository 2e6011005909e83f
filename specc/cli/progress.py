"""How a run is seen: a live bar on a terminal, a line now and then elsewhere.

Both read `metrics.jsonl` as it grows; neither ever touches the processes. Everything goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from specc.cli import look
from specc.plan import Job, role_folder

WORTH_SAYING = re.compile(r"(warning|note)(\[\w+\])?: ")
OF_TOTAL = re.compile(r"(?:step \d+/|after step \d+ of )(\d+)\b")
LINES_PER_STAGE = 10


class View(Protocol):
    """Something that shows one stage."""

    clock: Clock

    def step(self, row: dict[str, Any]) -> None: ...

    def say(self, text: str) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...


class Progress:
    """Shows the stages of one run, one after the other."""

    def __init__(self) -> None:
        self.view: View | None = None
        self.last: dict[str, Any] = {}
        self.first: dict[str, Any] = {}

    def begin(self, job: Job, attempt: Path) -> Callable[[], None]:
        """Show a new stage; gives what reads and shows the news, to be called often."""
        self.close()
        stage = attempt.parent.parent
        metrics = Growing(_metrics_of(stage, job))
        logs = [Growing(attempt / f"{role.name}.log", from_start=True) for role in job.roles]
        self.view = view = Live(job) if sys.stderr.isatty() and look.colored(sys.stderr) else Plain(job)
        self.first, self.last = {}, {}

        def tick() -> None:
            with contextlib.suppress(OSError):  # the terminal may be gone; the run goes on
                show()

        def show() -> None:
            for log in logs:
                for line in log.lines():
                    if WORTH_SAYING.match(line):
                        view.say(line)
                    if not view.clock.total and (told := OF_TOTAL.search(line)):
                        view.clock.total = int(told[1])
            for line in metrics.lines():
                row = _row(line)
                if "loss" in row and row["step"] > _cut_at(attempt):
                    self.first = self.first or row
                    self.last = row
                    view.step(row)
                elif "validation_loss" in row:
                    said = f"validation loss {row['validation_loss']:.4f}"
                    if "validation_acc" in row:
                        said += f", accuracy {row['validation_acc']:.3f}"
                    view.say(f"{job.stage}  step {row['step']}  {said}")
                elif "validation_reward" in row:
                    view.say(
                        f"{job.stage}  step {row['step']}  validation reward {row['validation_reward']:.3f}"
                    )
            view.tick()

        return tick

    def say(self, text: str) -> None:
        """One line, without tearing a bar that is on the screen."""
        with contextlib.suppress(OSError):
            if self.view:
                self.view.say(text)
            else:
                print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.view:
            self.view.close()
        self.view = None


class Growing:
    """A text file that another process writes: gives whole new lines, also after it was cut and replaced."""

    def __init__(self, path: Path, from_start: bool = False) -> None:
        self.path = path
        self.seen = (0, 0)  # inode, bytes
        self.rest = b""
        if not from_start and path.exists():
            self.seen = (path.stat().st_ino, path.stat().st_size)

    def lines(self) -> list[str]:
        """The lines that have come since the last call."""
        try:
            with open(self.path, "rb") as file:
                inode, size = _stat(file.fileno())
                if inode != self.seen[0] or size < self.seen[1]:
                    self.seen, self.rest = (inode, 0), b""
                file.seek(self.seen[1])
                new = file.read()
        except FileNotFoundError:
            return []
        self.seen = (inode, self.seen[1] + len(new))
        *whole, self.rest = (self.rest + new).split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in whole]


class Plain:
    """About ten lines a stage, for logs and pipes."""

    def __init__(self, job: Job) -> None:
        self.job, self.clock = job, Clock(steps_of(job))

    def step(self, row: dict[str, Any]) -> None:
        self.clock.note(row["step"])
        every = max(1, self.clock.total // LINES_PER_STAGE) if self.clock.total else LINES_PER_STAGE
        if row["step"] % every == 0 or row["step"] in (1, self.clock.total):
            left = self.clock.left()
            eta = f"  {left} left" if left and row["step"] != self.clock.total else ""
            self.say(f"{self.job.stage}  {self.clock.at(row['step'])}  {figures(row)}{eta}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def tick(self) -> None: ...

    def close(self) -> None: ...


class Live:
    """A bar that is drawn anew in place. Drawn by us and not by a thread: processes are started from here."""

    def __init__(self, job: Job) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.clock = Clock(steps_of(job))
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[at]}"),
            TextColumn("{task.fields[figures]}", style="cyan"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="dim"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self.task = self.bar.add_task(
            job.stage, total=self.clock.total or None, at="starting", figures="", left=""
        )
        self.bar.start()
        self.drawn = 0.0

    def step(self, row: dict[str, Any]) -> None:
        self.clock.note(row["step"])
        left = f"{self.clock.left()} left" if self.clock.left() else ""
        shown: dict[str, Any] = {"at": self.clock.at(row["step"]), "figures": figures(row), "left": left}
        self.bar.update(self.task, completed=row["step"], total=self.clock.total or None, **shown)

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def tick(self) -> None:
        if time.monotonic() - self.drawn > 0.2:
            self.drawn = time.monotonic()
            self.bar.refresh()

    def close(self) -> None:
        self.bar.refresh()
        self.bar.stop()


class Clock:
    """How far a stage is and how long it will still take, by the steps seen since it started."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.began: tuple[int, float] | None = None
        self.now: tuple[int, float] = (0, 0.0)

    def note(self, step: int) -> None:
        self.now = (step, time.monotonic())
        self.began = self.began or self.now

    def at(self, step: int) -> str:
        if not self.total:
            return f"step {step}"
        return f"step {step:>{len(str(self.total))}}/{self.total}"

    def left(self) -> str:
        """`1:05`, or empty while it cannot be told."""
        if not self.total or self.began is None or self.now[0] == self.began[0]:
            return ""
        pace = (self.now[1] - self.began[1]) / (self.now[0] - self.began[0])
        seconds = round(pace * (self.total - self.now[0]))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def steps_of(job: Job) -> int:
    """How many steps a job is to take; 0 when only its data tells."""
    steps = (job.settings.get("train") or {}).get("steps")
    return steps if isinstance(steps, int) else 0


def figures(row: dict[str, Any]) -> str:
    """Reward or loss, and pace, of one step."""
    said = [f"reward {row['reward']:.3f}" if "reward" in row else f"loss {row['loss']:.4f}"]
    if "tokens_per_second" in row:
        said.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(said)


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else {}


def _metrics_of(stage: Path, job: Job) -> Path:
    """A job of several roles writes one file per role; the first role is the one that is trained."""
    return stage / role_folder(job, job.roles[0].name) / "metrics.jsonl"


def _cut_at(attempt: Path) -> int:
    """The step this attempt resumed from when later metrics had to be cut off; else 0."""
    cut = [int(path.stem.rsplit("-", 1)[1]) for path in attempt.glob("metrics-after-step-*.jsonl")]
    return max(cut, default=0)


def _stat(descriptor: int) -> tuple[int, int]:
    import os

    seen = os.fstat(descriptor)
    return seen.st_ino, seen.st_size
