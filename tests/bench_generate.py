"""Speed of generation against transformers' `generate` on the same CPU and the same weights.

    python tests/bench_generate.py [THREADS]

Prompts and responses of 16 to 128 tokens, mixed; drawn at temperature 1, fp32. Both have 16 rows at a
time: transformers takes 16 prompts in order and runs until the longest response is there; here a row
that is done makes room for the next. What counts is useful tokens per second: those of each response's
own length. The two take turns, three times each; the median of their CPU times counts, which a busy
machine disturbs least.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

MODELS = [  # name, hidden, ffn, layers, heads, kv groups, vocabulary; prompts
    ("3M", 256, 704, 4, 8, 4, 2048, 128),
    ("88M", 768, 2048, 10, 12, 4, 16384, 32),
]
ROWS = 16


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "runtime"))
    import torch

    torch.set_num_threads(threads)
    print("model  params  prompts   transformers tokens/s   engine tokens/s   ratio")
    for name, *sizes, count in MODELS:
        prompts, lengths = work(count, sizes[-1])
        params, theirs = transformers_run(sizes, prompts, lengths)
        ours = engine_run(sizes, prompts, lengths)
        t, o = in_turns(theirs, ours)
        useful = sum(lengths)
        print(
            f"{name:5} {params / 1e6:6.1f}M {count:8} {useful / t:23.0f} {useful / o:17.0f} {t / o:7.2f}",
            flush=True,
        )


def work(count: int, vocab: int) -> tuple[list[list[int]], list[int]]:
    """Prompts and how long each response is to be."""
    import torch

    generator = torch.Generator().manual_seed(0)
    sizes, lengths = (torch.randint(16, 129, (count,), generator=generator).tolist() for _ in range(2))
    return [torch.randint(1, vocab, (size,), generator=generator).tolist() for size in sizes], lengths


def in_turns(*runs: Callable[[], None]) -> list[float]:
    """CPU seconds of a run of each: the median of three."""
    rounds = [[_seconds(run) for run in runs] for _ in range(3)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _seconds(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def transformers_run(sizes: list[int], prompts: Any, lengths: Any) -> tuple[int, Callable[[], None]]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, ffn, layers, heads, groups, vocab = sizes
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocab_size=vocab,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()

    def run() -> None:
        for start in range(0, len(prompts), ROWS):
            rows = prompts[start : start + ROWS]
            longest = max(map(len, rows))
            tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
            model.generate(
                tokens,
                attention_mask=(tokens > 0).long(),
                do_sample=True,
                top_k=0,
                max_new_tokens=max(lengths[start : start + ROWS]),
                pad_token_id=0,
            )

    return sum(p.numel() for p in model.parameters()), run


def engine_run(sizes: list[int], prompts: Any, lengths: Any) -> Callable[[], None]:
    import toys
    from worlds import free_port

    from runtime import cpu, parallel
    from runtime.engine import Engine
    from runtime.generate import generate
    from runtime.sampling import Sampling

    hidden, ffn, layers, heads, groups, vocab = sizes
    shape = toys.shape(
        hidden=hidden,
        ffn=ffn,
        layers=layers,
        heads=heads,
        kv_groups=groups,
        head_dim=hidden // heads,
        vocab=vocab,
        max_positions=512,
        init_std=0.02,
    )
    role = toys.role(shape=shape)
    cpu.install()
    parallel.stop()
    os.environ["MASTER_PORT"] = str(free_port())
    engine = Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    samplings = [Sampling(max_tokens=length) for length in lengths]

    def run() -> None:
        found = generate(engine, prompts, samplings, slots=ROWS)
        assert [len(tokens) for tokens in found.tokens] == lengths

    return run


if __name__ == "__main__":
    main()
