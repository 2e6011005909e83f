"""A checkpoint that is to answer people: what it is, and the plan of the one job that serves it.

What comes in: a folder, which is a step (`.../checkpoint/step-40`), a stage of a run, or in Hugging Face's
form. What goes out: a plan for this machine, or `Refused`, which says with a code why it cannot be served.
Checksums are the runtime's to verify, since it reads the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import specc
from specc import machine, models, plan
from specc.machine import Gpu
from specc.planner import hardware
from specc.planner.shapes import balanced, kv_bytes_per_token, parameters

GIB = 2**30
MOST_ROWS, FEW_ROWS, SHORT = 64, 8, 4096
"""Answers at once at most; below so many the length is cut before the rows, though not below so much."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

FULL = 0.9
"""Share of a GPU that weights may take; the rest is for what is said."""

FOREIGN = (
    ("*.nemo", ".nemo archive", "convert it to a Hugging Face folder with NeMo's own converter"),
    ("model_weights", "unpacked .nemo archive", "convert it to a Hugging Face folder with NeMo's converter"),
    ("latest_checkpointed_iteration.txt", "checkpoint of Megatron-LM", "convert it to a Hugging Face folder"),
    ("*.gguf", "GGUF file", "take the safetensors form of this model"),
    ("pytorch_model*.bin*", "pickled checkpoint (.bin)", "write it as safetensors with save_pretrained"),
    ("*.pt", "pickled checkpoint (.pt)", "take the safetensors form of this model"),
    ("*.pth", "pickled checkpoint (.pth)", "take the safetensors form of this model"),
    ("adapter_config.json", "adapter (LoRA)", "merge it into its base model first: merge_and_unload()"),
)
"""What else a folder may hold, and the way out."""


class Refused(Exception):
    """A checkpoint that cannot be served. `outside`: something is missing rather than wrong."""

    def __init__(self, code: str, message: str, *, outside: bool = False) -> None:
        super().__init__(f"error[{code}]: {message}")
        self.code, self.message, self.outside = code, message, outside


@dataclass(frozen=True)
class Wishes:
    """What the command line said; None is this module's to choose."""

    host: str = "127.0.0.1"
    port: int = 1427
    name: str = ""
    tokenizer: str = ""
    chat_template: str = ""
    key_file: str = ""
    precision: str = ""
    tp: int | None = None
    pp: int | None = None
    gpus: int | None = None
    rows: int | None = None
    length: int | None = None
    most: int = 512  # answers that wait or are generated


def plan_of(checkpoint: str, wishes: Wishes, gpus: Sequence[Gpu] = ()) -> plan.Plan:
    """The plan that serves a checkpoint on this machine, with these GPUs or on its CPU. Refused."""
    model, name, precision = found(checkpoint)
    changes = {"tokenizer": wishes.tokenizer, "chat_template": wishes.chat_template}
    model = dataclasses.replace(model, **{key: value for key, value in changes.items() if value})
    if model.head != "language":
        message = f"`{checkpoint}` is a reward model: it gives numbers and cannot answer"
        raise Refused("R060", f"{message}; serve the model that it judges")
    _check_tokenizer(model.tokenizer)
    alike, environment = of_one_kind(gpus)
    card = hardware.gpu(alike[0].name) if alike else None
    cuda = card is not None
    free = min(gpu.memory_gib for gpu in alike) if cuda else machine.free_gib()
    precision = wishes.precision or (precision or "bf16" if cuda else "fp32")
    layout = _layout(model.shape, wishes, len(alike) if cuda else 0, free, 2 if precision == "bf16" else 4)
    rows, length = _rows(model.shape, layout, wishes, free, 2 if precision == "bf16" else 4, cuda)
    role = plan.Role(
        name="model", program=plan.ANSWER, nodes=1, gpus=layout.world_size, layout=layout, micro_batch=1,
        global_batch=1, model=model, precision=precision, distributed_optimizer=False, trains=False,
        rows=rows,
    )  # fmt: skip
    own = {
        "host": wishes.host,
        "port": wishes.port,
        "name": wishes.name or name,
        "key_file": str(Path(wishes.key_file).absolute()) if wishes.key_file else "",
        "length": length,
        "most": wishes.most,
    }
    job = plan.Job(
        name="answer", stage="answer", nodes=1, depends_on=(), roles=(role,),
        settings={plan.ANSWER: own}, data={}, heartbeat_seconds=1800, hash="answer",
        env=environment,
    )  # fmt: skip
    cluster = plan.Cluster(
        "local-gpu" if cuda else "local-cpu", "none", card.name if card else "cpu", layout.world_size,
        "cuda" if cuda else "cpu", "nccl" if cuda else "gloo", python=sys.executable,
    )  # fmt: skip
    return plan.Plan(plan.FORMAT, "answer", specc.__version__, 1234, cluster, (job,))


# --- what a folder is ------------------------------------------------------------------------------


def found(checkpoint: str) -> tuple[plan.Model, str, str]:
    """The model in a folder, what to call it, and the precision that it was trained in ('' if not known)."""
    try:
        path = Path(checkpoint).expanduser().absolute()
        if not path.exists():
            raise Refused("R005", f"there is no checkpoint at `{checkpoint}`", outside=True)
        if path.is_file():
            path = _folder_of(path, checkpoint)
        if (path / "MANIFEST.json").is_file() or re.fullmatch(r"step-\d+", path.name):
            return _ours(path.parent, path)
        if (path / "config.json").is_file():
            return _hugging_face(path)
        for steps in (path / "actor" / "checkpoint", path / "checkpoint", path):
            if any(steps.glob("step-*")):
                return _ours(steps, None)
        raise _unknown(path, checkpoint)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Refused("R005", f"`{checkpoint}` cannot be read: {reason}", outside=True) from None
    except RuntimeError:  # ~nobody
        raise Refused("R005", f"`{checkpoint}` is in the home of nobody here", outside=True) from None


def _folder_of(path: Path, shown: str) -> Path:
    for pattern, kind, way in FOREIGN:
        if path.match(pattern):
            raise Refused("R031", f"`{shown}` is a {kind}, which is not read; {way}")
    if path.name in ("config.json", "MANIFEST.json") or path.suffix == ".safetensors":
        return path.parent
    raise Refused("R031", f"`{shown}` is a file; give the folder of a step, of a stage, or in HF's form")


def _unknown(path: Path, shown: str) -> Refused:
    for pattern, kind, way in FOREIGN:
        if any(path.glob(pattern)):
            return Refused("R031", f"`{shown}` holds a {kind}, which is not read; {way}")
    stages = sorted(child.name for child in path.iterdir() if (child / "checkpoint").is_dir())
    if stages:
        names = ", ".join(f"`{path.name}/{name}`" for name in stages)
        return Refused("R031", f"`{shown}` is a run; say which of its stages is meant: {names}")
    if (path / "checkpoint").is_dir() or (path / "plan.json").is_file() or (path / "attempts").is_dir():
        return Refused("R021", f"`{shown}` has no checkpoint yet", outside=True)
    message = f"`{shown}` holds no checkpoint that is known"
    return Refused("R031", f"{message}; give the folder of a step, of a stage, or in Hugging Face's form")


def _ours(steps: Path, step: Path | None) -> tuple[plan.Model, str, str]:
    """The model of a step, or of the newest that is whole."""
    by_number = sorted(steps.glob("step-*"), key=lambda p: (len(p.name), p.name))
    whole = [path for path in by_number if (path / "MANIFEST.json").is_file()]
    if step is not None and step not in whole:
        others = f"whole are {', '.join(p.name for p in whole[-3:])}" if whole else "no other is whole"
        raise Refused("R021", f"`{step.name}` has no MANIFEST.json, so its saving never ended; {others}")
    if not whole:
        raise Refused("R021", f"no step in `{steps}` has a MANIFEST.json, so no saving ended there")
    described = _json(step or whole[-1], "MANIFEST.json", "R021")
    try:
        data = described["model"]
        shape = plan.Shape(**data["shape"])
        head, attributes = str(data["head"]), tuple(map(str, data["attributes"]))
        tokenizer, model_name = str(data["tokenizer"]), str(data["name"])
    except (KeyError, TypeError) as error:
        message = f"the manifest of `{(step or whole[-1]).name}` is not one that this version reads"
        raise Refused("R021", f"{message} ({type(error).__name__}: {error})") from None
    stage = steps.parent.parent if steps.parent.name == "actor" else steps.parent
    weights = plan.Weights("checkpoint", str(step or steps))
    if not _is_tokenizer(tokenizer) and _is_tokenizer(str(stage / "hf")):
        tokenizer = str(stage / "hf")
    model = plan.Model(model_name, shape, weights, tokenizer, template_of(stage), head, attributes)
    name = f"{stage.parent.name}/{stage.name}" + (f"/{step.name}" if step else "")
    return model, name, str(described.get("precision") or "")


def template_of(stage: Path) -> str:
    """The chat template of a stage: as it ended, or as its run was planned."""
    ended = _maybe_json(stage / "output.json").get("chat_template")
    if isinstance(ended, str):
        return ended
    with contextlib.suppress(KeyError, TypeError, AttributeError):  # a plan that is not one of ours
        for job in _maybe_json(stage.parent / "plan.json")["jobs"]:
            for role in job["roles"] if job["stage"] == stage.name else ():
                if role["name"] in ("model", "actor"):
                    return str(role["model"].get("chat_template") or "")
    return ""


def _hugging_face(path: Path) -> tuple[plan.Model, str, str]:
    config = _json(path, "config.json", "R032")
    kinds = config.get("architectures")
    kinds = [str(kind) for kind in kinds] if isinstance(kinds, list) else []
    for kind in kinds:
        if kind.endswith(("ForSequenceClassification", "ForTokenClassification", "Model", "RewardModel")):
            message = f"`{path.name}` is a {kind}, which gives numbers and cannot answer"
            raise Refused("R060", f"{message}; serve a model ...ForCausalLM")
    model, said = models.resolve({"path": str(path)}, "model")
    wrong = [d for d in said if d.severity == "error" or d.code == "P003"]
    if model is None or wrong:
        message = wrong[0].message if wrong else f"`{path}` is no model that is known"
        raise Refused(wrong[0].code if wrong else "P002", message + (f"; {wrong[0].help}" if wrong else ""))
    if not any(path.glob("*.safetensors")):
        for pattern, kind, way in FOREIGN:
            if any(path.glob(pattern)):
                raise Refused("R031", f"`{path}` holds a {kind}, which is not read; {way}")
        raise Refused("R030", f"`{path}` holds no .safetensors file", outside=True)
    generic = path.name in ("hf", "model", "")
    name = f"{path.parent.parent.name}/{path.parent.name}" if generic else path.name
    template = template_of(path.parent) if path.name == "hf" else ""
    dtype = str(config.get("torch_dtype") or config.get("dtype") or "")
    return dataclasses.replace(model, chat_template=template), name, "fp32" if dtype == "float32" else "bf16"


def _is_tokenizer(name: str) -> bool:
    """Whether it is built in, on the hub, or a folder or file here that holds one."""
    if name.startswith("builtin:") or "://" in name:
        return True
    is_file = False
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # too long, ~nobody, a null byte
        path = Path(name).expanduser()
        if path.is_dir():
            files = ("tokenizer.json", "*tokenizer.model", "spiece.model")
            return any(any(path.glob(pattern)) for pattern in files)
        is_file = path.is_file()
    return is_file or re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", name) is not None


def _check_tokenizer(name: str) -> None:
    if not _is_tokenizer(name):
        way = "put its tokenizer.json or tokenizer.model there, or name another with --tokenizer"
        raise Refused("R034", f"`{name}` holds no tokenizer; {way}", outside=True)


def _json(folder: Path, name: str, code: str) -> dict[str, Any]:
    try:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise Refused(code, f"`{folder.name}/{name}` is not JSON; it is torn or was changed") from None
    if not isinstance(data, dict):
        raise Refused(code, f"`{folder.name}/{name}` is no JSON object")
    return data


def _maybe_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


# --- where it runs ---------------------------------------------------------------------------------


def of_one_kind(gpus: Sequence[Gpu]) -> tuple[list[Gpu], dict[str, str]]:
    """The GPUs of the kind that has the most memory in all, and the environment in which processes see those
    alone: a model is cut into even parts. `gpus` stand in the driver's order, by bus. Refused.
    """
    kinds: dict[str, list[int]] = {}
    for i, gpu in enumerate(gpus):
        if hardware.gpu(gpu.name) is not None:
            kinds.setdefault(gpu.name, []).append(i)
    if not kinds or len({gpu.name for gpu in gpus}) == 1:
        return list(gpus), {}
    if os.environ.get(VISIBLE) is not None:  # somebody chose, by another order perhaps
        shown = " and ".join(f"{gpu.name}" for gpu in dict.fromkeys(gpus))
        message = f"{VISIBLE} names GPUs of different kinds, {shown}"
        raise Refused("R004", f"{message}; name those of one kind, or unset it", outside=True)
    best = max(kinds.values(), key=lambda places: sum(gpus[i].memory_gib for i in places))
    names = ",".join(map(str, best))
    return [gpus[i] for i in best], {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: names}


def _layout(shape: plan.Shape, wishes: Wishes, gpus: int, free_gib: float, bytes_each: int) -> plan.Layout:
    """As asked; else on as few GPUs as hold the weights and as much again as a third for what is said."""
    weights = parameters(shape) * bytes_each / GIB
    pp = wishes.pp or 1
    tp = wishes.tp or _tensor_parallel(shape, pp, gpus, free_gib, weights)
    world = wishes.gpus or tp * pp
    if world % (tp * pp):
        raise Refused("P011", f"{world} GPUs are not a multiple of TP {tp} x PP {pp}")
    if gpus and world > gpus:
        raise Refused("P011", f"{world} GPUs are asked for, and this machine has {gpus}", outside=True)
    for what, size in (
        ("heads", shape.heads),
        ("key-value groups", shape.kv_groups),
        ("hidden", shape.hidden),
    ):
        if size % tp:
            raise Refused("P012", f"{size} {what} do not divide by TP {tp}")
    width = shape.shared_expert_ffn if shape.experts else shape.ffn
    if width % tp:
        raise Refused("P014", f"the feed-forward width {width} does not divide by TP {tp}")
    if shape.experts % tp:
        raise Refused("P014", f"{shape.experts} experts do not divide by TP {tp}, over which they are dealt")
    if pp > shape.layers:
        raise Refused("P016", f"{shape.layers} layers cannot be cut into PP {pp} stages")
    if gpus and weights / (tp * pp) > FULL * free_gib:
        message = f"a GPU would hold {weights / (tp * pp):,.1f} GiB of weights, and has {free_gib:,.1f} GiB"
        raise Refused("P031", f"{message}; use more of them with --tp or --pp", outside=True)
    if not gpus and (needed := weights * world / (tp * pp)) > free_gib:
        message = f"the weights take {needed:,.1f} GiB, and this machine has {free_gib:,.1f} GiB free"
        raise Refused("P031", message, outside=True)
    layers = () if shape.layers % pp == 0 else balanced(shape.layers, pp)
    deals = bool(shape.experts) and tp > 1  # whole experts to each of a replica's ranks
    cut = plan.Layout(tp=tp, pp=pp, dp=world // (tp * pp), stage_layers=layers)
    return dataclasses.replace(cut, ep=tp, sequence_parallel=True) if deals else cut


def _tensor_parallel(shape: plan.Shape, pp: int, gpus: int, free_gib: float, weights: float) -> int:
    tp = 1
    while (
        gpus
        and weights / (tp * pp) > 0.75 * free_gib
        and 2 * tp * pp <= gpus
        and not shape.kv_groups % (2 * tp)
        and not shape.experts % (2 * tp)
    ):
        tp *= 2
    return tp


def _rows(
    shape: plan.Shape, layout: plan.Layout, wishes: Wishes, free_gib: float, bytes_each: int, cuda: bool
) -> tuple[int, int]:
    """How many answers are generated at once, and tokens of each with its prompt: what the memory holds."""
    length = min(wishes.length or shape.max_positions, shape.max_positions)
    cut = layout.tp * layout.pp
    weights = parameters(shape) * bytes_each / GIB / cut
    per_token = kv_bytes_per_token(shape, bytes_each) / GIB / cut
    if math.isinf(free_gib):
        return wishes.rows or MOST_ROWS, length
    share = free_gib if cuda else free_gib / layout.world_size
    room = max((0.8 if cuda else 0.5) * share - weights, 0.0)

    def fit(length: int) -> int:
        return int(room / (per_token * (length + 64)))  # the cache grows by so many tokens

    while not wishes.length and fit(length) < (wishes.rows or FEW_ROWS) and length > SHORT:
        length //= 2
    return wishes.rows or max(min(fit(length), MOST_ROWS), 1), length
