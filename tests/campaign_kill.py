"""Kill a run at random moments: the series that comes out has to be the one of an unkilled run.

    python tests/campaign_kill.py [MOMENTS] [SEED]

A tiny SFT at TP2 saves every other step. Each trial starts it with torchrun, waits for a random moment
(any time after the start, a time within a step, a time within a save), sends SIGKILL to one rank, to
both, or to the launcher as well, and starts it again until it is finished. Step, loss, gradient norm,
rate and token ids of every step then have to equal the unkilled run's, bit by bit. Prints one line a trial.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "runtime")]

import plans  # noqa: E402
import psutil  # noqa: E402

from specc.plan import Layout  # noqa: E402

LAYOUT = Layout(tp=2)
STEPS = 24
SECONDS = 120
VICTIMS = ("rank 0", "rank 1", "both ranks", "everything")


def main() -> int:
    """The exit code: 0 when every trial came out the same."""
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    draw = random.Random(seed)
    print(f"{moments} kills, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        expected = unkilled(place / "unkilled")
        results = [trial(place / str(number), draw, expected, number) for number in range(1, moments + 1)]
    print(f"{sum(results)} of {moments} came out as the unkilled run", flush=True)
    return 0 if all(results) else 1


def unkilled(folder: Path) -> list[tuple]:
    """The series of a run that nobody kills."""
    process = started(folder, 1)
    assert process.wait(SECONDS) == 0, process.stderr.read() if process.stderr else ""
    series = plans.series(folder)
    assert [line[0] for line in series] == list(range(1, STEPS + 1))
    return series


def trial(folder: Path, draw: random.Random, expected: list[tuple], number: int) -> bool:
    """Kill one run once, let it finish, and compare."""
    victim = draw.choice(VICTIMS)
    what, is_time = moment(draw, folder)
    process = started(folder, 1)
    wait_until(lambda: is_time() or process.poll() is not None)
    was_running = process.poll() is None
    if was_running:
        strike(process, victim)
    process.wait(SECONDS)
    killed_at = len(plans.series(folder)) if (folder / "sft" / "metrics.jsonl").exists() else 0
    attempts = 1
    while not (folder / "sft" / "output.json").exists() and attempts < 5:
        attempts += 1
        started(folder, attempts).wait(SECONDS)
    is_same = plans.series(folder) == expected
    verdict = "same" if is_same else "DIFFERENT"
    print(
        f"{number:3} {victim:10} {what:28} after step {killed_at:2}, {attempts} attempts: {verdict}",
        flush=True,
    )
    return is_same and was_running


def moment(draw: random.Random, folder: Path) -> tuple[str, Callable[[], bool]]:
    """A random moment: its name, and whether it has come."""
    later = draw.random()
    if draw.random() < 0.5:
        step = draw.randrange(2, STEPS, 2)
        seen = lambda: is_saving(folder, step)  # noqa: E731
        return f"{later * 0.2:.2f} s into save {step}", after(seen, later * 0.2)
    step = draw.randrange(0, STEPS)
    seen = lambda: lines(folder) >= step  # noqa: E731
    if step == 0:
        return f"{later * 8:.2f} s after the start", after(lambda: True, later * 8)
    return f"{later * 0.1:.2f} s after step {step}", after(seen, later * 0.1)


def after(seen: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Whether `seconds` have passed since `seen` first held."""
    since: list[float] = []

    def is_time() -> bool:
        if not since and seen():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return is_time


def is_saving(folder: Path, step: int) -> bool:
    """Is this step being saved, or saved already?"""
    checkpoints = folder / "sft" / "checkpoint"
    return bool(list(checkpoints.glob(f".saving-step-{step}-*"))) or (checkpoints / f"step-{step}").exists()


def lines(folder: Path) -> int:
    """Lines of the series so far."""
    path = folder / "sft" / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(is_time: Callable[[], bool]) -> None:
    """Look every millisecond."""
    deadline = time.monotonic() + SECONDS
    while not is_time() and time.monotonic() < deadline:
        time.sleep(0.001)


def started(folder: Path, attempt: int) -> subprocess.Popen[str]:
    """The run under torchrun, as the launcher starts it."""
    changes = {"steps": STEPS, "save_every": 2, "keep_last": 2}
    file = plans.written(folder, plans.plan(LAYOUT, train=changes, distributed_optimizer=True))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(LAYOUT.world_size)]
    ports = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    extra = {"OMP_NUM_THREADS": "1", "SPECC_ATTEMPT": str(attempt), "SPECC_DIE_WITH_PARENT": "1"}
    return subprocess.Popen(
        [*launcher, *ports, "-m", "runtime", str(file), "sft", "model"],
        env=os.environ | extra,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def strike(process: subprocess.Popen[str], victim: str) -> None:
    """SIGKILL the victim; ranks are the launcher's children, in the order they were started."""
    ranks = sorted(psutil.Process(process.pid).children(), key=lambda child: child.create_time())
    chosen = {"rank 0": ranks[:1], "rank 1": ranks[1:2]}.get(victim, ranks)
    pids = [rank.pid for rank in chosen] + ([process.pid] if victim == "everything" or not chosen else [])
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    sys.exit(main())
