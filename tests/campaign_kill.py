"""Kill a run at random moments, again and again, until it has finished; its series must be the unkilled one.

    python tests/campaign_kill.py [--runs 20] [--seed 0]

Each run is a real torchrun with two ranks. At a random moment one of its processes, a rank or torchrun
itself, gets SIGKILL; then the run is started again, up to three kills a run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "runtime"))

import toy_runs
from test_run import ranks, started

from specc.plan import Layout

LAYOUTS = (Layout(tp=2), Layout(pp=2), Layout(dp=2))
KILLS = 3


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--runs", type=int, default=20)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    draw = random.Random(given.seed)
    top = Path(tempfile.mkdtemp())
    wholes = {}
    for layout in LAYOUTS:
        began = time.monotonic()
        wholes[layout] = (finished(top / str(layout), layout), time.monotonic() - began)
    wrong = 0
    for number in range(given.runs):
        layout = LAYOUTS[number % len(LAYOUTS)]
        whole, seconds = wholes[layout]
        folder = top / f"run-{number}"
        moments = killed(folder, layout, draw, seconds)
        same = finished(folder, layout, attempt="last") == whole
        wrong += not same
        print(
            f"{number + 1:3d} {layout} killed at {moments}: {'the same' if same else 'DIFFERS'}", flush=True
        )
        if same:
            shutil.rmtree(folder)
    print(
        f"{given.runs - wrong} of {given.runs} runs gave the same series" + (f"; see {top}" if wrong else "")
    )
    return 1 if wrong else 0


def written(folder: Path, layout: Layout) -> Path:
    train = {"steps": 30, "save_every": 3, "validate_every": 5, "keep_best": 1}
    validation = {"path": "builtin:arithmetic", "limit": 16}
    found = toy_runs.plan(layout, train=train, validation=validation)
    return toy_runs.written(folder, found)


def finished(folder: Path, layout: Layout, attempt: str = "1") -> list[tuple]:
    """The series of a run that is let be."""
    ended = toy_runs.torchrun(written(folder, layout), 2, attempt=attempt)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "sft" / "output.json").exists()
    return toy_runs.series(folder)


def killed(folder: Path, layout: Layout, draw: random.Random, seconds: float) -> list[str]:
    """Up to KILLS attempts that end by SIGKILL; when and whom."""
    moments = []
    for attempt in range(1, draw.randint(1, KILLS) + 1):
        moment = draw.uniform(seconds / 3, seconds)  # the first third is imports
        with started(written(folder, layout), 2, SPECC_ATTEMPT=str(attempt)) as run:
            time.sleep(moment)
            alive = [run.pid, *ranks(run.pid)] if run.poll() is None else []
            if alive:
                victim = draw.choice(alive)
                os.kill(victim, signal.SIGKILL)
                moments.append(f"{moment:.1f} s ({'torchrun' if victim == run.pid else 'a rank'})")
            run.communicate(timeout=120)
    return moments


if __name__ == "__main__":
    sys.exit(main())
