"""What a run tells about itself: one JSON object a line, and TensorBoard and W&B when asked.

    step, loss, grad_norm, lr            what the algorithm returned, after `step` updates
    tokens, trained_tokens               of the global batch, without padding
    step_seconds, data_seconds, …        wall time of the step and of its parts on rank 0
    tokens_per_second, tflops_per_gpu, mfu
    memory_gib                           peak of this process so far (GPU memory, or RSS on a CPU)

A line with `validation_loss` and `step` follows the line of the step after which it was measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
from pathlib import Path
from typing import Any, Protocol

from runtime.problem import Problem
from specc.plan import Shape

PEAK_TFLOPS = {
    "A100": 312.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
    "GB200": 2500.0,
    "B300": 2250.0,
    "GB300": 2500.0,
    "L40S": 362.0,
    "A10": 125.0,
}
"""Dense bf16 peak by what torch calls the device (makers' data sheets); the longest name that fits counts."""


class Sink(Protocol):
    """Somewhere that numbers go."""

    def write(self, metrics: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: flushed line by line, so that a reader or a crash sees whole lines."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8")

    def write(self, metrics: dict[str, Any]) -> None:
        self.file.write(json.dumps(_finite(metrics)) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def cut_to_step(path: Path, step: int, attempt: Path) -> int:
    """Keep the lines up to `step`; move the rest to `attempt/NAME-after-step-N.jsonl`. Returns how many.

    A last line that a crash tore is moved too.
    """
    if not path.exists():
        return 0
    kept, tail = [], []
    for line in path.read_bytes().splitlines(keepends=True):
        (kept if not tail and _step_of(line) <= step else tail).append(line)
    if not tail:
        return 0
    attempt.mkdir(parents=True, exist_ok=True)
    (attempt / f"{path.stem}-after-step-{step}.jsonl").write_bytes(b"".join(tail))
    temporary = path.with_name(f".{path.name}.cut")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, path)
    return len(tail)


def last_values(path: Path) -> dict[str, Any]:
    """The newest value of every key in `metrics.jsonl`."""
    values: dict[str, Any] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            values |= json.loads(line)
    return values


class TensorBoard:
    """Scalars in TensorBoard's own files."""

    def __init__(self, folder: Path, step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            advice = "pip install tensorboard, or set train.tensorboard: false"
            raise Problem(
                "R015", f"TensorBoard was asked for but is not installed; {advice}", outside=True
            ) from None
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, metrics: dict[str, Any]) -> None:
        for key, value in _numbers(metrics).items():
            self.writer.add_scalar(key, value, metrics["step"])

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run on Weights & Biases whose id depends on the run folder only, so resuming continues it."""

    def __init__(self, settings: dict[str, Any], folder: Path, name: str, config: dict[str, Any]):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            advice = "pip install wandb, or leave train.wandb out"
            raise Problem("R015", f"W&B was asked for but is not installed; {advice}", outside=True) from None
        self.run = wandb.init(
            project=settings.get("project") or "specc",
            entity=settings.get("entity"),
            name=settings.get("name") or name,
            id=stable_id(folder),
            resume="allow",
            dir=str(folder),
            config=config,
        )

    def write(self, metrics: dict[str, Any]) -> None:
        self.run.log(_numbers(metrics), step=metrics["step"])

    def close(self) -> None:
        self.run.finish()


def sinks(folder: Path, train: dict[str, Any], step: int, name: str, settings: dict[str, Any]) -> list[Sink]:
    """Where a role's numbers go, as its section `train` says: lines in `folder`, TensorBoard, W&B."""
    found: list[Sink] = [JsonLines(folder / "metrics.jsonl")]
    if train.get("tensorboard"):
        found.append(TensorBoard(folder / "tensorboard", step))
    if train.get("wandb"):
        found.append(WeightsAndBiases(train["wandb"], folder, name, settings))
    return found


def stable_id(folder: Path) -> str:
    """A run's id: a hash of where it lies."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def memory_gib(device: Any) -> float:
    """Peak of this process: GPU memory on CUDA, resident memory on a CPU. GiB."""
    if getattr(device, "type", "cpu") == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_tflops(device: Any) -> float:
    """Dense bf16 peak of the device; 0 when it is not known (a CPU)."""
    if getattr(device, "type", "cpu") != "cuda":
        return 0.0
    import torch

    name = torch.cuda.get_device_name(device)
    fitting = [known for known in PEAK_TFLOPS if known in name]
    return PEAK_TFLOPS[max(fitting, key=len)] if fitting else 0.0


def training_flops(shape: Shape, lengths: list[int], outputs: int = 0) -> float:
    """Operations of one update on samples of these lengths: three times the forward's multiply-adds, doubled.

    `outputs` is the width of a head of numbers; 0 for a language model, whose last layer is the vocabulary.

    Counts every matrix once per token and causal attention at half its square; recomputing does not
    count, so MFU is of useful work.
    """
    tokens = sum(lengths)
    attention = sum(n * n for n in lengths) * shape.layers * shape.heads * shape.head_dim
    return 6.0 * (matrix_parameters(shape, outputs) * tokens + attention)


def matrix_parameters(shape: Shape, outputs: int = 0) -> int:
    """Weights that one token meets in a matrix product, output layer included, norms and embedding not."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_groups * shape.head_dim
    attention = shape.hidden * (queries + 2 * keys) + queries * shape.hidden
    matrices = 3 if shape.activation in ("swiglu", "geglu") else 2
    if shape.experts:
        width = (shape.expert_ffn or shape.ffn) * shape.experts_per_token + shape.shared_expert_ffn
        feed_forward = matrices * shape.hidden * width + shape.hidden * shape.experts
    else:
        feed_forward = matrices * shape.hidden * shape.ffn
    return shape.layers * (attention + feed_forward) + shape.hidden * (outputs or shape.vocab)


def _step_of(line: bytes) -> float:
    if not line.endswith(b"\n"):
        return math.inf
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if isinstance(v, int | float) and k != "step"}
