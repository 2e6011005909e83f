"""Speed of a training step against transformers on the same CPU and the same weights' shapes.

    python tests/bench_engine.py [THREADS]

Forward, backward, clipping and AdamW in fp32 on the same batch. The two take turns, five steps each,
and the median of their CPU times counts, which a busy machine disturbs least. Prints one line per
shape; a ratio above 1 means the engine is faster.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

SHAPES = [  # hidden, ffn, layers, heads, kv groups, vocabulary; batch, sequence
    (64, 128, 2, 4, 2, 256, 4, 64),
    (256, 704, 4, 8, 4, 2048, 8, 256),
    (512, 1408, 6, 8, 4, 8192, 4, 512),
]


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "runtime"))
    import torch

    torch.set_num_threads(threads)
    print("hidden layers vocab batch x seq   transformers ms   engine ms   ratio")
    for sizes in SHAPES:
        hidden, _, layers, _, _, vocab, batch, sequence = sizes
        theirs, ours = in_turns(transformers_step(*sizes), engine_step(*sizes))
        print(
            f"{hidden:6} {layers:6} {vocab:5} {batch:5} x {sequence:3} "
            f"{theirs * 1e3:17.1f} {ours * 1e3:11.1f} {theirs / ours:7.2f}",
            flush=True,
        )


def in_turns(*steps: Callable[[], None]) -> list[float]:
    """CPU seconds of one step of each: the median of five rounds of five, after a step to warm up."""
    for step in steps:
        step()
    rounds = [[_seconds(step) for step in steps] for _ in range(5)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _seconds(step: Callable[[], None]) -> float:
    began = time.process_time()
    for _ in range(5):
        step()
    return (time.process_time() - began) / 5


def transformers_step(hidden, ffn, layers, heads, groups, vocab, batch, sequence) -> Callable[[], None]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocab_size=vocab,
        max_position_embeddings=sequence,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(0, vocab, (batch, sequence + 1), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1]).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def engine_step(hidden, ffn, layers, heads, groups, vocab, batch, sequence) -> Callable[[], None]:
    from runtime import cpu

    cpu.install()
    import torch
    import toys

    from runtime import parallel
    from runtime.batch import Sample
    from runtime.engine import Engine, OptimizerSettings

    parallel.stop()
    os.environ["MASTER_PORT"] = str(free_port())
    shape = toys.shape(
        hidden=hidden,
        ffn=ffn,
        layers=layers,
        heads=heads,
        kv_groups=groups,
        head_dim=hidden // heads,
        vocab=vocab,
        max_positions=sequence,
        init_std=0.02,
    )
    role = toys.role(shape=shape, micro_batch=batch, global_batch=batch)
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    engine = Engine(role, here, OptimizerSettings())
    tokens = torch.randint(0, vocab, (batch, sequence + 1), generator=torch.Generator().manual_seed(0))
    rows = [Sample(i, row, [1] * len(row)) for i, row in enumerate(tokens.tolist())]
    microbatches = toys.microbatches(role, 0, rows)
    loss = toys.sft_loss(batch * sequence)

    def step() -> None:
        engine.forward_backward(microbatches, loss)
        engine.optim_step(1e-4)

    return step


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
