"""Bytes of activations: what layers keep for their backward pass, how often, and what the head needs.

The tensors themselves stand in two tables: `te_layer`, Transformer Engine's fused layers, and `local_layer`,
Megatron's plain layers with our norms and attention, which keep many more. Sources beyond theirs:
arXiv:2205.05198 (sequence parallelism, recomputation), arXiv:2104.04473 (interleaved schedule).
"""

from __future__ import annotations

from dataclasses import dataclass

from specc.plan import Layout
from specc.planner import local_layer, te_layer
from specc.planner.kept import ROUTED, Kept, bytes_per_rank, remaining
from specc.planner.recompute import USUAL, Recompute
from specc.planner.shapes import padded_vocab
from specc.planner.workload import Workload

IMBALANCE = 1.1
"""Expert activations of the most loaded rank over the mean: 1.1 to 1.3 are seen in uneven loads."""


def tokens_per_rank(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Tokens of one micro-batch that a context-parallel rank has."""
    return work.seq_length * work.texts * micro_batch / layout.cp


def layer_table(work: Workload, layout: Layout) -> list[Kept]:
    """Every tensor that one decoder layer makes for its backward pass, kept or computed again."""
    return (local_layer if work.implementation == "local" else te_layer).table(work, layout)


def mode(work: Workload, recompute: str) -> Recompute:
    """The kind of recomputation with what the workload says about its layers and modules."""
    return Recompute(recompute, work.recompute_layers, work.recompute_modules or USUAL)


def layer_activations(work: Workload, layout: Layout, micro_batch: int, recompute: str = "none") -> float:
    """Bytes that one decoder layer keeps for the backward pass of one micro-batch, experts evenly loaded;
    under full recomputation its input, which only one of the layers computed again keeps.
    """
    if recompute == "full":
        return hidden_bytes(work, layout, micro_batch)
    table = remaining(layer_table(work, layout), mode(work, recompute))
    return _on_a_rank(table, work, layout, micro_batch)


def _on_a_rank(table: list[Kept], work: Workload, layout: Layout, micro_batch: int, only: str = "") -> float:
    positions = work.seq_length / layout.cp
    rows = tokens_per_rank(work, layout, micro_batch) / positions
    return bytes_per_rank(table, layout, rows, positions, only=only)


def hidden_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes of the hidden state between two layers on one rank."""
    whole = tokens_per_rank(work, layout, micro_batch) * work.shape.hidden * work.element_bytes
    return whole / layout.tp if layout.sequence_parallel else whole


@dataclass(frozen=True)
class ChunkBytes:
    """Bytes that the layers of a stage's chunks keep for their backward passes."""

    mode: Recompute
    plain: float  # per layer that is not computed again as a whole
    again: float  # per layer that is
    shared: float  # once per chunk, by all those that are and all micro-batches

    def held(self, layers: float, in_flight: int = 1, chunks: int = 1) -> float:
        """Of so many micro-batches, each in one of a stage's `chunks` of so many decoder layers."""
        again = self.mode.whole_layers(layers)
        kept = in_flight * (again * self.again + (layers - again) * self.plain)
        return kept + (chunks * self.shared if again else 0.0)


NOTHING = ChunkBytes(Recompute(), 0.0, 0.0, 0.0)
"""What layers keep where nothing is trained."""


def chunk_bytes(work: Workload, layout: Layout, micro_batch: int, recompute: str) -> ChunkBytes:
    """What a chunk keeps, by its number of layers."""
    kind = "none" if recompute == "full" else recompute
    return ChunkBytes(
        mode(work, recompute),
        layer_activations(work, layout, micro_batch, kind),
        hidden_bytes(work, layout, micro_batch),
        _frequencies(work, layout),
    )


def _frequencies(work: Workload, layout: Layout) -> float:
    """Bytes of rotary angles, fp32, which layers computed again share; the others keep sines of their own."""
    shape = work.shape
    if work.implementation != "local" or shape.position != "rope":
        return 0.0
    return 4 * int(shape.head_dim * shape.rope_percent) * work.seq_length / layout.cp


def input_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes that the embedding on the first stage keeps of one micro-batch: 64-bit tokens and positions, and
    under TP which tokens are another rank's.
    """
    each = 8 + (8 if work.shape.position == "learned" else 0) + (1 if layout.tp > 1 else 0)
    return each * tokens_per_rank(work, layout, micro_batch)


def expert_imbalance(work: Workload, layout: Layout, micro_batch: int, recompute: str = "none") -> float:
    """Bytes per layer and micro-batch that the most loaded rank's experts keep above the mean."""
    if not work.shape.experts or recompute == "full":
        return 0.0
    table = remaining(layer_table(work, layout), mode(work, recompute))
    routed = _on_a_rank(table, work, layout, micro_batch, only=ROUTED)
    return (IMBALANCE - 1) * routed


def in_flight(layout: Layout, stage: int, micro_batches: int) -> int:
    """Micro-batches (of one chunk each) whose activations a stage holds at its worst moment.

    1F1B: min(m, p - r). Interleaved: min(m v, 2 (p - r - 1) + (v - 1) p + 1) chunks (2104.04473).
    """
    p, v = layout.pp, layout.vp
    if v == 1:
        return min(micro_batches, p - stage)
    return min(micro_batches * v, 2 * (p - stage - 1) + (v - 1) * p + 1)


def logit_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes of logits and loss on the last stage; nothing for a head that is not a language model's.

    Megatron's vocabulary-parallel cross entropy keeps the logits and an fp32 softmax, an actor's loss
    another fp32 copy for the entropy. Our log-probabilities go block by block and put the gradient in the
    logits' place. Generation makes the logits of the last position only, in fp32 for sampling.
    """
    if work.head != "language":
        return 0.0
    rows = micro_batch if work.generates else tokens_per_rank(work, layout, micro_batch)
    copies = 0 if work.framework == "runtime" and work.trains else 8 if work.phase == "actor" else 4
    return (work.element_bytes + copies) * rows * padded_vocab(work.shape.vocab, layout.tp) / layout.tp


LOSS = 4 + 8 + 1 + 4
"""Bytes per token that our loss keeps beside the logits: log-sum, label, whether it is this rank's, mask."""


def head_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes that the last stage keeps beside its layers and logits: of the final norm, the head, the loss."""
    kind = local_layer if work.implementation == "local" else te_layer
    norm = _on_a_rank(kind.final_norm(work), work, layout, micro_batch)
    if work.framework != "runtime" or not work.trains:
        return norm
    tokens = tokens_per_rank(work, layout, micro_batch)
    if work.head == "language":
        return norm + LOSS * tokens
    copy = (4 - work.element_bytes) * work.shape.hidden  # our heads keep an fp32 copy in the output's place
    return norm + copy * tokens * (1 / layout.tp if layout.sequence_parallel else 1.0)


def ring_bytes(work: Workload, layout: Layout, micro_batch: int) -> float:
    """Bytes that ring attention over CP holds at once: two rounds of K and V with their gradients, and the
    output in fp32 with which the rounds are summed up.
    """
    if layout.cp == 1:
        return 0.0
    shape, t = work.shape, layout.tp
    keys = 2 * 2 * work.element_bytes * max(shape.kv_groups, t) * shape.head_dim / t
    sums = 4 * shape.heads * (shape.head_dim + 1) / t
    return tokens_per_rank(work, layout, micro_batch) * (keys + sums)
