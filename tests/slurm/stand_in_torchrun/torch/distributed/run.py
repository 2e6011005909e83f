"""Stands in for torchrun where a test is not about it: same options and variables, a tenth of the time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

words = sys.argv[1 : sys.argv.index("-m")]
given = dict(word.removeprefix("--").split("=", 1) for word in words)
nodes, each, node = (int(given[key]) for key in ("nnodes", "nproc-per-node", "node-rank"))

ranks = []
for local in range(each):
    variables = {
        "RANK": node * each + local,
        "LOCAL_RANK": local,
        "WORLD_SIZE": nodes * each,
        "LOCAL_WORLD_SIZE": each,
        "MASTER_ADDR": given["master-addr"],
        "MASTER_PORT": given["master-port"],
    }
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = [sys.executable, *sys.argv[sys.argv.index("-m") :]]
    ranks.append(subprocess.Popen(command, env=environment, start_new_session=True))


def end(*_: object) -> None:
    """What torchrun does at a signal that it handles."""
    for rank in ranks:
        rank.kill()


signal.signal(signal.SIGHUP, end)
while any(rank.poll() is None for rank in ranks):
    if any(rank.poll() for rank in ranks):
        end()
        break
    time.sleep(0.05)
for rank in ranks:
    if rank.wait():
        print(f"  exitcode  : {rank.returncode} (pid: {rank.pid})", file=sys.stderr)
sys.exit(any(rank.returncode for rank in ranks))
