"""A GPT model of Megatron-core from a role of the plan.

`build` gives the chunks this rank holds. Initial weights are the same for every layout: each whole
tensor is drawn on the CPU from a generator seeded by the seed and the tensor's name, one at a time,
and cut to this rank's piece.

`padded_vocab` does not depend on the layout either, as long as TP divides 128, so a checkpoint has
the same shapes everywhere. The padding's rows are zero and its logits never count.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from torch import Tensor

from runtime import recompute
from runtime.attention import Attention
from runtime.feed_forward import put_ours_in
from runtime.logprobs import token_logprobs, token_logprobs_and_entropy
from runtime.norm import Norm
from runtime.parallel import Parallel
from runtime.shards import Shard, shards
from runtime.wanted import picked, put_back, whole_lines
from specc import plan
from specc.plan import Layout, Role, Shape

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_OUTPUT_PROJECTIONS = ("self_attention.linear_proj.weight", "linear_fc2.weight")

OUT_OF_REACH = -1e30
"""A logit of no mass. Not infinite: 0 times it is 0, as the entropy wants."""


class ModelError(ValueError):
    """The model cannot be built as planned."""


class Head(torch.nn.Module):
    """A value per token in place of the vocabulary: hidden -> `outputs` numbers.

    Its weight and its product are fp32 whatever the rest is: scores differ by little, and it is small.
    """

    def __init__(self, config: TransformerConfig, outputs: int, tp_group: Any) -> None:
        super().__init__()
        self.tp_group = tp_group
        self.sequence_parallel = config.sequence_parallel
        self.weight = torch.nn.Parameter(torch.zeros(outputs, config.hidden_size))
        # under sequence parallelism each rank sees its part of the sequence, so gradients are added up
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor, **unused: Any) -> tuple[Tensor, None]:
        """[s, b, hidden] -> [s, b, outputs] fp32, the whole sequence on every rank."""
        values = F.linear(hidden.float(), self.weight)
        if self.sequence_parallel:
            values = gather_from_sequence_parallel_region(
                values, tensor_parallel_output_grad=False, group=self.tp_group
            )
        return values, None


class Model(GPTModel):
    """Megatron's GPT model with a head of the plan.

    Called with labels, a language model gives their log-probabilities [B, T] in fp32 on the last
    stage, or those and the entropies [B, T, 2] when it is to say them too; without, its logits. The other
    heads give [B, T, outputs].
    """

    says_entropy = False
    unreachable: tuple[tuple[int, ...], Tensor] | None = None
    """Tokens that could not be drawn, and where [B, T] bool: their probability there is 0."""
    wanted: Tensor | None = None
    """The columns whose labels count, flat in [T, B]: the others' log-probabilities are left out and 0."""

    def __init__(self, role: Role, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = role.model.head
        self.true_vocab = role.model.shape.vocab
        if self.head != "language" and self.post_process:
            self.output_layer = Head(self.config, head_outputs(role.model), self.tp_group)

    def _postprocess(self, hidden_states: Tensor, *args: Any, labels: Tensor, **kwargs: Any) -> Tensor:
        if self.wanted is None or labels is None or not self.post_process:
            return super()._postprocess(hidden_states, *args, labels=labels, **kwargs)
        own = labels.transpose(0, 1).flatten()[self.wanted].unsqueeze(0)
        hidden = picked(hidden_states, self.wanted, self.output_layer)
        with whole_lines(self.output_layer):
            found = super()._postprocess(hidden, *args, labels=own, **kwargs)
        return put_back(found, self.wanted, labels.shape)

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Log-probabilities [B, T] of labels [B, T], from this rank's columns of the logits [T, B, V]."""
        group: Any = self.tp_group
        if self.unreachable is not None:
            tokens, where_BT = self.unreachable
            if self.wanted is not None:
                where_BT = where_BT.transpose(0, 1).flatten()[self.wanted].unsqueeze(0)
            logits = without(logits, tokens, where_BT, first=group.rank() * logits.size(-1))
        if self.says_entropy:
            both = token_logprobs_and_entropy(logits, labels.transpose(0, 1), self.true_vocab, group)
            return torch.stack(both, dim=-1).transpose(0, 1).contiguous()
        logprobs_TB = token_logprobs(logits, labels.transpose(0, 1), self.true_vocab, group)
        return logprobs_TB.transpose(0, 1).contiguous()


def without(logits: Tensor, tokens: tuple[int, ...], where_BT: Tensor, first: int) -> Tensor:
    """Logits [T, B, columns] of the vocabulary from `first` on, in place without the mass of some tokens."""
    for token in tokens:
        if first <= token < first + logits.size(-1):
            logits[..., token - first].masked_fill_(where_BT.transpose(0, 1), OUT_OF_REACH)
    return logits


def build(role: Role, parallel: Parallel, seed: int = 1234, drawn: bool = True) -> list[Model]:
    """The model chunks of this rank, with initial weights if they are to be `drawn`; one unless the pipeline
    interleaves.
    """
    config = transformer_config(role)
    chunks = [_chunk(role, config, parallel, v) for v in range(role.layout.vp)]
    for chunk in chunks if drawn else []:
        initialise(chunk, role.model.shape, seed)
    return [chunk.to(device=parallel.device) for chunk in chunks]


def head_outputs(model: plan.Model) -> int:
    """Numbers per token of a head that is not the language model's."""
    return len(model.attributes) if model.head == "attributes" else 1


def padded_vocab(shape: Shape, layout: Layout) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of 128 and of TP."""
    multiple = math.lcm(128, layout.tp)
    return -(-shape.vocab // multiple) * multiple


def stage_layers(shape: Shape, layout: Layout) -> tuple[int, ...]:
    """Decoder layers of chunk v of stage p at index v * pp + p."""
    parts = layout.pp * layout.vp
    if layout.stage_layers:
        if len(layout.stage_layers) != parts or sum(layout.stage_layers) != shape.layers:
            raise ModelError(
                f"stage_layers {list(layout.stage_layers)} does not deal {shape.layers} layers "
                f"to PP {layout.pp} x VP {layout.vp}; give {parts} numbers that add up to {shape.layers}"
            )
        return layout.stage_layers
    if shape.layers % parts:
        raise ModelError(
            f"{shape.layers} layers do not divide into PP {layout.pp} x VP {layout.vp} = {parts} parts; "
            f"set stage_layers"
        )
    return (shape.layers // parts,) * parts


def transformer_config(role: Role) -> TransformerConfig:
    """Megatron's config for a role: every number from the shape and the layout."""
    shape, layout = role.model.shape, role.layout
    if shape.experts and layout.tp > 1 and not layout.sequence_parallel:
        raise ModelError(f"experts under TP {layout.tp} need sequence parallelism; set sequence_parallel")
    if shape.experts and layout.ep == 1 and layout.etp != layout.tp:
        # Megatron would add their gradients up over data-parallel ranks alone
        raise ModelError(
            f"experts need ETP {layout.tp} under TP {layout.tp} and EP 1; set etp, or a larger ep"
        )
    te = role.implementation == "te"
    if te:
        _require_transformer_engine()
    return TransformerConfig(
        **_shape_fields(shape),
        **_layout_fields(shape, layout, role.precision),
        **recompute.fields(role),
        **(_expert_fields(shape) if shape.experts else {}),
        # the sum of a step's losses is divided once, by the caller; Megatron divides by nothing
        calculate_per_token_loss=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        # weights are drawn by `initialise`; Megatron still marks how each is cut
        init_method=_left_as_is,
        output_layer_init_method=_left_as_is,
        embedding_init_method=_left_as_is,
        bias_activation_fusion=te and shape.activation == "swiglu",
        bias_dropout_fusion=te,
        masked_softmax_fusion=False,
        apply_rope_fusion=te,
        persist_layer_norm=te,
        gradient_accumulation_fusion=False,
    )


def _shape_fields(shape: Shape) -> dict[str, Any]:
    activation, gated = _ACTIVATIONS[shape.activation]
    return {
        "num_layers": shape.layers,
        "hidden_size": shape.hidden,
        "ffn_hidden_size": shape.ffn,
        "num_attention_heads": shape.heads,
        "num_query_groups": shape.kv_groups,
        "kv_channels": shape.head_dim,
        "normalization": "RMSNorm" if shape.norm.startswith("rmsnorm") else "LayerNorm",
        "layernorm_zero_centered_gamma": shape.norm.endswith("_1p"),
        "layernorm_epsilon": shape.norm_epsilon,
        "activation_func": activation,
        "gated_linear_unit": gated,
        "add_bias_linear": shape.linear_bias,
        "add_qkv_bias": shape.qkv_bias,
        "qk_layernorm": shape.qk_norm,
        # Megatron's window counts the tokens to the left, ours and Hugging Face's the own one too
        "window_size": (shape.sliding_window - 1, 0) if shape.sliding_window else None,
    }


def _layout_fields(shape: Shape, layout: Layout, precision: str) -> dict[str, Any]:
    dtype = DTYPES[precision]
    return {
        "tensor_model_parallel_size": layout.tp,
        "pipeline_model_parallel_size": layout.pp,
        "pipeline_model_parallel_layout": _pipeline(shape, layout) if layout.pp > 1 else None,
        "context_parallel_size": layout.cp,
        "expert_model_parallel_size": layout.ep,
        "expert_tensor_parallel_size": layout.etp,
        "sequence_parallel": layout.sequence_parallel and layout.tp > 1,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "deallocate_pipeline_outputs": layout.pp > 1,
        # In one batch, sends of activations and gradients to the same rank are told apart by order alone,
        # and where PP is 2 an interleaved pipeline sends both to it: gradients were wrong without a word.
        "batch_p2p_comm": layout.vp == 1,
        # overlapped sends on gloo read an output after Megatron has freed it
        "overlap_p2p_comm": False,
        "bf16": precision == "bf16",
    }


def _pipeline(shape: Shape, layout: Layout) -> list[list[str]]:
    rows = [["decoder"] * count for count in stage_layers(shape, layout)]
    rows[0].insert(0, "embedding")
    rows[-1].append("loss")
    return rows


def _expert_fields(shape: Shape) -> dict[str, Any]:
    return {
        "num_moe_experts": shape.experts,
        "moe_router_topk": shape.experts_per_token,
        "moe_ffn_hidden_size": shape.expert_ffn or shape.ffn,
        "moe_shared_expert_intermediate_size": shape.shared_expert_ffn or None,
        # softmax over the chosen experts, as in Mixtral and Qwen3; no auxiliary loss, as in transformers
        "moe_router_pre_softmax": False,
        "moe_router_load_balancing_type": "none",
        "moe_aux_loss_coeff": 0.0,
        "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": "alltoall",
        "moe_grouped_gemm": False,
        "moe_permute_fusion": False,
    }


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2, the activation of Nemotron-4."""
    return F.relu(x).square()


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "swiglu": (F.silu, True),
    "geglu": (_gelu_tanh, True),
    "gelu": (F.gelu, False),
    "squared_relu": (squared_relu, False),
}


def _left_as_is(tensor: Tensor) -> Tensor:
    return tensor


def _chunk(role: Role, config: TransformerConfig, parallel: Parallel, v: int) -> Model:
    shape, layout = role.model.shape, role.layout
    vp_stage = v if layout.vp > 1 else None
    model = Model(
        role,
        config=config,
        transformer_layer_spec=_layers(role, config, vp_stage),
        vocab_size=padded_vocab(shape, layout),
        max_sequence_length=shape.max_positions,
        pre_process=parallel.is_first_stage and v == 0,
        post_process=parallel.is_last_stage and v == layout.vp - 1,
        parallel_output=True,
        share_embeddings_and_output_weights=shape.tied and role.model.head == "language",
        position_embedding_type="rope" if shape.position == "rope" else "learned_absolute",
        rotary_percent=shape.rope_percent,
        rotary_base=shape.rope_base,  # type: ignore[arg-type]
        pg_collection=parallel.groups,
        vp_stage=vp_stage,
    )
    put_ours_in(model)
    if shape.position == "rope":
        model.rotary_pos_emb.inv_freq = rope_frequencies(shape)
    if model.pre_process and shape.embedding_scale != 1.0:
        # the product is taken in the type of the weights, as transformers does
        scale = float(torch.tensor(shape.embedding_scale, dtype=config.params_dtype))
        model.embedding.register_forward_hook(lambda module, args, output: output * scale)  # type: ignore[operator]
    model.to(dtype=config.params_dtype)
    if model.post_process and model.head != "language":
        model.output_layer.float()
    return model


def _layers(role: Role, config: TransformerConfig, vp_stage: int | None) -> Any:
    shape = role.model.shape
    if role.implementation == "te":
        return get_gpt_layer_with_transformer_engine_spec(
            num_experts=shape.experts or None, moe_grouped_gemm=False, qk_layernorm=shape.qk_norm
        )
    layer = get_gpt_layer_local_spec(
        num_experts=shape.experts or None,
        moe_grouped_gemm=False,
        qk_layernorm=shape.qk_norm,
        normalization=config.normalization,
    )
    _put_ours_in(layer, shape)
    count = get_num_layers_to_build(config, vp_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * count, layer_norm=Norm)  # type: ignore[arg-type]


def _require_transformer_engine() -> None:
    try:
        import transformer_engine  # type: ignore[import-not-found]  # noqa: F401
    except (ImportError, RuntimeError) as error:  # its shell without a CUDA core raises the latter
        raise ModelError(
            f"R015: the plan wants Transformer Engine's layers, which cannot be imported here ({error}); "
            f"install the `te` extra or compile for local layers"
        ) from None


def _put_ours_in(layer: ModuleSpec, shape: Shape) -> None:
    """Our norm and attention in the places of torch's norm and Megatron's quadratic attention."""
    parts: Any = layer.submodules
    parts.input_layernorm = Norm
    parts.pre_mlp_layernorm = Norm
    inner = parts.self_attention.submodules
    inner.core_attention = Attention
    inner.q_layernorm = inner.k_layernorm = Norm if shape.qk_norm else IdentityOp


def rope_frequencies(shape: Shape) -> Tensor:
    """Rotary frequencies [head_dim * percent / 2], fp32, with the scaling of `config.json`.

    Known are `llama3` and `linear` (and `default`, none), as transformers computes them.
    """
    dim = int(shape.head_dim * shape.rope_percent)
    frequencies = 1.0 / (shape.rope_base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    scaling = shape.rope_scaling
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / scaling["factor"]
    if kind == "llama3":
        return _llama3(frequencies, scaling)
    raise ModelError(f"rope scaling `{kind}` is not known; use a model with `llama3`, `linear` or none")


def _llama3(frequencies: Tensor, scaling: dict[str, Any]) -> Tensor:
    """Long wavelengths stretched by `factor`, short ones kept, a ramp between (Llama 3.1)."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * frequencies / factor + smooth * frequencies


def initialise(chunk: Model, shape: Shape, seed: int) -> None:
    """Give every parameter its initial value, the same under every layout."""
    layers = chunk.config.num_layers
    with torch.no_grad():
        for shard, parameter in shards(chunk):
            parameter.copy_(shard.cut(_whole_initial(shard, parameter, shape, layers, seed)))


def _whole_initial(shard: Shard, parameter: Tensor, shape: Shape, layers: int, seed: int) -> Tensor:
    size = list(parameter.shape)
    if shard.dim is not None:
        size[shard.dim] *= shard.pieces
    if len(size) == 1:
        is_norm_weight = "norm" in shard.name and not shard.name.endswith("bias")
        value = 1.0 if is_norm_weight and not shape.norm.endswith("_1p") else 0.0
        return torch.full(size, value)
    name, rows, std = shard.name, size[0], shape.init_std
    if shard.vocabulary:
        rows = shape.vocab
        if shape.tied:
            name = "embedding.word_embeddings.weight"
    elif name == "output_layer.weight":  # a head of single numbers: "Learning to summarize", appendix
        std = 1 / math.sqrt(shape.hidden + 1)
    elif name.endswith(_OUTPUT_PROJECTIONS):
        std /= math.sqrt(2 * layers)
    whole = torch.zeros(size)
    whole[:rows].normal_(0.0, std, generator=_generator(seed, name))
    return whole


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
