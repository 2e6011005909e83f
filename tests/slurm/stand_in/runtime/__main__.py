"""`python -m runtime PLAN JOB ROLE`: counts steps instead of training.

The job's settings say what happens: `steps`, `step_seconds`, `save_every`, and once per run folder
`crash_rank`/`hang` at step `at`. Every rank writes what it was started with to `who-RANK.json`.

Where SPECC_PEERS names a server, rank 0 asks it at every step and saves together with it. A role whose
program is `serve` answers at SPECC_LISTEN until the file `over` is there (`deaf`: it overlooks it;
`crash_serving`: it fails when it is asked for that step).
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import serving

plan_path, job_name, role = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
plan = json.loads(plan_path.read_text())
job = next(job for job in plan["jobs"] if job["name"] == job_name)
settings = {"steps": 3, "step_seconds": 0.05, "save_every": 0, "at": 2, **job["settings"]}
stage = plan_path.parent / job["stage"]
is_alone = len(job["roles"]) == 1
folder = stage if is_alone else stage / role
attempt = stage / "attempts" / os.environ["SPECC_ATTEMPT"]
rank = int(os.environ["RANK"])
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("TERM"))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{rank}.new")
    new.write_text(text)
    new.replace(path)


def save(step: int) -> None:
    if rank == 0:
        put(folder / "checkpoint" / f"step-{step}" / "MANIFEST.json", json.dumps({"step": step}))
        for name, address in serving.peers():
            serving.ask(attempt, name, address, f"/save/{step}")
        if serving.peers():
            put(stage / "commits" / f"{step}.json", json.dumps({"step": step}))


def last_saved() -> int:
    if serving.peers():
        return max((int(p.stem) for p in stage.glob("commits/*.json")), default=0)
    return max((int(p.parent.name[5:]) for p in folder.glob("checkpoint/step-*/MANIFEST.json")), default=0)


who = {"host": socket.gethostname(), "role": role, "environment": dict(os.environ), "cwd": os.getcwd()}
put(attempt / (f"who-{rank}.json" if is_alone else f"who-{role}-{rank}.json"), json.dumps(who))
print(f"rank {rank} starts at step {last_saved()}", flush=True)

if next(r for r in job["roles"] if r["name"] == role)["program"] == "serve":
    serving.serve(attempt, role, folder, settings, rank)
    sys.exit(0)

for step in range(last_saved() + 1, settings["steps"] + 1):
    time.sleep(settings["step_seconds"])
    if rank == 0:
        (stage / "heartbeat").touch()
        for name, address in serving.peers():
            serving.ask(attempt, name, address, f"/step/{step}")
    if step == settings["at"] and settings.get("crash_rank") == rank:
        print(f"error[R900]: rank {rank} was told to fail", file=sys.stderr)
        sys.exit(7)
    if step == settings["at"] and settings.get("hang") and not (stage / "hung").exists():
        if rank == 0:
            (stage / "hung").touch()
        time.sleep(600)
    if told or (stage / "stop").exists():
        if job["roles"][0]["program"] == "answer":
            with open(stage / "served.jsonl", "a") as served:
                served.write("{}\n")
        else:
            save(step)
        print(f"rank {rank} stops at step {step} ({told or 'stop file'})", flush=True)
        sys.exit(0)
    if settings["save_every"] and step % settings["save_every"] == 0:
        save(step)

if rank == 0:
    put(stage / "output.json", json.dumps({"hash": job["hash"], "step": settings["steps"]}))
