"""How a role's GPUs share the work. What is left out is the planner's to choose."""

from __future__ import annotations

from typing import Literal

from specc.spec.section import Many, Section, placement

Module = Literal["core_attn", "layernorm", "mlp", "moe", "moe_act", "shared_experts", "mla_up_proj"]


class Parallel(Section):
    """Sizes of the parallel groups; data parallelism is what remains of the GPUs."""

    tp: int | None = placement(None, ge=1, le=10**4)
    """Tensor parallel size: GPUs that share each layer."""

    pp: int | None = placement(None, ge=1, le=10**4)
    """Pipeline parallel size: groups of GPUs that hold the layers one after another."""

    vp: int | None = placement(None, ge=1, le=10**4)
    """Pieces per pipeline stage of the interleaved schedule; 1 for the plain one."""

    cp: int | None = placement(None, ge=1, le=10**4)
    """Context parallel size: GPUs that share each row's tokens."""

    ep: int | None = placement(None, ge=1, le=10**4)
    """Expert parallel size: GPUs that share the experts."""

    etp: int | None = placement(None, ge=1, le=10**4)
    """Tensor parallel size within an expert."""

    stage_layers: Many[int] | None = placement(None)
    """Layers of each pipeline stage, first to last, where they shall not be dealt evenly."""

    recompute: Literal["none", "selective", "full"] | None = placement(None)
    """Activations that are computed again in the backward pass instead of kept."""

    recompute_layers: int | None = placement(None, ge=1, le=10**4)
    """Under full recomputation: layers of each pipeline stage that are computed again; all when not said."""

    recompute_modules: Many[Module] | None = placement(None)
    """Under selective recomputation: parts of each layer that are computed again; left out, `core_attn`."""
