"""GPUs by name."""

import json

import pytest

from specc.planner import hardware


@pytest.mark.parametrize("name", hardware.names())
def test_every_gpu_is_read_and_has_a_source(name: str):
    card = hardware.gpu(name)
    assert card is not None
    assert card.name == name
    assert json.loads((hardware.CATALOG / f"{name}.json").read_text())["source"]
    if name != "cpu":
        data = json.loads((hardware.CATALOG / f"{name}.json").read_text())
        assert 0.9 * data["label_gb"] / 1.0737 < card.usable_gib <= data["label_gb"]
        assert min(card.bf16_tflops, card.hbm_gb_per_s, card.link_gb_per_s, card.nic_gb_per_s) > 0
        assert 0 < card.gemm_efficiency < 1


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("H100-80GB", "h100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("cpu", "cpu"),
    ],
)
def test_names_are_taken_as_people_and_drivers_write_them(said: str, name: str):
    card = hardware.gpu(said)
    assert card is not None
    assert card.name == name


def test_every_alias_is_a_gpu():
    assert all(name in hardware.names() for name in hardware.ALIASES.values())


def test_an_unknown_gpu_is_none_and_has_a_neighbour():
    assert hardware.gpu("h1000") is None
    assert hardware.suggestion("h1000") in ("h100-80gb", "h100-96gb", "h200", "h800")
