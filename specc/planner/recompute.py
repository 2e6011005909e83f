"""What the backward pass computes again instead of keeping: Megatron-core's modes as one value.

`none` keeps everything. `selective` keeps all but what the named parts of every layer make. `full` keeps
the inputs of layers only: of all of them, or (Megatron's `block`) of the first `layers` of every chunk
while the others keep everything.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("none", "selective", "full")

MODULES = ("core_attn", "layernorm", "mlp", "moe", "moe_act", "shared_experts", "mla_up_proj")
"""The parts of a layer, by Megatron-core's names."""

USUAL = ("core_attn",)
"""What Megatron-core computes again under `selective` when nothing is said."""


@dataclass(frozen=True)
class Recompute:
    """One mode; `layers` belongs to full, `modules` to selective."""

    kind: str = "none"  # one of KINDS
    layers: int = 0  # per chunk of a pipeline stage; 0: all of them
    modules: tuple[str, ...] = USUAL

    def drops(self, module: str) -> bool:
        """Whether what this part of a layer makes is made again."""
        return self.kind == "selective" and module in self.modules

    def whole_layers(self, held: float) -> float:
        """Of a chunk of `held` layers, how many are computed again as a whole."""
        if self.kind != "full":
            return 0
        return min(self.layers, held) if self.layers else held

    def __str__(self) -> str:
        if self.kind == "selective" and self.modules != USUAL:
            return f"selective ({', '.join(self.modules)})"
        if self.kind == "full" and self.layers:
            return f"full ({self.layers} layers)"
        return self.kind
