"""Tiny models that answer over HTTP: folders to serve, and how to serve them in the warm processes."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specc import serving
from specc.plan import ANSWER, to_json

POSITIONS = 512


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 259,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def folder(path: Path, seed: int = 0, **sizes: int) -> Path:
    """A random Llama of bytes in Hugging Face's form, made without torch; `sizes` are other numbers of its
    config.json."""
    from safetensors.numpy import save_file

    from runtime.tokenizer import ByteTokenizer

    draw = np.random.default_rng(seed)
    path.mkdir(parents=True)
    config = LLAMA | sizes
    (path / "config.json").write_text(json.dumps(config))
    save_file({name: _drawn(draw, size) for name, size in _tensors(config)}, path / "model.safetensors")
    ByteTokenizer().save(path)
    return path


def _drawn(draw: Any, size: tuple[int, ...]) -> Any:
    return np.ones(size, np.float32) if len(size) == 1 else draw.normal(0, 0.1, size).astype(np.float32)


def _tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    vocab, hidden, ffn = 259, config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        sizes = {"q_proj": (hidden, hidden), "k_proj": (keys, hidden), "v_proj": (keys, hidden)}
        own = {f"self_attn.{name}": size for name, size in sizes.items()}
        own |= {"self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden)}
        own |= {"mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
        own |= {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
        yield from ((f"model.layers.{i}.{name}.weight", size) for name, size in own.items())
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


@dataclass(frozen=True)
class Served:
    """A server that can be asked."""

    url: str
    name: str
    stage: Path
    codes: Future[list[int]]

    def stop(self) -> None:
        (self.stage / "stop").touch()


@contextmanager
def served(world: Any, run: Path, checkpoint: Path, processes: int = 1, **wishes: Any) -> Iterator[Served]:
    """A checkpoint that answers while inside; on the way out it ends well, or the test fails."""
    said = serving.Wishes(port=0, **({"rows": 16, "tokenizer": "builtin:bytes"} | wishes))
    plan = serving.plan_of(str(checkpoint), said)
    job = dataclasses.replace(plan.jobs[0], collective_timeout_seconds=60)
    run.mkdir(parents=True)
    (run / "plan.json").write_text(to_json(dataclasses.replace(plan, jobs=(job,))))
    stage = run / ANSWER
    with ThreadPoolExecutor(1) as pool:
        codes = pool.submit(world, processes, answering, str(run / "plan.json"), timeout=600)
        try:
            url = eventually(lambda: _ready(stage / "attempts" / "1" / "address.json"), codes)
            yield Served(url, job.settings[ANSWER]["name"], stage, codes)
        finally:
            stage.mkdir(exist_ok=True)
            (stage / "stop").touch()
    assert codes.result() == [0] * processes


def answering(plan_file: str) -> int:
    """One process of a server inside a worker of `world`; its exit code."""
    os.environ["SPECC_ATTEMPT"] = "1"
    from runtime.__main__ import main

    return main([plan_file, ANSWER, "model"])


def _ready(file: Path) -> str:
    said = json.loads(file.read_text())
    if not said["ready"]:
        raise OSError
    return said["url"]


def eventually(look: Any, codes: Future[Any] | None = None, seconds: float = 300) -> Any:
    """What `look` says once it does not raise; AssertionError when the processes end before."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return look()
        except (OSError, AssertionError):
            assert codes is None or not codes.done(), codes.result()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
