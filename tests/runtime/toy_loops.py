"""Loops of several stages, small enough to be killed often: rounds of rejection sampling, iterations of a
model that judges itself and its judgements, and SteerLM with bootstrapping. `specc run` runs them.

The models are random or nearly so: what they say differs at every turn, so that no byte comes out right by
chance. What a loop leaves behind is `evidence`: the same bytes, however often it was killed.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

SHAPE = (
    "{layers: 2, hidden: 32, ffn: 64, heads: 4, kv_groups: 2, head_dim: 8, vocab: 512, max_positions: 1024}"
)
MODEL = f"shape: {SHAPE}, tokenizer: builtin:bytes"
LETTERS = "AAABBB012345"
"""What the model that judges itself has learnt to say: a digit is a score, a letter a verdict."""

ROUNDS = """\
name: rounds
cluster: local-cpu
stages:
  rm:
    algorithm: reward
    model: {%(model)s}
    data: {train: "builtin:arithmetic"}
    train: {steps: 2, global_batch: 8, seq_length: 32, lr: 1e-3, save_every: 1}
    precision: fp32
    gpus: 1
  rs:
    algorithm: rejection
    data: {prompts: "builtin:arithmetic"}
    roles:
      actor: {model: {%(model)s}, gpus: %(gpus)s, parallel: {tp: %(tp)s}}
      reward: {model: {from: rm}, gpus: %(gpus)s}
    rounds: %(rounds)s
    prompts_per_round: 8
    keep_rounds: 1
    generate: {samples: 4, batch: 2, max_tokens: 6, max_prompt_tokens: 16}
    score: {batch: 8}
    train: {steps: 4, global_batch: 4, seq_length: 32, lr: 3e-3, save_every: 1, keep_last: 2}
    precision: fp32
"""
META = """\
name: meta
cluster: local-cpu
stages:
  sft:
    algorithm: sft
    model: {%(model)s}
    data: {train: said.jsonl}
    train: {steps: 40, global_batch: 32, seq_length: 64, lr: 1e-2, min_lr: 1e-3, save_every: 20}
    precision: fp32
    gpus: 1
  sr:
    algorithm: meta_rewarding
    model: {from: sft}
    data: {train: said.jsonl}
    generate: {max_tokens: 8}
    self_rewarding:
      iterations: %(rounds)s
      responses: 3
      judgements: 3
      judge: {template: "{{ prompt }}{{ response }}:", pattern: "([0-5])[^0-9]*$", high: 5, max_tokens: 8}
      meta:
        {fraction: 0.5, batch: 6, max_share: 1.0, max_rows: 1.0, pattern: "([AB])",
         template: "{{ prompt }}{{ response }}{{ judgement_a }}{{ judgement_b }}:"}
    train: {steps: 4, global_batch: 4, seq_length: 96, lr: 1e-3, min_lr: 1e-3, save_every: 1, keep_last: 2}
    precision: fp32
    gpus: %(gpus)s
    parallel: {tp: %(tp)s}
"""
STEERLM = """\
name: steer
cluster: local-cpu
stages:
  judged:
    algorithm: prepare
    data: {rows: {path: "builtin:arithmetic", subset: helpsteer, limit: 32}}
    prepare: {form: helpsteer}
  steerlm:
    algorithm: steerlm
    data: {marks: {from: judged}, train: {from: judged}}
    roles:
      reward:
        model: &model {%(model)s, chat_template: extra_id}
        train: {steps: 3, global_batch: 8, seq_length: 512, lr: 1e-3, save_every: 1}
        gpus: %(gpus)s
        parallel: {tp: %(tp)s}
      actor: {model: *model, gpus: %(gpus)s, parallel: {tp: %(tp)s}}
    steerlm:
      attributes: [helpfulness, correctness, coherence, complexity, verbosity]
      rounds: %(rounds)s
      truncated: keep
    annotate: {seq_length: 512, batch: 8}
    generate: {max_tokens: 8, batch: 8}
    train: {steps: 3, global_batch: 8, seq_length: 512, lr: 1e-3, save_every: 1}
    precision: fp32
"""
LOOPS = {"rounds": ROUNDS, "meta": META, "steerlm": STEERLM}


def _said(draws: random.Random, count: int) -> str:
    return "".join(draws.choices(LETTERS, k=count))


def spec(folder: Path, loop: str, *, rounds: int = 2, gpus: int = 1, tp: int = 1) -> Path:
    """The spec of a loop as a file, and its data beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = random.Random(0)
    said = [
        {"input": f"{_said(draws, 1 + i % 24)}:", "output": _said(draws, 6)} for i in range(96)
    ]  # questions to a judge are longer than prompts, and are answered alike
    (folder / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    file = folder / f"{loop}.yaml"
    file.write_text(LOOPS[loop] % {"model": MODEL, "rounds": rounds, "gpus": gpus, "tp": tp})
    return file


# ── what must not depend on kills ────────────────────────────────────────────────────────────────

MEASURED = ("seconds", "step_time", "_per_second", "memory_gib", "tflops", "mfu")
"""Of numbers that are told: times, and what this process took of the machine."""
PASSING = ("attempts", "heartbeat", "stop", ".lock", "measured.json", "provenance.json", "plan.json")
"""What says how a run went, and not what it made."""


def evidence(folder: Path) -> dict[str, str]:
    """Every file that the stages of a run left, with what is in it: its hash, but for the times in it."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder)
        if not any(part in PASSING for part in name.parts):
            found[_unhashed(str(name))] = hashlib.sha256(_content(file)).hexdigest()[:16]
    return found


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The files that are not in both, or not the same."""
    found = {
        **dict.fromkeys(one, "is left over"),
        **dict.fromkeys(other, "is missing"),
        **{name: "differs" for name in one if name in other},
    }
    return [f"{name}: {found[name]}" for name in sorted(found) if one.get(name) != other.get(name)]


def _unhashed(name: str) -> str:
    """Folders of tokens bear a hash of where their rows lay: any run's folder differs from another's."""
    return re.sub(r"(?<=/)[0-9a-f]{16}(?=/)", "HASH", name)


def _content(file: Path) -> bytes:
    if file.name == "metrics.jsonl":
        lines = [_plain(json.loads(line)) for line in file.read_text().splitlines()]
        return json.dumps(lines).encode()
    if file.name in ("output.json", "facts.json"):
        return json.dumps(_plain(json.loads(file.read_text()))).encode()
    return file.read_bytes()


def _plain(found: Any) -> Any:
    if not isinstance(found, dict):
        return found
    return {k: _plain(v) for k, v in found.items() if not any(part in k for part in MEASURED)}
