"""GPUs by name."""

import dataclasses
import json

import pytest

from specc.planner import hardware
from specc.planner.workload import PRECISIONS


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
        assert 0 < card.attention_efficiency < 1
        assert 0 < card.tp_exposed <= 1
        assert {"bf16"} <= set(data["efficiency"]) <= set(PRECISIONS)
        assert all(0 < share < 1 for share in data["efficiency"].values())
        assert data["efficiency_source"]


def test_a_precision_without_a_number_of_its_own_is_as_efficient_as_its_neighbour():
    card = hardware.gpu("h100-80gb")
    assert card is not None
    assert card.efficiency("mxfp8") == card.efficiency("fp8") != card.efficiency("bf16")
    assert card.efficiency("fp16") == card.efficiency("bf16")
    assert dataclasses.replace(card, efficiencies=()).efficiency("bf16") == hardware.UNKNOWN


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
