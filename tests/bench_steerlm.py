"""What a small model of attributes learns of real answers, and whether a small policy can be steered.

`python tests/bench_steerlm.py [--seeds 1 2 3] [--steps 80] [--data ../shared/data/gsm8k-model-solutions]`

1. Attributes of 5,276 answers of models to GSM8K's questions, from real signals: correctness (4 or 0),
   verbosity (characters / 150, rounded, 4 at most), complexity (calculator steps, 4 at most). A small model
   learns them on most of the questions; told is its squared error on the others beside that of always
   predicting the mean.
2. Answers to sums, short to long, with their verbosity as a label. A small model learns them; asked for
   verbosity 0, 2 and 4, it answers so many characters in the mean, and that share as asked.

2026-11-21, `make bench-steerlm`, on 2 shared cores:

    seed  asked for verbosity 0, 2, 4: characters   as asked   seconds
    1        9.0    9.0   10.6                         41%         43
    2        2.0    9.0   16.0                        100%         39
    3        2.0    8.0   16.0                        100%         29
    attribute    squared error   of the mean
    correctness           3.57          3.77
    verbosity             0.28          0.77
    complexity            0.60          0.87
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "gsm8k-model-solutions"
NAMES = ("correctness", "verbosity", "complexity")
SHAPE = "{shape: {layers: 2, hidden: 128, ffn: 256, heads: 4, vocab: 512, max_positions: 2048}, "
MODEL = SHAPE + "tokenizer: builtin:bytes, chat_template: extra_id}"
SAYINGS = ("{c}", "It is {c}.", "{a} and {b} make {c}.")
HELD_BACK = 120
"""Questions on which the model of attributes is measured."""


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    words.add_argument("--steps", type=int, default=80)
    words.add_argument("--data", type=Path, default=DATA)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("seed  asked for verbosity 0, 2, 4: characters   as asked   seconds", flush=True)
        for seed in given.seeds:
            steered(Path(folder) / f"steer-{seed}", seed, given.steps)
        if given.data.exists():
            print("attribute    squared error   of the mean", flush=True)
            marked(Path(folder) / "marks", given.data / "example_model_solutions.jsonl", given.steps)
    return 0


# ── steering ─────────────────────────────────────────────────────────────────────────────────────


def steered(folder: Path, seed: int, steps: int) -> None:
    """Learn answers with labels, ask for each length, tell what came."""
    began = time.monotonic()
    draw = random.Random(seed)
    written(folder / "train.jsonl", [talk(draw, draw.randrange(3)) for _ in range(3000)])
    asked = [
        {**talk(draw, length), "label": f"verbosity:{2 * length}"} for length in range(3) for _ in range(30)
    ]
    written(folder / "asked.jsonl", asked)
    run(
        folder,
        f"""name: steering
seed: {seed}
cluster: local-cpu
stages:
  sft:
    algorithm: sft
    model: {MODEL}
    data: {{train: train.jsonl}}
    train: {{steps: {steps}, global_batch: 16, seq_length: 192, lr: 3e-3, min_lr: 3e-4, save_every: 0}}
    sft: {{add_eos: false}}
    precision: fp32
    gpus: 1
  answers:
    algorithm: generate
    model: {{from: sft}}
    data: {{prompts: asked.jsonl}}
    generate: {{max_tokens: 48, max_prompt_tokens: 192, temperature: 0, stop: ["<extra_id_1>"], batch: 90}}
    precision: fp32
    gpus: 1
""",
    )
    lengths: dict[int, list[int]] = {0: [], 1: [], 2: []}
    right = 0
    for row in rows(folder / "run" / "answers" / "rows.jsonl"):
        said = row["output"].split("<extra_id_1>")[0].strip()
        length = int(row["source"]["label"].removeprefix("verbosity:")) // 2
        lengths[length].append(len(said))
        right += kind(said) == length
    means = " ".join(f"{statistics.mean(found):6.1f}" for found in lengths.values())
    share = right / sum(map(len, lengths.values()))
    print(f"{seed:<4}  {means:<40}  {share:6.0%}   {time.monotonic() - began:8.0f}", flush=True)


def talk(draw: random.Random, length: int) -> dict[str, Any]:
    """A question with an answer of one of three lengths and a label that says so."""
    a, b = draw.randint(0, 9), draw.randint(0, 9)
    turns = [
        {"from": "User", "value": f"{a}+{b}=", "label": None},
        {
            "from": "Assistant",
            "value": SAYINGS[length].format(a=a, b=b, c=a + b),
            "label": f"verbosity:{2 * length}",
        },
    ]
    return {"system": "", "mask": "User", "type": "VALUE_TO_TEXT", "conversations": turns}


def kind(said: str) -> int:
    """Which of the three ways of speaking it is."""
    return 2 if " make " in said else 1 if said.startswith("It is") else 0


# ── marks ────────────────────────────────────────────────────────────────────────────────────────


def marked(folder: Path, source: Path, steps: int) -> None:
    """Learn the attributes of real answers; tell the error on questions that were held back."""
    train, validation = [], []
    for number, row in enumerate(rows(source)):
        into = validation if number < HELD_BACK else train
        into += [answer(row["question"], each) for each in row.values() if isinstance(each, dict)]
    written(folder / "train.jsonl", train)
    written(folder / "validation.jsonl", validation)
    run(
        folder,
        f"""name: marks
cluster: local-cpu
algorithm: reward
model: {MODEL}
data: {{train: train.jsonl, validation: validation.jsonl}}
train:
  {{steps: {steps}, global_batch: 8, seq_length: 1024, lr: 2e-3, min_lr: 1e-4, save_every: 0}}
reward: {{loss: regression, attributes: [{", ".join(NAMES)}], add_eos: false}}
precision: fp32
gpus: 1
""",
    )
    said = json.loads((folder / "run" / "reward" / "output.json").read_text())["metrics"]
    for i, name in enumerate(NAMES):
        mean = statistics.mean(row["label"][i] for row in train)
        plain = statistics.mean((row["label"][i] - mean) ** 2 for row in validation)
        print(f"{name:<12} {said[f'validation_loss_{name}']:13.2f} {plain:13.2f}", flush=True)


def answer(question: str, found: dict[str, Any]) -> dict[str, Any]:
    """An answer as what a judge reads, with its marks."""
    solution = found["solution"]
    marks = [
        4.0 if found["is_correct"] else 0.0,
        float(min(4, round(len(solution) / 150))),
        float(min(4, solution.count("<<"))),
    ]
    text = f"<extra_id_1>User\n{question}\n<extra_id_1>Assistant\n{solution}\n<extra_id_2>"
    return {"text": text, "label": marks}


# ── both ─────────────────────────────────────────────────────────────────────────────────────────


def run(folder: Path, spec: str) -> None:
    """Run a spec on this machine to its end."""
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")
    words = ["run", str(folder / "spec.yaml"), "--dir", str(folder / "run")]
    ended = subprocess.run([sys.executable, "-m", "specc", *words], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr)


def written(file: Path, found: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
