"""What one role does, apart from where it is put: the model, the batch, the phase and the number formats."""

from __future__ import annotations

from dataclasses import dataclass

from specc.plan import Shape

PHASES = ("pretrain", "sft", "reward", "actor", "critic", "generate")
PRECISIONS = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4", "fp32")
NARROW = ("fp8", "mxfp8", "nvfp4")
"""Formats of a product's operands only: one scale per tensor or block, per 32 numbers, per 16."""

ENGINES = ("megatron", "trtllm", "vllm")
REFERENCES = ("none", "swap", "resident")


@dataclass(frozen=True)
class Workload:
    """One role's work. Everything that memory and time depend on, but the layout."""

    shape: Shape
    seq_length: int
    global_batch: int
    texts: int = 1  # of `seq_length` tokens in a row: a comparison has two
    trains: bool = True
    head: str = "language"  # language | scalar | attributes
    precision: str = "bf16"  # one of PRECISIONS
    implementation: str = "te"  # te | local
    distributed_optimizer: bool = True
    gradient_bytes: int = 4  # main gradients are fp32; 2 when they are reduced in bf16
    dropout: bool = False
    flash: bool = True  # attention that keeps no seq x seq matrix
    packing: bool = False  # several rows share one of seq_length
    phase: str = "sft"  # one of PHASES
    moment_bytes: int = 8  # both of Adam's moments of a parameter: fp32; 4 in bf16, 2 in fp8
    master_bytes: int = 4  # of a 16-bit parameter's fp32 copy; 2 where only what bf16 cuts off is kept
    narrow_weights: bool = False  # weights lie in the narrow format alone (fp8 parameter gathering)
    optimizer_instances: int = 1  # copies of the distributed optimizer, each over its share of the ranks
    offload: str = "none"  # none | optimizer: Adam's moments in the host's memory
    offload_fraction: float = 1.0  # of them, when they are offloaded
    mtp_layers: int = 0  # layers after the last one, that predict tokens further ahead
    framework: str = "runtime"  # runtime | megatron: whose loss and whose weight gradients
    recompute_layers: int = 0  # under full recomputation, per chunk; 0: all of them
    recompute_modules: tuple[str, ...] = ()  # under selective recomputation; none said: the attention's core
    engine: str = "megatron"  # one of ENGINES: what generates; the others hold weights of their own
    engine_resident: bool = True  # a second engine's weights stay while the role trains
    engine_resharded: bool = True  # a second engine is cut by TP alone, whatever the pipeline
    folds: bool = False  # the training weights generate without pipeline stages: the others' are gathered
    passes: int = 0  # over each row of a step without gradients: what a reference, and others, are asked
    reference: str = "none"  # one of REFERENCES: frozen weights of the same shape, in the host or beside
    beside: float = 0.0  # bytes that models of other roles in the same processes hold on each GPU
    offload_optimizer_in_rollout: bool = False  # Adam's state is in the host while nothing is trained
    rollout_micro_batch: int = 0  # rows generated at once; 0: the role does not generate
    prompt_tokens: int = 0  # at most, of a row that is generated
    response_tokens: int = 0
    samples: int = 1  # responses to a prompt, of a role that only generates; its batch counts responses
    expected_tokens: float = 0.0  # of a response on average; 0: half of the most
    expected_prompt_tokens: float = 0.0  # 0: a quarter of the most

    time_factor: float = 1.0  # what runs on this cluster taught: on predicted seconds,
    memory_factor: float = 1.0  # and on bytes inside the allocator

    @property
    def element_bytes(self) -> int:
        """Of a weight in a product and of an activation, fp8's own tensors aside."""
        return 4 if self.precision == "fp32" else 2

    @property
    def narrow(self) -> bool:
        """Whether products take operands of a byte or less, which are made from bf16 each time."""
        return self.precision in NARROW

    @property
    def generates(self) -> bool:
        return self.phase == "generate"

    @property
    def rolls_out(self) -> bool:
        """Whether the role does more than its step, which may hold more than the step does."""
        return self.rollout_micro_batch > 0 or self.only_generates

    @property
    def only_generates(self) -> bool:
        """Whether it is a role of a plan whose steps are responses to prompts, and nothing else."""
        return self.generates and self.response_tokens > 0
