"""Names, one letter a token, as data that a tiny policy learns to write in seconds, and a rule about them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import toy_ppo
import toy_runs

from specc.plan import Plan, Weights

NAMES = Path(__file__).with_name("names.txt")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def names() -> list[str]:
    """Names of the data."""
    return [line for line in NAMES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def ends_in_a(prompt: str, response: str) -> float:
    """The reward: whether a first letter and what follows it are a name of 4 to 10 letters, `a` the last."""
    name = prompt + response
    return float(response.endswith("a") and name.isalpha() and 4 <= len(name) <= 10)


def written(file: Path, rows: list[dict[str, str]]) -> str:
    """A JSONL file."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def writing(folder: Path) -> Plan:
    """SFT on names of which the first letter is the prompt."""
    rows = [{"input": name[0], "output": name[1:]} for name in names()]
    return toy_runs.plan(
        data={"path": written(folder / "names.jsonl", rows)},
        train={"steps": 120, "lr": 1e-2, "min_lr": 1e-3, "seq_length": 16, "save_every": 120},
        micro_batch=64,
        global_batch=64,
    )


def rewarded(folder: Path, program: str, writer: Path) -> Plan:
    """30 steps of 64 names each, from the policy of that checkpoint."""
    has_critic = program == "ppo"
    own: dict[str, Any] = {"responses": 1, "kl": 0.02}
    if not has_critic:
        own = {"responses": 4, "kl": 0.1, "kl_estimator": "k3", "kl_in": "loss"}
    found = toy_ppo.plan(
        Path(written(folder / "prompts.jsonl", [{"text": letter} for letter in LETTERS])),
        program=program,
        roles=("actor", "reference", "critic")[: 2 + has_critic],
        ppo={"rollouts": 64, "epochs": 2} | own,
        generate={"max_tokens": 12},
        train={"steps": 30, "lr": 3e-3, "min_lr": 3e-3, "seq_length": 16, "save_every": 0},
        critic={"lr": 1e-2, "min_lr": 1e-2},
        scorer={"function": "toy_names:ends_in_a"},
        micro_batch=64,
        of_roles={"global_batch": 64},
    )
    [job] = found.jobs
    roles = tuple(role if role.name == "critic" else _from(writer, role) for role in job.roles)
    return dataclasses.replace(found, jobs=(dataclasses.replace(job, roles=roles),))


def _from(writer: Path, role: Any) -> Any:
    start = dataclasses.replace(role.model, weights=Weights("checkpoint", str(writer)))
    return dataclasses.replace(role, model=start)
