"""SFT, reward-model and PPO steps here beside TRL 1.16.0's: the same rows, shapes, batches, and fp32.

    python tests/bench_trl.py [--data ../shared/data] [--rounds 5] [--steps 2] [CASE ...]

Each side is a process of its own with one thread. They take turns of a few steps, and of each turn what
counts is tokens of the rows (no padding) per second of CPU time, which a busy machine disturbs least, and of
wall time; the ratios are medians over the rounds. Above 1 the steps here are faster.

There, `SFTTrainer.train()` and `RewardTrainer.train()` run as they are, held at the steps' beginnings; only
what differs from the plan here is set (fp32, no recomputation, clip 1, a constant rate). Here, a step is the
loop's: deal the rows, step, log. 1.16.0 has no PPO trainer any more, so PPO there is tests/plain_ppo.py.

*mix*: rows as they come (GSM8K's answers, real comparisons, GSM8K's questions with responses that end at
random); here SFT and reward rows are packed. *padded*: all rows of one length, nothing to be gained.

2026-11-21, `--rounds 4 --steps 2`, two cores that others used a little (load 5 to 7):

    case              TRL tokens/s   here tokens/s   ratio: CPU   wall
    sft-mix-256               1784            2333         1.32   1.36
    reward-mix-256            1660            2326         1.40   1.43
    ppo-mix-256                590             902         1.51   1.53
    sft-padded-256            3105            3754         1.21   1.22
    sft-padded-512             867             935         1.07   1.08
    reward-padded-256         4027            4002         0.98   0.99
    reward-padded-512          942             930         0.99   1.00
    ppo-padded-256            1391            1323         0.96   0.97
    ppo-padded-512             276             277         1.01   1.02

What PPO spends more on padded rows: old log-probabilities come from a pass of the training model (there from
the sampler's logits, so its first ratio is not exactly 1). What it saves: prompts and padding stay out of the
vocabulary's product.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE / "runtime", HERE, HERE.parent):
    sys.path.insert(0, str(folder))

VOCABULARY, RESPONSE = 2048, 32
ENDS = list(range(1000, 1040))
"""Tokens that end a response of the mix: one in fifty, after 50 on average."""
SIZES = {256: (704, 4, 8, 4), 512: (1408, 6, 8, 4)}
"""By hidden size: feed-forward, layers, heads, key-value groups."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    task: str  # sft | reward | ppo
    rows: str  # mix | padded
    hidden: int
    batch: int = 16  # rows of a step; pairs of a reward model; responses of PPO
    micro_batch: int = 8

    @property
    def name(self) -> str:
        return f"{self.task}-{self.rows}-{self.hidden}"

    @property
    def lines(self) -> int:
        """Lines of a microbatch here: a packed one takes several rows."""
        return 2 if self.is_packed else self.micro_batch

    @property
    def is_packed(self) -> bool:
        return self.rows == "mix" and self.task != "ppo"


CASES = [
    Case("sft", "mix", 256),
    Case("reward", "mix", 256, 8, 4),
    Case("ppo", "mix", 256, 32, 16),
    *(Case("sft", "padded", hidden, 8, 4) for hidden in SIZES),
    *(Case("reward", "padded", hidden, 4, 2) for hidden in SIZES),
    *(Case("ppo", "padded", hidden, 16, 8) for hidden in SIZES),
]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(case.name for case in CASES))
    words.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--steps", type=int, default=2, help="steps of a turn")
    words.add_argument("--side", help=argparse.SUPPRESS)
    words.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.side:
        return side(given)
    print("case              TRL tokens/s   here tokens/s   ratio: CPU   wall", flush=True)
    for case in CASES:
        if not given.cases or case.name in given.cases:
            with tempfile.TemporaryDirectory() as folder:
                print(compared(case, given, Path(folder)), flush=True)
    return 0


def compared(case: Case, given: argparse.Namespace, folder: Path) -> str:
    """The line of a case."""
    prepare(case, given.data, folder)
    with beside("ours", case, folder) as ours, beside("theirs", case, folder) as theirs:
        for turn in (ours, theirs):
            turn(1)
        rounds = [(theirs(given.steps), ours(given.steps)) for _ in range(given.rounds)]

    def speed(side: int, clock: str) -> float:
        return statistics.median(turn[side]["tokens"] / turn[side][clock] for turn in rounds)

    def ratio(clock: str) -> float:
        return statistics.median((b["tokens"] / b[clock]) / (a["tokens"] / a[clock]) for a, b in rounds)

    return (
        f"{case.name:17} {speed(0, 'cpu'):12.0f} {speed(1, 'cpu'):15.0f} "
        f"{ratio('cpu'):12.2f} {ratio('wall'):6.2f}"
    )


Turn = Callable[[int], dict[str, float]]
"""So many steps; the seconds they took and the tokens they learnt from."""


@contextlib.contextmanager
def beside(name: str, case: Case, folder: Path) -> Iterator[Turn]:
    """A process of one side, which waits between turns."""
    words = [sys.executable, __file__, "--side", name, "--folder", str(folder), case.name]
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | quiet,
        )
    assert process.stdin
    assert process.stdout

    def turn(steps: int) -> dict[str, float]:
        print(steps, file=process.stdin, flush=True)
        for line in process.stdout:
            if line.startswith("turn "):
                return json.loads(line.removeprefix("turn "))
        raise RuntimeError(f"{name} of {case.name} ended:\n" + (folder / f"{name}.log").read_text()[-3000:])

    try:
        yield turn
    finally:
        process.stdin.close()
        process.kill()
        process.wait()


def side(given: argparse.Namespace) -> int:
    """One side's process: turns as they are asked for on stdin."""
    import torch

    torch.set_num_threads(1)
    (case,) = (case for case in CASES if case.name == given.cases[0])
    step = (our_step if given.side == "ours" else their_step)(case, given.folder)
    for line in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        tokens = sum(step() for _ in range(int(line)))
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "tokens": tokens}
        print("turn " + json.dumps(spent), flush=True)
    return 0


# ── the rows ─────────────────────────────────────────────────────────────────────────────────────


def prepare(case: Case, data: Path, folder: Path) -> None:
    """Write a tokenizer of the case's texts, and the rows; padded ones are words that are one token each."""
    import sentencepiece

    rows, file = texts(case, data), folder / "tokenizer.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for row in rows for text in row.values() for line in text.split("\n")]),
        model_prefix=str(file.with_suffix("")),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    if case.rows == "padded":
        pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(file))
        rows = [drawn(number, row, pieces) for number, row in enumerate(rows[:300])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def texts(case: Case, data: Path) -> list[dict[str, str]]:
    """Prompt and answer, or prompt and two responses, as they come; the very longest are left out."""
    if case.task == "reward":
        found = json.loads((data / "lf-dpo-demo" / "dpo_en_demo.json").read_text(encoding="utf-8"))
        rows = [
            {
                "prompt": row["conversations"][0]["value"],
                "chosen": row["chosen"]["value"],
                "rejected": row["rejected"]["value"],
            }
            for row in found
        ]
    else:
        name = {"sft": "output", "ppo": "answer"}[case.task]
        lines = (data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:1000]
        prompt = {"sft": "input", "ppo": "prompt"}[case.task]
        rows = [{prompt: row["question"], name: row["answer"]} for row in map(json.loads, lines)]
    return [row for row in rows if sum(map(len, row.values())) < 2400]


def drawn(number: int, like: dict[str, str], pieces: Any) -> dict[str, str]:
    """A row of the same fields in random words: 64 for each, as many tokens."""
    draw = random.Random(number)
    words = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    words = [w[1:] for w in words if w.startswith("▁") and w[1:].isalpha() and len(pieces.encode(w[1:])) == 1]
    return {name: " ".join(draw.choices(words, k=64)) for name in like}


# ── here ─────────────────────────────────────────────────────────────────────────────────────────


def our_step(case: Case, folder: Path) -> Callable[[], int]:
    """A step of the loop on the run that the runtime makes of a plan; the tokens it took."""
    from runtime import preflight
    from runtime.__main__ import stand_alone
    from runtime.loop import program
    from runtime.place import place_of
    from runtime.start import run_of
    from runtime.stop import StopFlag

    stand_alone()
    file = written(case, folder)
    plan, job, role = preflight.read_plan(file, case.task, "actor" if case.task == "ppo" else "model")
    place = place_of(file, job, role.name, os.environ)
    place.errors.mkdir(parents=True)
    stop = StopFlag(place.stage / "stop", place.errors, place.rank)
    run = run_of(plan, job, role, place, preflight.Meeting(place), stop)
    run.resume()

    def step() -> int:
        metrics = program(role.program).step(run)
        run.step += 1
        run.log(metrics)
        return metrics["tokens"]

    return step


def written(case: Case, folder: Path) -> Path:
    """The plan of a case."""
    import toy_ppo
    import toy_rewards
    import toy_runs

    rows, own = folder / "rows.jsonl", {"lr": 1e-4, "min_lr": 1e-4, "warmup_steps": 0, "schedule": "constant"}
    own |= {"steps": 1000, "save_every": 0, "seq_length": 1024, "packing": case.is_packed}
    shapes = {"shape": shape(case.hidden), "job": {"name": case.task, "stage": case.task}}
    batch = {"micro_batch": case.lines, "global_batch": case.batch}
    if case.task == "sft":
        data = {"path": str(rows), "format": "prompt_response"}
        found = toy_runs.plan(train=own, data=data, **shapes, **batch)
    elif case.task == "reward":
        found = toy_rewards.plan(rows, train=own, own={"truncation": "right"}, **shapes, **batch)
    else:
        length = RESPONSE if case.rows == "padded" else 2 * RESPONSE
        stops = [] if case.rows == "padded" else ENDS
        found = toy_ppo.plan(
            rows,
            shape=shape(case.hidden),
            micro_batch=case.micro_batch,
            ppo={"rollouts": case.batch},
            generate={"max_tokens": length, "stop_token_ids": stops or [VOCABULARY - 1]},
            train=own,
            of_roles={"global_batch": case.batch},
            scorer={"function": "plain_ppo:score"},
        )
    job = found.jobs[0]
    roles = tuple(
        replace(r, model=replace(r.model, tokenizer=str(folder / "tokenizer.model"))) for r in job.roles
    )
    return toy_runs.written(folder / "run", replace(found, jobs=(replace(job, roles=roles),)))


def shape(hidden: int) -> Any:
    import toys

    ffn, layers, heads, groups = SIZES[hidden]
    return toys.shape(
        hidden=hidden,
        ffn=ffn,
        layers=layers,
        heads=heads,
        kv_groups=groups,
        head_dim=hidden // heads,
        vocab=VOCABULARY,
        max_positions=1024,
        init_std=0.02,
    )


# ── there ────────────────────────────────────────────────────────────────────────────────────────


def their_step(case: Case, folder: Path) -> Callable[[], int]:
    """A step of TRL's trainer, or of the plain PPO, on the rows that the other side wrote."""
    import transformers

    transformers.logging.set_verbosity_error()
    if case.task == "ppo":
        import plain_ppo

        return plain_ppo.stepper(case, config(case.hidden), samples(folder, "prompts"))
    return held(trainer(case, samples(folder, "train"), folder))


def samples(folder: Path, use: str) -> list[Any]:
    """The rows as the other side has tokenised them."""
    from runtime.data.tokenised import Tokenised

    (found,) = folder.glob("run/*/data/*/")
    data = Tokenised(found)
    return [data[i] for i in range(len(data))]


def config(hidden: int) -> Any:
    """The shape as a Llama of transformers."""
    from transformers import LlamaConfig

    ffn, layers, heads, groups = SIZES[hidden]
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocab_size=VOCABULARY,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=1,
    )


def trainer(case: Case, rows: list[Any], folder: Path) -> Any:
    """TRL's own trainer, in fp32 and without recomputation as the plan here; its optimizer is fused AdamW."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    common: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "max_steps": 10_000,
        "per_device_train_batch_size": case.micro_batch,
        "gradient_accumulation_steps": case.batch // case.micro_batch,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "weight_decay": 0.01,
        "adam_beta2": 0.98,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "max_length": 1024,
    }
    if case.task == "sft":
        data = [
            {
                "input_ids": list(map(int, s.tokens)),
                "labels": [t if m else -100 for t, m in zip(map(int, s.tokens), s.mask, strict=True)],
            }
            for s in rows
        ]
        model = LlamaForCausalLM(config(case.hidden))
        kind, settings = SFTTrainer, SFTConfig(**common)
    else:
        data = [
            {"chosen_ids": list(map(int, a.tokens)), "rejected_ids": list(map(int, b.tokens))}
            for a, b in zip(rows[0::2], rows[1::2], strict=True)
        ]
        model = LlamaForSequenceClassification(config(case.hidden))
        kind, settings = RewardTrainer, RewardConfig(**common)
    return kind(
        model=model, args=settings, train_dataset=Dataset.from_list(data), processing_class=tokenizer(folder)
    )


def tokenizer(folder: Path) -> Any:
    """Something with a padding token: the rows are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, **{f"w{i}": i for i in range(1, VOCABULARY)}}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="w2")


def held(trainer: Any) -> Callable[[], int]:
    """`trainer.train()` in a thread that waits before each step; a call does one and gives its tokens."""
    from transformers import TrainerCallback

    go, done, tokens = threading.Semaphore(0), threading.Semaphore(0), [0]
    plain = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *more: Any) -> Any:
        tokens[0] += int(inputs["attention_mask"].sum())
        return plain(model, inputs, *more)

    class Held(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            go.acquire()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            done.release()

    def train() -> None:
        try:
            trainer.train()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)

    def step() -> int:
        before = tokens[0]
        go.release()
        done.acquire()
        return tokens[0] - before

    trainer.training_step = counted
    trainer.add_callback(Held())
    threading.Thread(target=train, daemon=True).start()
    return step


if __name__ == "__main__":
    sys.exit(main())
