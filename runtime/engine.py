"""The engine: one model of the plan, trained or evaluated by Megatron's schedules.

This is the only file that knows Megatron's schedules, its data-parallel wrapper and its optimizer.
Outside, a model is four verbs: `forward_backward`, `optim_step`, `forward`, `evaluate`. Whatever the
layout, they do and return the same. `chunks` and `optimizer` are Megatron's own, for checkpoints and
for weights that come and go.

Losses are sums. The loss callable divides by a denominator of the whole step, known on every rank;
Megatron then only adds: over microbatches, over data-parallel ranks (gradient scaling 1), over the
rest. So a gradient depends neither on the size of a microbatch nor on the layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.mappings import gather_from_tensor_model_parallel_region
from torch import Tensor

from runtime import context, model
from runtime.attention import remember_segments
from runtime.batch import Batch
from runtime.offload import Offload
from runtime.parallel import Parallel
from runtime.shards import Shard, shards
from runtime.wanted import counted, wanted
from specc.plan import Role

Loss = Callable[[Tensor, Batch], tuple[Tensor, Mapping[str, Tensor | float]]]
"""`loss(output, batch)`: the sum over this microbatch divided by the step's denominator, and metrics that
add up over microbatches and ranks. The output of a language model is `logprobs_BT`, fp32: the
log-probability of label t at column t, 0 where the mask is. Of the other heads it is [B, T, outputs]."""

OUTPUTS = ("logprobs", "logits", "values")


class EngineError(RuntimeError):
    """A step cannot be done."""


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW. The learning rate comes with every step; biases and norms do not decay."""

    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip: float = 1.0  # the norm above which gradients are scaled down; 0: never


class Engine:
    """A model on this rank's share of the machine. Every method is a collective: all ranks call it."""

    def __init__(
        self, role: Role, parallel: Parallel, train: OptimizerSettings | None = None, seed: int = 1234
    ) -> None:
        self.role = role
        self.parallel = parallel
        self.settings = train
        self.steps = 0  # optimizer steps done
        self.stops: tuple[int, ...] = ()  # tokens of no probability where a batch's `early` is 1
        self.chunks = model.build(role, parallel, seed)
        self.config = self.chunks[0].config
        self._optimizer: Any = None
        self._wrapped: list[Any] = list(self.chunks)
        if train is None:
            for chunk in self.chunks:
                chunk.requires_grad_(False)
            return
        self._wrapped = [self._data_parallel(chunk, i) for i, chunk in enumerate(self.chunks)]
        self.config.finalize_model_grads_func = _finalize
        self._optimizer = get_megatron_optimizer(
            self._optimizer_config(train), self._wrapped, use_gloo_process_groups=False
        )
        self.offload = Offload(self._optimizers(), parallel.device)

    @property
    def optimizer(self) -> Any:
        """Megatron's, with its state on the device whatever waited on the host; None where nothing learns."""
        if self._optimizer is not None:
            self.offload.fetch()
        return self._optimizer

    def rest(self) -> None:
        """Nothing is trained for a while: Adam's state waits on the host, where the plan says so."""
        if self._optimizer is not None and self.role.offload_optimizer:
            self.offload.send()

    def forward_backward(
        self, microbatches: Sequence[Batch], loss: Loss, entropy: bool = False
    ) -> dict[str, float]:
        """Gradients of the sum of `loss` over all microbatches of all ranks, in place of earlier ones.

        With `entropy` the loss gets log-probabilities and entropies of the whole distribution, [B, T, 2].
        Returns `loss` and the metrics, summed over microbatches and data-parallel ranks, the same on
        every rank. `microbatches` are this rank's share; every rank has as many, of the same shape.
        """
        if self.optimizer is None:
            raise EngineError(f"role `{self.role.name}` was built without an optimizer, so it cannot train")
        for chunk in self._wrapped:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        for chunk in self.chunks:
            chunk.says_entropy = entropy
        try:
            sums = self._run(microbatches, loss, forward_only=False)
        finally:
            for chunk in self.chunks:
                chunk.says_entropy = False
        return self._summed(sums)

    def evaluate(self, microbatches: Sequence[Batch], loss: Loss) -> dict[str, float]:
        """What `forward_backward` returns, without gradients."""
        with torch.no_grad():
            return self._summed(self._run(microbatches, loss, forward_only=True))

    def forward(self, microbatches: Sequence[Batch], of: str = "logprobs") -> list[Tensor]:
        """The model's output for each of this rank's microbatches, without gradients.

        `of`: `logprobs` [B, T] fp32 of the labels, 0 where the mask is; `logits` [B, T, V] fp32 over the
        true vocabulary (for small models); `values` [B, T, outputs] of a head of numbers. The same on every
        tensor-parallel rank and pipeline stage.
        """
        if of not in OUTPUTS:
            raise EngineError(f"there is no output `{of}`; there are {', '.join(OUTPUTS)}")
        with torch.no_grad():
            outputs = self._run(microbatches, None, forward_only=True, of=of)
            return self._from_last_stage(outputs, microbatches, of)

    def optim_step(self, lr: float) -> dict[str, float]:
        """Clip the gradients and step; `grad_norm` is the norm before clipping.

        EngineError when the norm is not finite: nothing is updated then.
        """
        assert self.settings is not None
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            # Megatron marks what does not decay and leaves it to its scheduler to act on that
            group["weight_decay"] = self.settings.weight_decay * group["wd_mult"]
            if self.parallel.device.type == "cpu":  # torch's one pass over all state, not one for each term
                group["fused"] = True
        self.optimizer.prepare_grads()
        norm = float(self.optimizer.get_grad_norm())
        if not math.isfinite(norm):
            raise EngineError(
                f"gradient norm is {norm} at step {self.steps + 1}; nothing was updated, "
                f"use a lower learning rate or look at the data of this step"
            )
        if self.settings.clip > 0:
            for optimizer in self._optimizers():
                parameters = optimizer.get_parameters()
                clip_grad_by_total_norm_fp32(parameters, max_norm=self.settings.clip, total_norm=norm)
        self.optimizer.step_with_ready_grads()
        self.steps += 1
        return {"grad_norm": norm}

    def weights_changed(self) -> None:
        """Say that weights were written into `chunks`: the optimizer's fp32 copies follow."""
        if self.optimizer is not None:
            self.optimizer.reload_model_params()

    def named_gradients(self) -> Iterator[tuple[Shard, Tensor]]:
        """This rank's piece of every reduced gradient; a distributed optimizer has only a part of each."""
        for chunk in self.chunks:
            for shard, parameter in shards(chunk):
                yield shard, parameter.main_grad  # type: ignore[attr-defined]

    # -- inside: Megatron's schedules ------------------------------------------------------------

    def _run(self, microbatches: Sequence[Batch], loss: Loss | None, forward_only: bool, of: str = "") -> Any:
        """Run a schedule; what the last stage stored for each microbatch, in order."""
        self._refuse_what_does_not_run(microbatches)
        layout, cp_rank = self.parallel.layout, self.parallel.cp_rank
        lines, columns = microbatches[0].tokens_BT.shape
        # stages tell each other the shapes only where they differ
        shapes = {batch.tokens_BT.shape for batch in microbatches}
        self.config.variable_seq_lengths = len(shapes) > 1
        parts = [context.part(batch, cp_rank, layout.cp) for batch in microbatches]
        batches = [(part.to(self.parallel.device), _packed(part, self.parallel.device)) for part in parts]
        iterators = [iter(batches) for _ in self._wrapped]
        schedule = get_forward_backward_func()
        return schedule(
            forward_step_func=partial(self._forward_step, loss=loss, of=of),
            data_iterator=iterators if len(iterators) > 1 else iterators[0],
            model=self._wrapped if len(self._wrapped) > 1 else self._wrapped[0],
            num_microbatches=len(batches),
            seq_length=columns,
            micro_batch_size=lines,
            forward_only=forward_only,
        )

    def _refuse_what_does_not_run(self, microbatches: Sequence[Batch]) -> None:
        if not microbatches:
            raise EngineError("a step needs at least one microbatch on every rank")
        layout = self.parallel.layout
        if layout.vp > 1 and len(microbatches) % layout.pp:
            raise EngineError(
                f"an interleaved pipeline wants a multiple of PP {layout.pp} microbatches, "
                f"not {len(microbatches)}; fill up with empty ones or set vp to 1"
            )
        if layout.cp > 1 and any(batch.segments is not None for batch in microbatches):
            raise EngineError(
                f"packed lines cannot be cut over CP {layout.cp}; turn packing off or set cp to 1"
            )

    def _forward_step(
        self, iterator: Iterator[tuple[Batch, Any]], chunk: Any, loss: Loss | None, of: str
    ) -> tuple[Any, Any]:
        """Megatron's forward step: the output of a chunk, and how to make a loss of it on the last stage."""
        batch, packed = next(iterator)
        wants_logprobs = self.role.model.head == "language" and of in ("", "logprobs")
        own: Any = chunk.module if isinstance(chunk, DistributedDataParallel) else chunk
        says = wants_logprobs and own.post_process
        own.unreachable, own.wanted = None, wanted(batch.mask_BT) if says else None
        if self.stops and "early" in batch.extra:
            own.unreachable = self.stops, batch.extra["early"] > 0
        output = chunk(
            batch.tokens_BT,
            batch.positions_BT,
            None,
            labels=batch.labels_BT if wants_logprobs else None,
            packed_seq_params=packed,
        )
        output = counted(output, batch.mask_BT) if says else output
        return output, partial(_summed_loss, batch=batch, loss=loss) if loss else None

    def _summed(self, stored: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """Metrics of all microbatches and data-parallel ranks, on every rank and stage."""
        totals: dict[str, float] = {}
        if self.parallel.is_last_stage:
            names = sorted(stored[0])
            rows = torch.stack([torch.stack([row[name] for name in names]) for row in stored])
            sums = rows.sum(0)
            if self.parallel.groups.dp_cp.size() > 1:
                dist.all_reduce(sums, group=self.parallel.groups.dp_cp)
            totals = dict(zip(names, sums.tolist(), strict=True))
        if self.parallel.layout.pp > 1:
            box = [totals]
            dist.broadcast_object_list(
                box, self.parallel.last_stage_rank, group=self.parallel.groups.pp, device=self.parallel.device
            )
            totals = box[0]
        return totals

    def _from_last_stage(self, outputs: list[Tensor], batches: Sequence[Batch], of: str) -> list[Tensor]:
        if self.parallel.layout.cp > 1 and self.parallel.is_last_stage:
            outputs = [context.gathered(output, self.parallel.groups.cp) for output in outputs]
        if of == "logits" and self.parallel.is_last_stage:
            vocab = self.role.model.shape.vocab
            group = self.parallel.groups.tp
            outputs = [
                gather_from_tensor_model_parallel_region(output, group=group)[..., :vocab]
                .float()
                .contiguous()
                for output in outputs
            ]
        if self.parallel.layout.pp == 1:
            return outputs
        if not self.parallel.is_last_stage:
            outputs = [self._room_for(batch, of) for batch in batches]
        for output in outputs:
            dist.broadcast(output, self.parallel.last_stage_rank, group=self.parallel.groups.pp)
        return outputs

    def _room_for(self, batch: Batch, of: str) -> Tensor:
        size = list(batch.tokens_BT.shape)
        if of == "logits":
            size.append(self.role.model.shape.vocab)
        elif of == "values":
            size.append(model.head_outputs(self.role.model))
        return torch.empty(size, dtype=torch.float32, device=self.parallel.device)

    def _data_parallel(self, chunk: model.Model, index: int) -> DistributedDataParallel:
        return DistributedDataParallel(
            config=self.config,
            ddp_config=DistributedDataParallelConfig(
                grad_reduce_in_fp32=True,
                overlap_grad_reduce=False,
                use_distributed_optimizer=self.role.distributed_optimizer,
            ),
            module=chunk,
            disable_bucketing=index > 0,
        )

    def _optimizer_config(self, settings: OptimizerSettings) -> OptimizerConfig:
        return OptimizerConfig(
            optimizer="adam",
            lr=0.0,
            min_lr=0.0,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.betas[0],
            adam_beta2=settings.betas[1],
            adam_eps=settings.epsilon,
            clip_grad=settings.clip,
            bf16=self.role.precision == "bf16",
            params_dtype=self.config.params_dtype,
            use_distributed_optimizer=self.role.distributed_optimizer,
        )

    def _optimizers(self) -> list[Any]:
        return list(getattr(self._optimizer, "chained_optimizers", [self._optimizer]))


def _summed_loss(output: Tensor, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Megatron's loss function. The token count it wants is 0: nothing is left to divide."""
    value, metrics = loss(output, batch)
    stored = {
        name: torch.as_tensor(metric, dtype=torch.float64, device=output.device).detach()
        for name, metric in {"loss": value, **metrics}.items()
    }
    return value, torch.zeros((), dtype=torch.int, device=output.device), stored


def _finalize(chunks: list[Any], num_tokens: Any = None, **kwargs: Any) -> None:
    """Add the gradients up over ranks and leave the scale alone."""
    finalize_model_grads(chunks, None, **kwargs)


def _packed(batch: Batch, device: torch.device) -> PackedSeqParams | None:
    """Megatron's description of a packed line that is still on the host; RoPE restarts in every segment."""
    if batch.segments is None:
        return None
    bounds = batch.segments.to(device)
    longest = int((batch.segments[1:] - batch.segments[:-1]).max())
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
    remember_segments(packed, batch.segments)
    return packed
