"""Throughput of `specc serve` with many clients against the same requests one at a time.

    make bench-serve        (python tests/bench_serve.py [REQUESTS [MODEL]])

Random Llamas of bytes on this machine's CPU; every request wants 32 tokens, drawn at temperature 1. All at
once they share the generator's batches; one at a time each is a batch of its own, through one client that
keeps its connection. Both take turns, twice each; the ratio of the sums counts, which a busy machine disturbs
least.

2026-11-21, `make bench-serve`, 64 requests, on two cores that others used a little (load 5); tokens/s:

    model         one at a time    all at once    ratio
    hidden 64               301          6,998     23.3
    hidden 512               51            721     14.2

In a profile of the ranks nine tenths of the time are the model's pass and a thirtieth is drawing: 64 answers
take some 34 steps, and asking for news, telling tokens and looking for the stop file is below one hundredth.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "runtime"))

TOKENS = 32
MODELS: dict[str, dict[str, int]] = {
    "hidden 64": {},
    "hidden 512": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}
"""By name what the toy Llama is made of instead; in the second one arithmetic is what takes time."""


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    named = sys.argv[2:3] or list(MODELS)
    for name in named:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, Path(folder) / "model", requests)


def measure(name: str, folder: Path, requests: int) -> None:
    """Both ways in turns, and the ratio."""
    import toy_answering

    model = toy_answering.folder(folder, **MODELS[name])
    words = [sys.executable, "-m", "specc", "serve", str(model), "--port", "0"]
    own = {**os.environ, "SPECC_API_KEY": ""}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=own) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        try:
            seconds(url, 2, 1)
            alone = together = 0.0
            for _ in range(2):
                alone += seconds(url, requests, 1)
                together += seconds(url, requests, requests)
        finally:
            server.terminate()
    tokens = 2 * requests * TOKENS
    print(
        f"{name}: {requests} requests of {TOKENS} tokens, one at a time {tokens / alone:,.0f} tokens/s, ",
        end="",
    )
    print(f"all at once {tokens / together:,.0f} tokens/s: {alone / together:.1f} times as many", flush=True)


def seconds(url: str, requests: int, clients: int) -> float:
    import httpx

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    with httpx.Client(base_url=url, timeout=600, trust_env=False, limits=limits) as client:
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda number: ask(client, number), range(requests)))
        return time.perf_counter() - began


def ask(client: Any, number: int) -> None:
    body = {"prompt": f"request {number}", "max_tokens": TOKENS, "min_tokens": TOKENS, "seed": number}
    answer = client.post("/v1/completions", json=body)
    assert answer.json()["usage"]["completion_tokens"] == TOKENS, answer.text


if __name__ == "__main__":
    main()
