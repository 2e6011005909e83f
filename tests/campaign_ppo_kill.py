"""Kill PPO's processes again and again: no prompt may be lost or come twice, no number may change.

    python tests/campaign_ppo_kill.py [--kills 20] [--seed 0]

Two ranks of the actor and two of the critic's server, under DP 2 and TP 2 in turn. Every other kill is at a
moment of its own (a rollout, the critic's or the actor's update, between the two saves, before the commit),
the others at random moments and ranks. A run is killed five times, then let be; all that actor and critic
say of their steps, and every rollout's tokens, have to be those of a run that nobody killed.

2026-11-21, this command, beside another campaign: 20 kills in 6 runs (10 at named moments, 10 at random ones;
DP 2 and TP 2 three runs each), 0 prompts lost or repeated, 0 runs differ. 2 minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from multiprocessing import forkserver, get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "runtime"), os.environ.get("PYTHONPATH", "")])
sys.path.insert(0, str(HERE / "runtime"))

import kills  # noqa: E402

from specc.plan import Layout  # noqa: E402

LAYOUTS = (Layout(dp=2), Layout(tp=2))
KILLS_OF_A_RUN = 5


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    forks, draw = get_context("forkserver"), random.Random(given.seed)
    forks.set_forkserver_preload(["warm"])
    forkserver.ensure_running()
    done = wrong = lost = number = 0
    with tempfile.TemporaryDirectory() as top:
        while done < given.kills:
            layout = LAYOUTS[number % len(LAYOUTS)]
            folder, whole = Path(top) / f"run-{number}", Path(top) / f"whole-{number % len(LAYOUTS)}"
            if not whole.exists():
                kills.attempt(forks, whole, kills.plan(whole, layout), "1")
            happened = killed(
                forks, folder, layout, draw, range(done, min(done + KILLS_OF_A_RUN, given.kills))
            )
            same, missing = kills.series(folder) == kills.series(whole), kills.lost_or_repeated(folder)
            done, number = done + happened, number + 1
            wrong, lost = wrong + (not same), lost + len(missing)
            print(f"{layout}: after {happened} kills {'the same' if same else 'DIFFERS'}, "
                  f"{len(missing)} prompts lost or repeated", flush=True)  # fmt: skip
    print(f"{done} kills in {number} runs: {lost} prompts lost or repeated, {wrong} runs differ")
    return 1 if wrong or lost else 0


def killed(forks: object, folder: Path, layout: Layout, draw: random.Random, numbers: range) -> int:
    """Kill a run for each of these numbers, then let it finish; how many kills came in time."""
    found, happened = kills.plan(folder, layout), 0
    for attempt, number in enumerate(numbers, start=1):
        kill = kills.drawn(draw, number, layout.world_size)
        late = kills.attempt(forks, folder, found, str(attempt), kill)
        print(f"  {kill}{': too late, it had finished' if late else ''}", flush=True)
        happened += not late
        if late:
            return happened
    kills.attempt(forks, folder, found, "last")
    return happened


if __name__ == "__main__":
    sys.exit(main())
