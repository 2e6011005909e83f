"""Models by name: what a spec calls a model -> its shape, where its weights are, its tokenizer.

A model is one of
  a catalog name or Hugging Face id   `llama3-8b`, `meta-llama/Meta-Llama-3-8B@revision`
  a folder                            with a `config.json`; its shape is read from there
  a shape                             `{shape: {layers: 2, hidden: 64, ...}}`, with random weights
  a built-in                          `tiny-llama` and its kin, random weights and a byte tokenizer
Nothing here needs a network or torch. The catalog is data: `specc/catalog/models/FAMILY.json`, each
entry with the source of its numbers; adding a model is adding an entry.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from specc import plan
from specc.diagnostics import Diagnostic

CATALOG = Path(__file__).parent / "catalog" / "models"

IMPORTABLE = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma")
"""Families whose Hugging Face weights the runtime reads and writes."""

BYTES = "builtin:bytes"

MAX_BYTES = 16 << 20
"""Of a config.json or a plan.json; one that is larger is something else."""


class ShapeError(ValueError):
    """A config.json or a shape that cannot be used; `key` says which key, `help` what to do."""

    def __init__(self, message: str, key: str = "", help: str = "", family: bool = False) -> None:
        super().__init__(message)
        self.key, self.help, self.family = key, help, family


@dataclass(frozen=True)
class Entry:
    """One model of the catalog."""

    name: str
    shape: plan.Shape
    hf: tuple[str, ...]  # Hugging Face ids with this shape; the first one is what the name means
    parameters: int | None  # as published, when it is
    source: str


# --- the catalog -----------------------------------------------------------------------------------


@functools.cache
def catalog() -> dict[str, Entry]:
    """Every model that is known by name, in the order of the files."""
    entries: dict[str, Entry] = {}
    for file in sorted(CATALOG.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        for name, row in data["models"].items():
            shape = plan.Shape(**{"family": data["family"]} | data["defaults"] | row["shape"])
            entries[name] = Entry(name, shape, tuple(row["hf"]), row["parameters"], row["source"])
    return entries


def find(name: str) -> tuple[Entry, str] | None:
    """The entry that `name` means and the Hugging Face id meant ('' for a built-in), or None."""
    return _index().get(_folded(name))


def _folded(name: str) -> str:
    """Case and punctuation do not tell models apart: `Llama-3.1-8B` and `llama3.1-8b` are one."""
    return "".join(c for c in name.lower() if c.isalnum() or c == "/")


@functools.cache
def _index() -> dict[str, tuple[Entry, str]]:
    index: dict[str, tuple[Entry, str]] = {}
    for entry in catalog().values():
        index.setdefault(_folded(entry.name), (entry, entry.hf[0] if entry.hf else ""))
        for hf in entry.hf:
            index.setdefault(_folded(hf), (entry, hf))
            index.setdefault(_folded(hf.split("/")[-1]), (entry, hf))
    return index


def suggestion(name: str) -> str:
    """The known name or id nearest to `name`, or ''."""
    known = {_folded(spelling): spelling for e in catalog().values() for spelling in (*e.hf, e.name)}
    near = difflib.get_close_matches(_folded(name), known, n=1, cutoff=0.75)
    return known[near[0]] if near else ""


# --- from what a spec says to a model --------------------------------------------------------------


def resolve(
    model: str | Mapping[str, typing.Any], where: str, folder: Path | str = "."
) -> tuple[plan.Model | None, list[Diagnostic]]:
    """The model that a spec names at path `where`; None and an error when it names none.

    `model` is a string or a mapping with `name` or `path`, `weights` (load | random), `tokenizer`,
    `chat_template`, `shape`, or `from: {run, stage}`. Relative paths count from `folder`, where the
    spec lies. A folder that is absent here is a warning, since it may exist on the cluster.
    `from: stage` needs the other stages and is the graph's to resolve.
    """
    said = {"name": model} if isinstance(model, str) else {k: v for k, v in model.items() if v is not None}
    name = str(said.get("path") or said.get("name") or "")
    spot = f"{where}.{'path' if said.get('path') else 'name'}" if not isinstance(model, str) else where
    if isinstance(said.get("from"), Mapping):
        return _from_run(said, where, Path(folder))
    if said.get("shape"):
        found, notes = _from_shape(said, name, where)
    elif not name:
        found, notes = None, [_unknown("a model needs a name, a folder or a shape", where, "")]
    else:
        found, notes = _named(name, said, spot, Path(folder))
    if found is None:
        return None, notes
    found = _adorned(found, said)
    return found, notes + _not_readable(found, where)


def _named(
    name: str, said: Mapping[str, typing.Any], where: str, folder: Path
) -> tuple[plan.Model | None, list[Diagnostic]]:
    if name.endswith(".nemo"):
        message = f"`{name}` is a .nemo archive, which is not read"
        help = "convert it to a Hugging Face folder (NeMo's convert scripts do it) and give that folder"
        return None, [Diagnostic("P003", "error", message, where, "", help)]
    if "://" in name:
        return _remote(name, said, where)
    local = _local(name, folder)
    if local is not None:
        return _from_folder(local, name, where)
    hf, _, revision = name.partition("@")
    if not _is_path(name) and (known := find(hf)):
        return _from_entry(known, name, revision), []
    if _is_path(name):
        return _absent(name, said, where)
    near = suggestion(hf)
    help = f"did you mean `{near}`? or " if near else ""
    help += "give a folder with a config.json, or `shape:` with its numbers"
    return None, [_unknown(f"unknown model `{name}`", where, help)]


def _unknown(message: str, where: str, help: str) -> Diagnostic:
    return Diagnostic("P001", "error", message, where, "not in the catalog" if help else "", help)


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1


def _local(name: str, folder: Path) -> Path | None:
    """The existing folder or config.json that `name` means, seen from `folder`; None when there is none.

    A bare word is a folder only when it holds a config.json, so that a folder named `llama3-8b` with
    other things in it does not hide the model of that name.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return None
    path = path if path.is_absolute() else folder / path
    try:
        exists = path.exists() if _is_path(name) else (path / "config.json").exists()
    except (OSError, ValueError):  # too long, or a null byte
        return None
    return path if exists else None


def _not_readable(model: plan.Model, where: str) -> list[Diagnostic]:
    """A family that is planned and built, but whose published weights the runtime does not read."""
    family = model.shape.family
    if model.weights.kind != "hf" or family in IMPORTABLE:
        return []
    message = f"the weights of `{model.name}` cannot be read: the {family} family is planned and built only"
    help = "add `weights: random`, or use a model of the families " + ", ".join(IMPORTABLE)
    return [Diagnostic("P003", "warning", message, where, "", help)]


def _from_entry(known: tuple[Entry, str], name: str, revision: str) -> plan.Model:
    entry, hf = known
    if not hf:
        return plan.Model(name, entry.shape, plan.Weights("random"), BYTES)
    tokenizer = f"{hf}@{revision}" if revision else hf
    return plan.Model(name, entry.shape, plan.Weights("hf", hf, revision), tokenizer)


def _from_folder(path: Path, name: str, where: str) -> tuple[plan.Model | None, list[Diagnostic]]:
    file = path / "config.json" if path.is_dir() else path
    shown = f"{name}/config.json" if path.is_dir() else name
    try:
        data = json.loads(_text_of(file))
    except OSError as error:
        message = f"the model folder `{name}` has no readable config.json ({error.strerror})"
        help = "give the folder that holds the model's config.json, or `shape:` with its numbers"
        return None, [Diagnostic("P002", "error", message, where, "", help)]
    except (ValueError, RecursionError) as error:
        message = f"`{shown}` is not JSON: {_why_no_json(error)}"
        return None, [Diagnostic("P002", "error", message, where, help="copy the model's config.json again")]
    try:
        shape = shape_from_config(data)
    except ShapeError as error:
        code = "P003" if error.family else "P002"
        message = f"`{shown}`: {error}"
        return None, [Diagnostic(code, "error", message, where, error.key, error.help)]
    folder = str(file.parent.resolve())
    return plan.Model(name, shape, plan.Weights("hf", folder), folder), []


def _text_of(file: Path) -> str:
    """The text of a file that may be anything: OSError for a pipe, a device or one without an end."""
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    with file.open("rb") as opened:
        raw = opened.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_BYTES >> 20} MiB")
    return raw.decode("utf-8")


def _why_no_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[:1].lower()}{error.msg[1:]} on line {error.lineno}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return "nested too deep" if isinstance(error, RecursionError) else "a number of thousands of digits"


def _absent(
    name: str, said: Mapping[str, typing.Any], where: str
) -> tuple[plan.Model | None, list[Diagnostic]]:
    """A folder that is not here: its shape comes from `name:` or from what the folder is called."""
    known = find(str(said.get("name") or "")) or find(name.rstrip("/").split("/")[-1])
    if known is None:
        message = f"the model folder `{name}` is not on this machine, so its shape is not known"
        help = "say which model it is (`{path: ..., name: llama3-8b}`), or give `shape:` with its numbers"
        return None, [Diagnostic("P005", "error", message, where, "absent here", help)]
    message = f"the model folder `{name}` is not on this machine; planned as `{known[0].name}`"
    warning = Diagnostic("P005", "warning", message, where, "absent here", "it must exist on the cluster")
    return plan.Model(name, known[0].shape, plan.Weights("hf", name), name), [warning]


def _remote(
    name: str, said: Mapping[str, typing.Any], where: str
) -> tuple[plan.Model | None, list[Diagnostic]]:
    """A URL is read on the cluster only; its shape comes from `name:` or from its last part."""
    known = find(str(said.get("name") or "")) or find(name.rstrip("/").split("/")[-1])
    if known is None:
        message = f"the shape of the model at `{name}` is not known without the network"
        help = "say which model it is (`{path: ..., name: llama3-8b}`), or give `shape:` with its numbers"
        return None, [Diagnostic("P005", "error", message, where, "", help)]
    return plan.Model(name, known[0].shape, plan.Weights("hf", name), name), []


def _from_run(
    said: Mapping[str, typing.Any], where: str, folder: Path
) -> tuple[plan.Model | None, list[Diagnostic]]:
    """`from: {run: DIR, stage: rm}`: the model that another run's plan holds for that stage."""
    run, stage = str(said["from"].get("run", "")), str(said["from"].get("stage", ""))
    path = Path(run) if Path(run).is_absolute() else folder / run
    try:
        other = plan.from_json(_text_of(path / "plan.json"))
    except OSError:
        known = find(str(said.get("name") or ""))
        if known is None:
            message = f"the run folder `{run}` is not on this machine, so its model is not known"
            help = "say which model it is: `{from: {run: ..., stage: ...}, name: llama3-8b}`"
            return None, [Diagnostic("P005", "error", message, f"{where}.from", "absent here", help)]
        message = f"the run folder `{run}` is not on this machine; planned as `{known[0].name}`"
        warning = Diagnostic("P005", "warning", message, f"{where}.from", "absent here")
        weights = plan.Weights("run", run, stage=stage)
        return _adorned(plan.Model(f"{run}:{stage}", known[0].shape, weights, known[1] or BYTES), said), [
            warning
        ]
    except (plan.PlanError, UnicodeDecodeError) as error:
        help = "name the folder of a run that this version of specc compiled"
        return None, [Diagnostic("P002", "error", f"`{run}/plan.json`: {error}", f"{where}.from", help=help)]
    jobs = [job for job in other.jobs if job.stage == stage]
    if not jobs:
        names = ", ".join(f"`{job.stage}`" for job in other.jobs)
        message = f"the run `{run}` has no stage `{stage}`; it has {names}"
        return None, [Diagnostic("P002", "error", message, f"{where}.from.stage")]
    model = next(
        (role.model for role in jobs[-1].roles if role.name in ("model", "actor")), jobs[-1].roles[0].model
    )
    weights = plan.Weights("run", str(path), stage=stage)
    return _adorned(dataclasses.replace(model, name=f"{run}:{stage}", weights=weights), said), []


def _adorned(model: plan.Model, said: Mapping[str, typing.Any]) -> plan.Model:
    """The model with what the spec said about weights, tokenizer and chat template."""
    changes: dict[str, typing.Any] = {}
    if said.get("weights") == "random":
        changes["weights"] = plan.Weights("random")
    if said.get("tokenizer"):
        changes["tokenizer"] = str(said["tokenizer"])
    if said.get("chat_template"):
        changes["chat_template"] = str(said["chat_template"])
    return dataclasses.replace(model, **changes) if changes else model


# --- shapes: from a spec's numbers, from config.json -------------------------------------------------


def _from_shape(
    said: Mapping[str, typing.Any], name: str, where: str
) -> tuple[plan.Model | None, list[Diagnostic]]:
    try:
        shape = shape_from_numbers(said["shape"])
    except ShapeError as error:
        path = f"{where}.shape" + (f".{error.key}" if error.key in said["shape"] else "")
        return None, [Diagnostic("P004", "error", f"shape: {error}", path, "", error.help)]
    weights = plan.Weights("random")
    if said.get("path") and said.get("weights") != "random":
        weights = plan.Weights("hf", str(said["path"]))
    tokenizer = str(said["path"]) if weights.kind == "hf" else BYTES
    return plan.Model(name or f"shape-{shape.layers}x{shape.hidden}", shape, weights, tokenizer), []


def shape_from_numbers(numbers: Mapping[str, typing.Any]) -> plan.Shape:
    """The shape that a spec writes out; `layers`, `hidden` and `heads` are needed, the rest has defaults.

    Raises ShapeError naming the key.
    """
    fields = {f.name: f for f in dataclasses.fields(plan.Shape)}
    for key in numbers:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise ShapeError(f"unknown key `{key}`", key, f"did you mean `{near[0]}`?" if near else "")
    for key in ("layers", "hidden", "heads"):
        if numbers.get(key) is None:
            raise ShapeError(f"`{key}` is missing", key, f"add `{key}:`")
    known = {key: value for key, value in numbers.items() if value is not None}
    hints = typing.get_type_hints(plan.Shape)
    values = {key: _number(known, key, hints[key]) for key in known}
    hidden, heads = values["hidden"], values["heads"]
    if heads < 1 or (hidden % heads and "head_dim" not in values):
        raise ShapeError(
            f"hidden {hidden} is not a multiple of heads {heads}", "heads", "change one, or give head_dim"
        )
    values = {
        "family": "llama",
        "ffn": 4 * hidden,
        "kv_groups": heads,
        "head_dim": hidden // heads,
        "vocab": 512,
        "max_positions": 4096,
    } | values
    return checked(plan.Shape(**values))


def shape_from_config(data: Mapping[str, typing.Any]) -> plan.Shape:
    """The shape that a Hugging Face config.json describes.

    Raises ShapeError: an unknown family, a missing or absurd number, or a feature that is not run.
    """
    if not isinstance(data, Mapping):
        raise ShapeError("expected an object")
    family = _family(data)
    if "quantization_config" in data:
        help = "take the model's bf16 form"
        raise ShapeError(
            "the weights are quantised, and such are not read", "quantization_config", help, True
        )
    read = functools.partial(_number, data)
    hidden, heads = read("hidden_size", int), read("num_attention_heads", int)
    if heads < 1 or hidden < 1:
        raise ShapeError(
            f"hidden_size {hidden} and num_attention_heads {heads} must be positive", "hidden_size"
        )
    rope_base, rope_scaling = _rope(data)
    values = {
        "family": family,
        "layers": read("num_hidden_layers", int),
        "hidden": hidden,
        "ffn": read("intermediate_size", int),
        "heads": heads,
        "kv_groups": read("num_key_value_heads", int, heads),
        "head_dim": read("head_dim", int, hidden // heads),
        "vocab": read("vocab_size", int),
        "max_positions": read("max_position_embeddings", int, 4096),
        "norm_epsilon": read("rms_norm_eps", float, 1e-5),
        "rope_base": rope_base,
        "rope_scaling": rope_scaling,
        "tied": read("tie_word_embeddings", bool, family == "gemma"),
        "init_std": read("initializer_range", float, 0.02),
        "sliding_window": _window(data, family),
        "qkv_bias": family == "qwen2",
        "qk_norm": family == "qwen3",
    }
    if family == "gemma":
        values |= {"norm": "rmsnorm_1p", "activation": "geglu", "embedding_scale": math.sqrt(hidden)}
    return checked(plan.Shape(**values | _experts(data)), CONFIG_KEYS)


def _family(data: Mapping[str, typing.Any]) -> str:
    said = str(data.get("model_type", ""))
    family = {"qwen3_moe": "qwen3", "qwen2_moe": "qwen2-moe"}.get(said, said)
    if family not in IMPORTABLE:
        ways = ", ".join(IMPORTABLE)
        raise ShapeError(
            f"model_type `{said}` is not one of the families that run",
            "model_type",
            f"use a model of {ways}, or give `shape:` for random weights",
            family=True,
        )
    activation = str(data.get("hidden_activation") or data.get("hidden_act") or "silu")
    allowed = ("gelu", "gelu_pytorch_tanh") if family == "gemma" else ("silu", "swish")
    if activation not in allowed:
        raise ShapeError(f"hidden_act `{activation}` is not {allowed[0]}", "hidden_act", family=True)
    for key in ("attention_bias", "mlp_bias"):
        if data.get(key):
            raise ShapeError(f"`{key}: true` is not supported for {family}", key, family=True)
    return family


def _rope(data: Mapping[str, typing.Any]) -> tuple[float, dict[str, typing.Any]]:
    """Base and scaling; transformers 5 writes both into `rope_parameters`."""
    scaling = data.get("rope_parameters") or data.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise ShapeError("rope_scaling is not an object", "rope_scaling")
    base = scaling.get("rope_theta", data.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rest = {key: value for key, value in scaling.items() if key not in ("rope_theta", "type")}
    if kind == "default":
        return _number({"rope_theta": base}, "rope_theta", float), {}
    if kind not in ("linear", "llama3"):
        raise ShapeError(
            f"rope_type `{kind}` is not run",
            "rope_scaling",
            "the runtime knows linear and llama3 scaling",
            family=True,
        )
    return _number({"rope_theta": base}, "rope_theta", float), {**rest, "rope_type": kind}


def _window(data: Mapping[str, typing.Any], family: str) -> int:
    if family.startswith("qwen") and not data.get("use_sliding_window"):
        return 0
    window = _number(data, "sliding_window", int, 0)
    first = data.get("max_window_layers") if data.get("model_type") in ("qwen2", "qwen3") else 0
    if window and first:
        message = f"a window in the layers from {first!r} on is not run, only one in every layer"
        raise ShapeError(message, "max_window_layers", "set use_sliding_window: false", family=True)
    return window


def _experts(data: Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    key = "num_local_experts" if "num_local_experts" in data else "num_experts"
    experts = _number(data, key, int, 0)
    if not experts:
        return {}
    if data.get("mlp_only_layers") or data.get("decoder_sparse_step", 1) != 1:
        raise ShapeError("mixed dense and expert layers are not run", "decoder_sparse_step", family=True)
    if data.get("model_type") == "qwen3_moe" and not data.get("norm_topk_prob"):  # false where it is absent
        message = "experts whose probabilities do not add up to one (`norm_topk_prob: false`) are not run"
        raise ShapeError(message, "norm_topk_prob", family=True)
    width = "moe_intermediate_size" if "moe_intermediate_size" in data else "intermediate_size"
    return {
        "experts": experts,
        "experts_per_token": _number(data, "num_experts_per_tok", int),
        "expert_ffn": _number(data, width, int),
    }


_REQUIRED = object()


def _number(
    data: Mapping[str, typing.Any], key: str, kind: typing.Any, default: typing.Any = _REQUIRED
) -> typing.Any:
    """The value at `key` as `kind`; an absent or null one is `default`."""
    value = data.get(key)
    if value is None:
        if default is _REQUIRED:
            raise ShapeError(f"`{key}` is missing", key, f"add `{key}`")
        return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    plain = typing.get_origin(kind) or kind
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise ShapeError(
            f"`{key}` is {value!r}, not {'a whole number' if plain is int else plain.__name__}", key
        )
    return value


CHOICES = {
    "family": (*IMPORTABLE, "nemotron", "gpt"),
    "norm": ("rmsnorm", "rmsnorm_1p", "layernorm", "layernorm_1p"),
    "activation": ("swiglu", "geglu", "gelu", "squared_relu"),
    "position": ("rope", "learned"),
}

LIMITS = {
    "layers": (1, 10_000),
    "hidden": (1, 1_000_000),
    "ffn": (1, 10_000_000),
    "heads": (1, 10_000),
    "kv_groups": (1, 10_000),
    "head_dim": (1, 10_000),
    "vocab": (2, 100_000_000),
    "max_positions": (1, 1_000_000_000),
    "norm_epsilon": (1e-12, 1.0),
    "rope_base": (1.0, 1e12),
    "rope_percent": (0.01, 1.0),
    "sliding_window": (0, 1_000_000_000),
    "embedding_scale": (1e-6, 1e6),
    "experts": (0, 100_000),
    "experts_per_token": (0, 100_000),
    "expert_ffn": (0, 10_000_000),
    "shared_expert_ffn": (0, 10_000_000),
    "init_std": (1e-9, 10.0),
}


CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_groups": "num_key_value_heads",
    "vocab": "vocab_size",
    "max_positions": "max_position_embeddings",
    "norm_epsilon": "rms_norm_eps",
    "rope_base": "rope_theta",
    "init_std": "initializer_range",
    "experts_per_token": "num_experts_per_tok",
}
"""What a config.json calls our numbers, where it calls them otherwise and all families call them so."""


def checked(shape: plan.Shape, names: Mapping[str, str] = types.MappingProxyType({})) -> plan.Shape:
    """The shape itself when its numbers can be a transformer's; ShapeError names the key otherwise, as it is
    called in the file that `names` is of.
    """

    def named(key: str) -> str:
        return names.get(key, key)

    for key, choices in CHOICES.items():
        if getattr(shape, key) not in choices:
            raise ShapeError(f"{named(key)} `{getattr(shape, key)}` is not one of {', '.join(choices)}", key)
    for key, (low, high) in LIMITS.items():
        value = getattr(shape, key)
        if not low <= value <= high:
            raise ShapeError(f"{named(key)} {value:g} is not between {low:g} and {high:g}", key)
    if shape.heads % shape.kv_groups:
        message = (
            f"{named('heads')} {shape.heads} is not a multiple of {named('kv_groups')} {shape.kv_groups}"
        )
        raise ShapeError(message, "kv_groups")
    if shape.position == "rope" and int(shape.head_dim * shape.rope_percent) % 2:
        raise ShapeError(f"head_dim {shape.head_dim} must be even for rotary positions", "head_dim")
    if shape.experts and not 1 <= shape.experts_per_token <= shape.experts:
        each, of = named("experts_per_token"), named("experts")
        message = f"{each} {shape.experts_per_token} is not between 1 and {of} {shape.experts}"
        raise ShapeError(message, "experts_per_token")
    if shape.experts and not shape.expert_ffn:
        raise ShapeError(f"experts need {named('expert_ffn')}, the width of one expert", "expert_ffn")
    return shape
