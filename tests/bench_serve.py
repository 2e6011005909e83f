"""Throughput of `specc serve` with many clients against the same requests one at a time.

    make bench-serve        (python tests/bench_serve.py [REQUESTS])

A tiny random Llama on this machine's CPU; every request wants 32 tokens, drawn at temperature 1. All at once
they share the generator's batches; one at a time each is a batch of its own. Both take turns, twice each; the
ratio of the sums counts, which a busy machine disturbs least.

Not measured yet on a machine that does nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "runtime"))

TOKENS = 32


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    import toy_answering

    with tempfile.TemporaryDirectory() as folder:
        model = toy_answering.folder(Path(folder) / "tiny")
        words = [sys.executable, "-m", "specc", "serve", str(model), "--port", "0"]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env={**os.environ, "SPECC_API_KEY": ""}
        ) as server:
            assert server.stdout
            url = server.stdout.readline().strip()
            try:
                measure(url, requests)
            finally:
                server.terminate()


def measure(url: str, requests: int) -> None:
    """Both ways in turns, and the ratio."""
    ask(url, 0)
    alone = together = 0.0
    for _ in range(2):
        alone += seconds(url, requests, 1)
        together += seconds(url, requests, requests)
    tokens = 2 * requests * TOKENS
    print(f"{requests} requests of {TOKENS} tokens")
    print(f"one at a time  {tokens / alone:8.0f} tokens/s")
    print(f"all at once    {tokens / together:8.0f} tokens/s    ratio {alone / together:.1f}")


def seconds(url: str, requests: int, clients: int) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda i: ask(url, i), range(requests)))
    return time.perf_counter() - began


def ask(url: str, number: int) -> None:
    import httpx

    body = {"prompt": f"request {number}", "max_tokens": TOKENS, "min_tokens": TOKENS, "seed": number}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=600, trust_env=False)
    assert answer.json()["usage"]["completion_tokens"] == TOKENS, answer.text


if __name__ == "__main__":
    main()
