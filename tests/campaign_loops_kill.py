"""Kill whole loops of stages, again and again, and run them on; what is left must be the same bytes.

    python tests/campaign_loops_kill.py [--kills 48] [--random 12] [--cold 8] [--seed 0]

The loops are rounds of rejection sampling that throw old rounds away, iterations of a model that judges
itself and its judgements, and SteerLM with bootstrapping, each on one process, and on two as DP and as TP.
They die at named moments (MOMENTS), where either everything gets SIGKILL at once, the launcher too, or one
rank does, and at random ones. `--cold` kills are of `specc run` as people start it, python and torchrun
included; the others are of the same in warm processes (`tests/runtime/warm_launch.py`).

Compared is every file that the stages leave: rows, series of metrics without times, tables, tokens,
checkpoints with optimizer and random state, exported weights, and what retention left; a file too many is a
difference, too.

2026-11-21, on 2 cores that many others used too, no byte differed after any kill:

    --kills 36 --loops rounds meta     30 kills at named moments in 9 runs of all layouts; 2 moments of a run
                                       were not reached, as one was named wrongly, which is mended
    --kills 12 --loops steerlm         12 kills in 3 runs of all layouts
    --kills 12 --cold 4 --loops rounds 11 kills at named moments in 3 runs; then 4 of `specc run` as people
                                       start it, in one run on two processes
    --random 2 --loops meta            4 kills at random moments in one run
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "runtime"))

import toy_loops
from campaign_rows_kill import warm
from toy_loops import differences, evidence
from warm_launch import KILLED, Death, end_all, run

ROOT = Path(__file__).resolve().parent.parent
LAYOUTS = ({"gpus": 1}, {"gpus": 2}, {"gpus": 2, "tp": 2})
PER_RUN = 4
"""Kills of one run, one after the other."""

MOMENTS = {
    "rounds": (
        Death("rs-1-generate", "runtime.rowstore:Store.flush", 2),
        Death("rs-1-generate", "runtime.rowstore:asdict", 3),  # the shard is there and not entered
        Death("rs-1-score", "runtime.rowstore:write_output"),  # all rows are there, nobody says so
        Death("rs-1-select", "runtime.rowstore:Store.remove"),  # finished, but for its shards
        Death("rs-1-train", "runtime.engine:Engine.optim_step", 3),
        Death("rs-1-train", "runtime.torch_dist:write", 2),
        Death("rs-2-generate"),
        Death("rs-2-generate", "runtime.generate:Generator.step", 9),
        Death("rs-2-score", "runtime.rowstore:Store.flush", 1, all=False),
        Death("rs-2-select", "runtime.rowstore:Store.write"),
        Death("rs-2-train", "runtime.manifest:write", 3),
        Death("rs-2-train", "runtime.steps:doomed", 3),  # the new step is there, the old one not yet pruned
        Death("rs-2-train", "runtime.engine:Engine.optim_step", 2, rank=-1, all=False),
        Death("rs-2-train", "runtime.hf.exports:_complete"),
        Death("rs-2-train", "runtime.handover:discard"),  # finished, and nothing is discarded
        Death("rs-2-train", "runtime.handover:_remove", 3),
        Death("rs-2-train", "runtime.rowstore:note", 4),
    ),
    "meta": (
        Death("sft", "runtime.torch_dist:write", 2),
        Death("sr-1", "runtime.data.tokenised:np.save", 3),
        Death("sr-1", "runtime.jury:Jury.responses", 2),
        Death("sr-1", "runtime.jury:Jury.heard", 20),  # the judgements are there
        Death("sr-1", "runtime.algorithms.self_rewarding:compared"),  # verdicts are to be given
        Death("sr-1", "runtime.engine:Engine.optim_step", 2, rank=-1, all=False),
        Death("sr-1", "runtime.torch_dist:write", 2, rank=-1),
        Death("sr-1", "runtime.manifest:write", 2),
        Death("sr-2"),
        Death("sr-2", "runtime.frozen:Frozen._trade", 3),  # the reference takes its place
        Death("sr-2", "runtime.jury:Jury.judge", 2, rank=-1, all=False),
        Death("sr-2", "runtime.algorithms.self_rewarding:replaced", 2),
        Death("sr-2", "runtime.engine:Engine.optim_step", 2),
        Death("sr-2", "runtime.rng:write", 2, rank=-1),
        Death("sr-2", "runtime.output:_write"),
    ),
    "steerlm": (
        Death("judged", "runtime.rowstore:Store.write"),
        Death("steerlm-reward", "runtime.engine:Engine.optim_step", 2, rank=-1, all=False),
        Death("steerlm-reward", "runtime.torch_dist:write", 2),
        Death("steerlm-annotate", "runtime.rowstore:Store.flush", 2),
        Death("steerlm-train", "runtime.manifest:write", 2),
        Death("steerlm-1-ask"),
        Death("steerlm-1-generate", "runtime.rowstore:asdict", 2),
        Death("steerlm-1-answers", "runtime.rowstore:write_output"),
        Death("steerlm-1-annotate", "runtime.rowstore:Store.remove"),
        Death("steerlm-1-train", "runtime.engine:Engine.optim_step", 2),
        Death("steerlm-2-generate", "runtime.rowstore:Store.flush", 2, all=False),
        Death("steerlm-2-train", "runtime.steps:publish", 2),
    ),
}
"""Of each loop, in the order in which they come."""


def moments(loop: str, gpus: int) -> list[Death]:
    """Those of a loop; the last rank of several is -1."""
    return [
        Death(each.stage, each.call, each.count, gpus - 1 if each.rank < 0 else each.rank, each.all)
        for each in MOMENTS[loop]
    ]


def killed(forks: Any, file: Path, folder: Path, deaths: list[Death]) -> tuple[int, list[str]]:
    """Run a loop that dies these deaths, one after the other, and then lives: how many, what went wrong."""
    hit, wrong = 0, []
    for death in deaths:
        code = run(forks, file, folder, death)
        expected = (KILLED,) if death.all else (1, 3)
        hit += code in expected
        if code not in (0, *expected):
            wrong.append(f"{death}: `specc run` said {code}")
        if code == 0:
            wrong.append(f"{death}: it did not come to that")
    if (code := run(forks, file, folder)) != 0:
        wrong.append(f"the last `specc run` said {code}")
    return hit, wrong


def killed_at_random(
    forks: Any, file: Path, folder: Path, draw: random.Random, seconds: float, kills: int
) -> tuple[int, list[str]]:
    """The same at moments that chance finds; a run that was faster ends the series."""
    hit = 0
    for _ in range(kills):
        code = run(forks, file, folder, seconds=draw.uniform(0.05, 0.6) * seconds)
        if code != KILLED:
            break
        hit += 1
    code = run(forks, file, folder)
    return hit, [f"the last `specc run` said {code}"] if code else []


# ── as people start it ───────────────────────────────────────────────────────────────────────────


def cold(file: Path, folder: Path, seconds: float = 0.0, draw: random.Random | None = None) -> int:
    """`specc run` of this python, its exit code; after so many seconds all of it, or with `draw` one of its
    processes that chance names, gets SIGKILL.
    """
    import psutil

    command = [sys.executable, "-m", "specc", "run", str(file), "--dir", str(folder)]
    with open(f"{folder}.log", "ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(timeout=seconds or 900)
    except subprocess.TimeoutExpired:
        below = psutil.Process(process.pid).children(recursive=True)
        if draw is not None and below and draw.random() < 0.5:
            draw.choice(below).kill()
            return process.wait(timeout=300)
        end_all(process.pid)
        return process.wait()


def killed_cold(
    file: Path, folder: Path, draw: random.Random, seconds: float, kills: int
) -> tuple[int, list[str]]:
    """Random kills of the real thing."""
    hit = 0
    for _ in range(kills):
        if cold(file, folder, draw.uniform(0.05, 0.5) * seconds, draw) == 0:
            break
        hit += 1
    code = cold(file, folder)
    return hit, [f"the last `specc run` said {code}"] if code else []


# ── the campaign ─────────────────────────────────────────────────────────────────────────────────


class Campaign:
    """Whole runs to compare with, and what was found."""

    def __init__(self, seed: int, loops: list[str]) -> None:
        self.forks, self.draw, self.top = warm(), random.Random(seed), Path(tempfile.mkdtemp())
        self.hits, self.runs, self.bad, self.loops = 0, 0, 0, loops

    def whole(self, loop: str, layout: dict[str, int], as_people_do: bool = False) -> tuple[Path, float]:
        """The spec of a loop whose unkilled run lies beside it, and the seconds that this takes."""
        name = "-".join([loop, *(f"{key}{value}" for key, value in layout.items())])
        file, folder = toy_loops.spec(self.top / name, loop, **layout), self.top / name / "whole"
        began = time.monotonic()
        if not folder.exists() or as_people_do:
            again = folder.with_name("cold") if as_people_do else folder
            assert (cold(file, again) if as_people_do else run(self.forks, file, again)) == 0, f"{again}.log"
            if as_people_do:
                assert differences(evidence(again), evidence(folder)) == []
        return file, time.monotonic() - began

    def look(self, file: Path, folder: Path, said: str, found: tuple[int, list[str]]) -> None:
        """Compare a killed run with the whole one."""
        hit, wrong = found
        wrong = [*wrong, *differences(evidence(folder), evidence(file.parent / "whole"))]
        self.hits, self.runs, self.bad = self.hits + hit, self.runs + 1, self.bad + bool(wrong)
        told = "; ".join(wrong[:8]) or "the same"
        print(
            f"{self.runs:3d} {file.parent.name} {said}: {hit} kills, {self.hits} in all: {told}", flush=True
        )
        if not wrong:
            shutil.rmtree(folder)

    def named(self, kills: int) -> None:
        """Kills at named moments, of all loops and layouts in turn."""
        for loop, layout, deaths in islice(parts(self.loops), -(-kills // PER_RUN)):
            file, _ = self.whole(loop, layout)
            folder = file.parent / f"run-{self.runs}"
            self.look(file, folder, "at named moments", killed(self.forks, file, folder, deaths))

    def random(self, kills: int) -> None:
        """Kills at random moments, in warm processes."""
        until = self.hits + kills
        for loop, layout in cycle((loop, layout) for layout in LAYOUTS for loop in self.loops):
            if self.hits >= until:
                return
            file, _ = self.whole(loop, layout)
            folder = file.parent / f"run-{self.runs}"
            began = time.monotonic()
            assert run(self.forks, file, file.parent / "again") == 0
            seconds = time.monotonic() - began
            shutil.rmtree(file.parent / "again")
            found = killed_at_random(self.forks, file, folder, self.draw, seconds, PER_RUN)
            self.look(file, folder, "at random moments", found)

    def cold(self, kills: int) -> None:
        """Kills of `specc run` as people start it."""
        until = self.hits + kills
        for loop in cycle(self.loops):
            if self.hits >= until:
                return
            self.whole(loop, LAYOUTS[1])
            file, seconds = self.whole(loop, LAYOUTS[1], as_people_do=True)
            folder = file.parent / f"run-{self.runs}"
            found = killed_cold(file, folder, self.draw, seconds, min(PER_RUN, until - self.hits))
            self.look(file, folder, "as people start it", found)
            shutil.rmtree(file.parent / "cold")


def parts(loops: list[str]) -> Iterator[tuple[str, dict[str, int], list[Death]]]:
    """The moments of each loop in runs of a few, far from each other, under one layout after the other."""
    for turn in count():
        number = turn
        for loop in loops:
            runs = -(-len(MOMENTS[loop]) // PER_RUN)
            for first in range(runs):
                layout = LAYOUTS[number % len(LAYOUTS)]
                yield loop, layout, moments(loop, layout["gpus"])[first::runs]
                number += 1


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--kills", type=int, default=48, help="at named moments")
    words.add_argument("--random", type=int, default=12, help="at random moments")
    words.add_argument("--cold", type=int, default=8, help="of `specc run` as people start it")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--loops", nargs="*", choices=list(MOMENTS), default=list(MOMENTS))
    given = words.parse_args()
    found = Campaign(given.seed, given.loops)
    found.named(given.kills)
    found.random(given.random)
    found.cold(given.cold)
    print(
        f"{found.hits} kills in {found.runs} runs, {found.bad} of them wrong"
        + (f"; see {found.top}" if found.bad else "")
    )
    return 1 if found.bad else 0


if __name__ == "__main__":
    sys.exit(main())
