"""SFT of a small random Llama on all of GSM8K, killed once on the way; prints what the README records.

    python tests/bench_gsm8k.py [--steps 300] [--data ../shared/data/gsm8k] [--dir DIR]

The rows become chats in the tutorials' form (`conversations`, template `extra_id`), the tokenizer is a
SentencePiece model trained on the same text, and two processes share the batch (DP 2), packed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "runtime"))

import toy_runs

from specc.plan import Layout, Model, Plan, Weights

VOCABULARY = 2000


def conversation(row: dict[str, str]) -> dict[str, object]:
    """A question and its worked answer as the tutorials' chat form."""
    turns = [{"from": "User", "value": row["question"]}, {"from": "Assistant", "value": row["answer"]}]
    return {"system": "", "mask": "User", "conversations": turns}


def chats(source: Path, target: Path, limit: int = 0) -> Path:
    """GSM8K's file as chats."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    chosen = rows[:limit] if limit else rows
    target.write_text("".join(json.dumps(conversation(row)) + "\n" for row in chosen), encoding="utf-8")
    return target


def sentencepiece(source: Path, target: Path) -> Path:
    """A SentencePiece model of VOCABULARY pieces from the text itself."""
    import sentencepiece

    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([row["question"] + "\n" + row["answer"] for row in rows]),
        model_prefix=str(target.with_suffix("")),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        num_threads=2,
        minloglevel=2,
    )
    return target


def gsm8k_plan(data: Path, folder: Path, steps: int, rows: int = 0, layout: Layout | None = None) -> Plan:
    """SFT of a Llama of about a million weights on the chats."""
    train = chats(data / "train.jsonl", folder / "train.jsonl", rows)
    test = chats(data / "test.jsonl", folder / "test.jsonl", 200)
    tokenizer = sentencepiece(data / "train.jsonl", folder / "gsm8k.model")
    shape = replace(
        toy_runs.LLAMA, layers=3, hidden=128, ffn=352, heads=4, kv_groups=2, head_dim=32, vocab=VOCABULARY
    )
    shape = replace(shape, max_positions=512)
    found = toy_runs.plan(
        layout or Layout(dp=2),
        micro_batch=4,
        global_batch=32,
        train={
            "steps": steps,
            "lr": 2e-3,
            "min_lr": 2e-4,
            "warmup_steps": min(20, steps // 5),
            "seq_length": 512,
            "packing": True,
            "save_every": max(steps // 6, 1),
            "validate_every": max(steps // 3, 1),
        },
        data={"path": str(train)},
        validation={"path": str(test)},
    )
    model = Model("gsm8k-llama", shape, Weights(), tokenizer=str(tokenizer), chat_template="extra_id")
    job = found.jobs[0]
    return replace(found, jobs=(replace(job, roles=(replace(job.roles[0], model=model),)),))


def kill_a_rank_at(folder: Path, plan_file: Path, step: int) -> None:
    """Start, and SIGKILL one rank when `step` steps are in metrics.jsonl."""
    from test_run import lines, ranks, started, until

    with started(plan_file, 2) as run:
        until(lambda: lines(folder) >= step or run.poll() is not None, 3600)
        os.kill(ranks(run.pid)[-1], signal.SIGKILL)
        run.communicate(timeout=120)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--steps", type=int, default=300)
    words.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data/gsm8k")
    words.add_argument("--dir", type=Path)
    given = words.parse_args()
    folder = given.dir or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    file = toy_runs.written(folder, gsm8k_plan(given.data, folder, given.steps))
    began = time.monotonic()
    kill_a_rank_at(folder, file, given.steps * 2 // 5)
    before = len(toy_runs.metrics(folder))
    ended = toy_runs.torchrun(file, 2, attempt="2", timeout=7200)
    assert ended.returncode == 0, ended.stderr
    found = toy_runs.metrics(folder)
    resumed = next(line for line in ended.stdout.splitlines() if line.startswith("resuming"))
    data = next(line for line in ended.stdout.splitlines() if line.startswith("data.train"))
    speeds = sorted(line["tokens_per_second"] for line in found)
    output = json.loads((folder / "sft" / "output.json").read_text())
    print(data.rsplit(" of ", 1)[0])
    print(f"killed with SIGKILL after {before} steps; {resumed}")
    print(
        f"loss {found[0]['loss']:.3f} -> {sum(x['loss'] for x in found[-10:]) / 10:.3f} (mean of the last 10)"
    )
    print(f"validation loss {output['metrics']['validation_loss']:.3f} on 200 rows of the test split")
    print(f"{speeds[len(speeds) // 2]:,.0f} tokens/s (median), {time.monotonic() - began:,.0f} s in all")


if __name__ == "__main__":
    main()
