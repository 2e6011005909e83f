"""How far PPO lifts the reward: `specs/ppo_tiny.yaml` over several seeds, from what to what.

`python tests/bench_ppo.py [--seeds 3]` runs SFT, reward model and PPO for each seed and prints, as means over
the first and the last tenth of the PPO steps: the reward (the trained reward model's, standardised) and the
share of right sums among the responses that were written down, which no model judges.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("seed  reward             right sums       kl     seconds")
    for seed in range(1, options.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            words = ["run", "specs/ppo_tiny.yaml", "--dir", folder, "--set", f"seed={seed}"]
            ran = subprocess.run(
                [sys.executable, "-m", "specc", *words], cwd=ROOT, capture_output=True, text=True
            )
            if ran.returncode:
                print(ran.stderr)
                return ran.returncode
            told(seed, Path(folder) / "ppo" / "actor", time.monotonic() - began)
    return 0


def told(seed: int, folder: Path, seconds: float) -> None:
    steps = [row for row in rows(folder / "metrics.jsonl") if "reward" in row]
    tenth = max(1, len(steps) // 10)
    samples = [(row["step"], is_right(row)) for row in rows(folder / "samples.jsonl")]
    first = mean([right for step, right in samples if step <= tenth])
    last = mean([right for step, right in samples if step > len(steps) - tenth])
    rewards = [row["reward"] for row in steps]
    print(
        f"{seed:<4}  {mean(rewards[:tenth]):6.2f} -> {mean(rewards[-tenth:]):5.2f}    "
        f"{first:4.0%} -> {last:4.0%}     {mean([row['kl'] for row in steps[-tenth:]]):5.2f}  {seconds:4.0f}",
        flush=True,
    )


def is_right(sample: dict[str, str]) -> bool:
    """Whether a response is the sum that its prompt, `3+4=`, asks for."""
    a, b = sample["prompt"].rstrip("=").split("+")
    return sample["response"].removesuffix("<eos>") == str(int(a) + int(b))


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


if __name__ == "__main__":
    sys.exit(main())
