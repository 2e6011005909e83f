"""The words a family's table is written in, and what they mean in rows.

An entry says: this Megatron parameter is made of these Hugging Face tensors. How the tensors lie in
it is a list of row ranges, from top to bottom; import, export and any cut over tensor-parallel
ranks follow from that list alone:

    copy     the tensor as it is
    gate_up  gate above up
    qkv      for each KV group its query heads, its key, its value
    rows past the end (vocabulary padding) are zero

A dimension is written as a word: `hidden`, `ffn`, `q` (heads * head_dim), `kv` (groups * head_dim),
`head_dim`, `vocab`, `outputs` (of a head of numbers), `experts`, `expert_ffn`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runtime.problem import Problem
from specc.plan import Model, Shape

HEAD, SCORE = "output_layer.weight", "score.weight"
"""The last layer, here and in Hugging Face's `...ForSequenceClassification`, which has no bias there."""

Segment = tuple[int, int, int]
"""Which Hugging Face tensor of the entry, its first row, the row past its last."""


@dataclass(frozen=True)
class Entry:
    """One Megatron parameter. Names hold {layer} and {expert} where there are many."""

    megatron: str  # as Megatron's local layers name it
    hf: tuple[str, ...]
    sizes: tuple[tuple[str, ...], ...]  # of each Hugging Face tensor, in the words above
    op: str = "copy"
    te: str = ""  # as Transformer Engine's layers name it, where that differs


@dataclass(frozen=True)
class Family:
    """A family of models: its table, and what its config.json says beyond the common numbers."""

    name: str
    table: Callable[[Shape], list[Entry]]
    architecture: Callable[[Shape], tuple[str, str]]  # class in transformers, model_type
    config: Callable[[Shape], dict[str, Any]] = lambda shape: {}


def families() -> list[str]:
    """Names of the families that have a file here."""
    package = importlib.import_module("runtime.hf")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [
        name for name in names if name not in ("exports", "fetch", "imports", "source", "table", "config")
    ]


def family(name: str) -> Family:
    """The family of that name; Problem R031 lists the others when there is none."""
    known = families()
    if name not in known:
        raise Problem(
            "R031",
            f"models of family `{name}` cannot be read from or written as a Hugging Face folder; "
            f"it is done for {', '.join(known)}",
        )
    return importlib.import_module(f"runtime.hf.{name}").FAMILY


# --- parts that tables are made of -----------------------------------------------------------------


def copy(megatron: str, hf: str, *sizes: str, te: str = "") -> Entry:
    return Entry(megatron, (hf,), (sizes,), te=te)


def embeddings(shape: Shape) -> list[Entry]:
    """The input embedding, the last norm, and the output layer where it is not the embedding again."""
    entries = [
        copy("embedding.word_embeddings.weight", "model.embed_tokens.weight", "vocab", "hidden"),
        copy("decoder.final_layernorm.weight", "model.norm.weight", "hidden"),
    ]
    if not shape.tied:
        entries.append(copy("output_layer.weight", "lm_head.weight", "vocab", "hidden"))
    return entries


def attention(shape: Shape) -> list[Entry]:
    """Norms and attention of a layer, with the biases and the query and key norms that the shape has."""
    ours, theirs = "decoder.layers.{layer}.", "model.layers.{layer}."
    att, hf = f"{ours}self_attention.", f"{theirs}self_attn."
    fused = "" if shape.experts else f"{ours}mlp.linear_fc1.layer_norm_weight"
    entries = [
        copy(
            f"{ours}input_layernorm.weight", f"{theirs}input_layernorm.weight", "hidden",
            te=f"{att}linear_qkv.layer_norm_weight",
        ),
        _qkv(f"{att}linear_qkv.weight", hf, "weight", ("hidden",)),
        copy(f"{att}linear_proj.weight", f"{hf}o_proj.weight", "hidden", "q"),
        copy(
            f"{ours}pre_mlp_layernorm.weight", f"{theirs}post_attention_layernorm.weight", "hidden", te=fused
        ),
    ]  # fmt: skip
    if shape.qkv_bias or shape.linear_bias:
        entries.append(_qkv(f"{att}linear_qkv.bias", hf, "bias", ()))
    if shape.linear_bias:
        entries.append(copy(f"{att}linear_proj.bias", f"{hf}o_proj.bias", "hidden"))
    if shape.qk_norm:
        entries.append(copy(f"{att}q_layernorm.weight", f"{hf}q_norm.weight", "head_dim"))
        entries.append(copy(f"{att}k_layernorm.weight", f"{hf}k_norm.weight", "head_dim"))
    return entries


def _qkv(megatron: str, hf: str, what: str, columns: tuple[str, ...]) -> Entry:
    names = tuple(f"{hf}{part}_proj.{what}" for part in "qkv")
    return Entry(megatron, names, (("q", *columns), ("kv", *columns), ("kv", *columns)), op="qkv")


def gated_mlp(shape: Shape) -> list[Entry]:
    """The dense MLP of a layer: gate and up in one, then down."""
    ours, hf = "decoder.layers.{layer}.mlp.", "model.layers.{layer}.mlp."
    entries = gated(ours, f"{hf}gate_proj", f"{hf}up_proj", f"{hf}down_proj", "ffn")
    if shape.linear_bias:
        both = (f"{hf}gate_proj.bias", f"{hf}up_proj.bias")
        entries.append(Entry(f"{ours}linear_fc1.bias", both, (("ffn",), ("ffn",)), op="gate_up"))
        entries.append(copy(f"{ours}linear_fc2.bias", f"{hf}down_proj.bias", "hidden"))
    return entries


def gated(ours: str, gate: str, up: str, down: str, width: str) -> list[Entry]:
    """One gated MLP, dense or an expert's, `width` wide."""
    both = (f"{gate}.weight", f"{up}.weight")
    size = (width, "hidden")
    return [
        Entry(f"{ours}linear_fc1.weight", both, (size, size), op="gate_up"),
        copy(f"{ours}linear_fc2.weight", f"{down}.weight", "hidden", width),
    ]


def experts(hf: str, gate: str, up: str, down: str) -> list[Entry]:
    """Router and experts of a layer; `hf` is their prefix, the rest are an expert's three matrices."""
    ours = "decoder.layers.{layer}.mlp."
    each, theirs = f"{ours}experts.local_experts.{{expert}}.", f"{hf}experts.{{expert}}."
    router = copy(f"{ours}router.weight", f"{hf}gate.weight", "experts", "hidden")
    return [router, *gated(each, f"{theirs}{gate}", f"{theirs}{up}", f"{theirs}{down}", "expert_ffn")]


# --- what a table means for one shape --------------------------------------------------------------

_NUMBERS = re.compile(r"(?<=\.layers\.)\d+|(?<=\.local_experts\.)\d+")


def head_outputs(model: Model) -> int:
    """Numbers that a head gives in place of the vocabulary; 0 for a language model."""
    return 0 if model.head == "language" else max(len(model.attributes), 1)


class Layout:
    """A family's table for one shape: from a parameter's whole name to tensors and rows.

    With `outputs` the last layer is a head of so many numbers.
    """

    def __init__(self, shape: Shape, outputs: int = 0) -> None:
        self.shape, self.outputs = shape, outputs
        self.family = family(shape.family)
        self.entries = self.family.table(shape)
        if outputs:
            body = [entry for entry in self.entries if entry.megatron != HEAD]
            self.entries = [*body, copy(HEAD, SCORE, "outputs", "hidden")]
        self._by_name = {e.megatron: e for e in self.entries} | {e.te: e for e in self.entries if e.te}
        self._words = {
            "hidden": shape.hidden,
            "ffn": shape.ffn,
            "q": shape.heads * shape.head_dim,
            "kv": shape.kv_groups * shape.head_dim,
            "head_dim": shape.head_dim,
            "vocab": shape.vocab,
            "outputs": outputs,
            "experts": shape.experts,
            "expert_ffn": shape.expert_ffn or shape.ffn,
        }

    def tensors_of(self, name: str) -> tuple[tuple[str, ...], Entry]:
        """The Hugging Face tensors that make up the parameter of that (whole) name."""
        if self.shape.tied and name == HEAD and not self.outputs:
            name = "embedding.word_embeddings.weight"
        numbers = _NUMBERS.findall(name)
        entry = self._by_name.get(_pattern(name))
        if entry is None:
            raise Problem(
                "R031", f"parameter `{name}` has no counterpart in the table of family `{self.shape.family}`"
            )
        places = dict(zip(("layer", "expert"), numbers, strict=False))
        return tuple(hf.format(**places) for hf in entry.hf), entry

    def size(self, entry: Entry, which: int) -> tuple[int, ...]:
        """Rows (and columns) of one of the entry's tensors."""
        return tuple(self._words[word] for word in entry.sizes[which])

    def segments(self, entry: Entry) -> tuple[Segment, ...]:
        """How the rows of the entry's tensors lie in the whole parameter, from top to bottom."""
        if entry.op != "qkv":
            return tuple((i, 0, self.size(entry, i)[0]) for i in range(len(entry.hf)))
        width = self.shape.head_dim
        queries = self.shape.heads // self.shape.kv_groups * width
        rows: list[Segment] = []
        for group in range(self.shape.kv_groups):
            rows.append((0, group * queries, (group + 1) * queries))
            rows += [(i, group * width, (group + 1) * width) for i in (1, 2)]
        return tuple(rows)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Every tensor that a checkpoint of this shape holds, with its size."""
        for entry in self.entries:
            for which, hf in enumerate(entry.hf):
                for layer in range(self.shape.layers if "{layer}" in hf else 1):
                    for expert in range(self.shape.experts if "{expert}" in hf else 1):
                        yield hf.format(layer=layer, expert=expert), self.size(entry, which)


def _pattern(name: str) -> str:
    name = re.sub(r"(?<=\.layers\.)\d+", "{layer}", name)
    return re.sub(r"(?<=\.local_experts\.)\d+", "{expert}", name)


def within(segments: tuple[Segment, ...], first: int, last: int) -> Iterator[Segment]:
    """The parts of the segments in rows [first, last) of the whole; nothing for rows past the end."""
    at = 0
    for which, start, stop in segments:
        low, high = max(first, at), min(last, at + stop - start)
        if low < high:
            yield which, start + low - at, start + high - at
        at += stop - start
