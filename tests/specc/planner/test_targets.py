"""Models that are planned for only: their sizes are the published ones, and bad files are refused by key."""

import pytest

from specc.models import ShapeError
from specc.planner import targets
from specc.planner.shapes import kv_bytes_per_token, parameters

PUBLISHED = [
    ("deepseek-v2-lite", 15.71e9),
    ("deepseek-v2", 236e9),
    ("deepseek-v3", 671.03e9),
    ("kimi-k2", 1026.4e9),
    ("moonlight-16b-a3b", 15.96e9),
    ("gpt-oss-20b", 20.91e9),
    ("gpt-oss-120b", 116.83e9),
]


@pytest.mark.parametrize(("name", "published"), PUBLISHED)
def test_parameters_are_those_published(name: str, published: float):
    assert parameters(targets.catalog()[name].shape) == pytest.approx(published, rel=0.002)


def test_the_cache_of_deepseek_v3_is_70_kb_per_token():
    assert kv_bytes_per_token(targets.catalog()["deepseek-v3"].shape) == pytest.approx(70e3, rel=0.01)


CONFIG = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("hidden_size", None, "hidden_size"),
        ("kv_lora_rank", "16", "kv_lora_rank"),
        ("hidden_size", -1, "hidden_size"),
        ("num_hidden_layers", 0, "num_hidden_layers"),
        ("num_experts_per_tok", 9, "num_experts_per_tok 9 is not between 1 and n_routed_experts 8"),
        ("kv_lora_rank", 0, "kv_lora_rank"),
        ("v_head_dim", 0, "v_head_dim"),
        ("first_k_dense_replace", 5, "first_k_dense_replace"),
    ],
)
def test_absurd_numbers_are_refused_by_key(key, value, named):
    with pytest.raises(ShapeError, match=named):
        targets.shape_from_config(CONFIG | {key: value})
