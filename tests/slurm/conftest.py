"""The private cluster, shared by all tests of this folder, and plans to compile for it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from specc import emit
from specc.plan import FORMAT, Cluster, Job, Plan, Slurm

sys.path.insert(0, str(Path(__file__).parent))
import cluster as lab
import plans

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def private_cluster() -> Iterator[lab.Cluster]:
    """Four nodes; skips where Slurm is not installed."""
    if missing := lab.missing_programs():
        pytest.skip(f"no {', '.join(missing)} here: install slurmctld, slurmd, slurm-client and munge")
    with lab.Cluster.started(nodes=4) as started:
        yield started


@pytest.fixture
def slurm(private_cluster: lab.Cluster) -> Iterator[lab.Cluster]:
    """The cluster with an empty queue and all its nodes."""
    yield private_cluster
    private_cluster.cancel_all()


@dataclass
class Submitted:
    """A run folder on the private cluster, and the ids of its jobs in order."""

    cluster: lab.Cluster
    run: Path
    ids: list[str]

    def over(self, timeout: float = 60) -> list[dict[str, str]]:
        """Wait for all jobs; their last records."""
        try:
            return [self.cluster.wait(job_id, timeout) for job_id in self.ids]
        finally:
            for log in sorted(self.run.glob("*/attempts/*.log")):
                print(f"{log}:\n{log.read_text()}")  # pytest shows it when the test fails

    def states(self, timeout: float = 60) -> list[str]:
        return [record["JobState"] for record in self.over(timeout)]

    def who(self, stage: str = "sft", attempt: str = "*") -> dict[str, dict[str, Any]]:
        """What the ranks of the stand-in runtime said of themselves, by rank."""
        found = sorted((self.run / stage / "attempts").glob(f"{attempt}/who-*.json"))
        return {path.stem.removeprefix("who-"): json.loads(path.read_text()) for path in found}

    def log(self, stage: str = "sft") -> str:
        """Everything the scripts and ranks of a stage printed, all attempts."""
        attempts = self.run / stage / "attempts"
        return "\n".join(path.read_text() for path in sorted(attempts.rglob("*.log")))

    def log_of(self, stage: str, attempt: str) -> str:
        """What the ranks of one attempt printed."""
        return "\n".join(
            p.read_text() for p in sorted((self.run / stage / "attempts" / attempt).glob("*.log"))
        )

    def job_log(self, stage: str = "sft") -> str:
        """What the scripts themselves printed."""
        return "\n".join(path.read_text() for path in sorted((self.run / stage / "attempts").glob("*.log")))

    def attempts(self, stage: str = "sft") -> list[str]:
        """The names of the attempts so far, in order."""
        return sorted(path.name for path in (self.run / stage / "attempts").iterdir() if path.is_dir())

    def saved(self, stage: str = "sft") -> list[int]:
        return sorted(
            int(p.parent.name[5:]) for p in (self.run / stage).glob("checkpoint/step-*/MANIFEST.json")
        )

    def committed(self, stage: str = "ppo") -> list[int]:
        """The steps that several roles saved together."""
        return sorted(int(path.stem) for path in (self.run / stage).glob("commits/*.json"))

    def until_committed(self, step: int, stage: str = "ppo", timeout: float = 60) -> None:
        try:
            lab.until(
                lambda: (self.committed(stage) or [0])[-1] >= step, f"step {step} is committed", timeout
            )
        except AssertionError:
            print(self.log(stage), self.cluster.run("squeue", "--all").stdout)  # pytest shows it
            raise

    def process_of(self, rank: int, role: str = "") -> int:
        """The process id of a rank of this run that runs now, as this machine counts."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                variables = (folder / "environ").read_bytes().split(b"\0")
                if bytes(self.run / "plan.json") not in words or (role and role.encode() not in words):
                    continue
                if f"RANK={rank}".encode() in variables:
                    return int(folder.name)
        raise AssertionError(f"rank {rank} does not run")

    def losses(self, stage: str = "sft") -> dict[int, float]:
        """The loss of each step, from metrics.jsonl; a step that is there twice is an error."""
        rows = [json.loads(line) for line in (self.run / stage / "metrics.jsonl").read_text().splitlines()]
        steps = {row["step"]: row["loss"] for row in rows if "loss" in row}
        assert len(steps) == len([row for row in rows if "loss" in row])
        return steps

    def until_saved(self, step: int, stage: str = "sft", timeout: float = 60) -> None:
        lab.until(lambda: (self.saved(stage) or [0])[-1] >= step, f"step {step} is saved", timeout)


@pytest.fixture
def submit(slurm: lab.Cluster, tmp_path: Path):
    """submit(job, ...): emit, submit with the emitted script, hand back what was submitted."""

    def submit(
        *jobs: Job,
        name: str = "trial",
        env: dict[str, str] | None = None,
        attempts: int = 3,
        **cluster: Any,
    ) -> Submitted:
        results = tmp_path / "results of runs"
        flags = Slurm(
            exclusive=False, gpus_flag="none", cpus_per_task=1, signal_seconds=60, attempts=attempts
        )
        settings: dict[str, Any] = {
            "python": sys.executable,
            "path": str(HERE / "stand_in"),
            "results": str(results),
            "slurm": flags,
            **cluster,
        }
        where = Cluster("lab", "slurm", "cpu", 2, "cpu", "gloo", **settings)
        plan = Plan(FORMAT, name, "0", 1, where, jobs)
        bundle = tmp_path / name / "bundle"
        emit.write(emit.bundle(plan, "slurm"), bundle)
        done = slurm.run("bash", str(bundle / "submit.sh"), env=env)
        ids = [line.split()[0] for line in done.stdout.splitlines()]
        return Submitted(slurm, results / name, ids)

    return submit


@pytest.fixture
def train(slurm: lab.Cluster, tmp_path: Path):
    """train(spec): compile it with `specc compile`, and submit what that wrote, unedited.

    A second run of the same test needs a folder `inside` of its own.
    """

    def train(spec: str, inside: str = "") -> Submitted:
        folder = tmp_path / inside
        results = folder / "runs"
        (folder / "clusters").mkdir(parents=True)
        profile = plans.PROFILE.format(python=sys.executable, project=HERE.parents[1], results=results)
        (folder / "clusters" / "lab.yaml").write_text(profile)
        (folder / "tiny.yaml").write_text(spec)
        words = ["compile", str(folder / "tiny.yaml"), "--cluster", "lab", "-o", str(folder / "bundle")]
        slurm.run(sys.executable, "-m", "specc", *words, "--target", "slurm")
        done = slurm.run("bash", str(folder / "bundle" / "submit.sh"))
        return Submitted(slurm, results / "tiny", [line.split()[0] for line in done.stdout.splitlines()])

    return train
