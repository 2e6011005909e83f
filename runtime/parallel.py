"""Process groups from a layout: who works with whom on which part of the model.

A process learns its global rank from torchrun's environment; `start` makes Megatron's groups for the
layout and returns one frozen value that says where this process sits. `str(parallel)` is the line
every log begins with: `TP(1)-PP(0)-DP(2)-Rank(13)`.
"""

from __future__ import annotations

import datetime
import os
import random
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.process_groups_config import ProcessGroupCollection

from specc.plan import Layout

# Said by Megatron on every rank of every run, about its own use of torch; nobody can act on them.
_KNOWN_WARNINGS = (
    r"full scope is deprecated",
    r"`torch\.distributed\.\w+` is deprecated",
    r"The \.grad attribute of a Tensor that is not a leaf",
    r"When using sequence parallelism it is recommended",
)


class LayoutError(ValueError):
    """The processes that were started do not fit the layout."""


@dataclass(frozen=True)
class Parallel:
    """This process's place in the layout."""

    layout: Layout
    rank: int
    world: int
    device: torch.device
    backend: str
    tp_rank: int
    pp_rank: int
    dp_rank: int
    cp_rank: int
    ep_rank: int
    etp_rank: int
    groups: ProcessGroupCollection = field(repr=False, compare=False)

    @property
    def is_first_stage(self) -> bool:
        return self.pp_rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pp_rank == self.layout.pp - 1

    @property
    def last_stage_rank(self) -> int:
        """Global rank that holds the last pipeline stage of this process's own pipeline."""
        return dist.get_process_group_ranks(self.groups.pp)[-1]

    def __str__(self) -> str:
        place = [f"TP({self.tp_rank})", f"PP({self.pp_rank})", f"DP({self.dp_rank})"]
        if self.layout.cp > 1:
            place.append(f"CP({self.cp_rank})")
        if self.layout.ep > 1:
            place.append(f"EP({self.ep_rank})")
        return "-".join([*place, f"Rank({self.rank})"])


def start(
    layout: Layout, backend: str, device: str, timeout_seconds: int = 1800, seed: int = 1234
) -> Parallel:
    """Join the other processes and make the groups of `layout`.

    `device` is `cpu` or `cuda`; `backend` is torch.distributed's (`gloo`, `nccl`). A collective that
    waits longer than `timeout_seconds` fails. LayoutError when the number of processes does not fit.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != layout.world_size:
        product = f"TP {layout.tp} x PP {layout.pp} x CP {layout.cp} x DP {layout.dp}"
        raise LayoutError(
            f"world size {world} is not {product} = {layout.world_size}; "
            f"start {layout.world_size} processes or compile for {world}"
        )
    for message in _KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    own_device = torch.device("cpu")
    if device == "cuda":
        own_device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own_device)
    if not dist.is_initialized():
        timeout = datetime.timedelta(seconds=timeout_seconds)
        dist.init_process_group(backend, timeout=timeout, device_id=own_device if device == "cuda" else None)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tp,
        pipeline_model_parallel_size=layout.pp,
        virtual_pipeline_model_parallel_size=layout.vp if layout.vp > 1 else None,
        context_parallel_size=layout.cp,
        expert_model_parallel_size=layout.ep,
        expert_tensor_parallel_size=layout.etp,
        distributed_timeout_minutes=max(timeout_seconds // 60, 1),
        create_gloo_process_groups=False,
    )
    seed_everything(seed)
    return Parallel(
        layout=layout,
        rank=dist.get_rank(),
        world=world,
        device=own_device,
        backend=backend,
        tp_rank=parallel_state.get_tensor_model_parallel_rank(),
        pp_rank=parallel_state.get_pipeline_model_parallel_rank(),
        dp_rank=parallel_state.get_data_parallel_rank(),
        cp_rank=parallel_state.get_context_parallel_rank(),
        ep_rank=parallel_state.get_expert_model_parallel_rank(),
        etp_rank=parallel_state.get_expert_tensor_parallel_rank() or 0,
        groups=ProcessGroupCollection.use_mpu_process_groups(),
    )


def seed_everything(seed: int) -> None:
    """Seed Python, numpy, torch and Megatron's tracker; tensor-parallel ranks get streams of their own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


def stop() -> None:
    """Leave the groups; safe to call more than once."""
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
