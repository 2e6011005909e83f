"""Roles on machines: pins obeyed or refused at their path, and what is said when nothing fits."""

import dataclasses
import functools

import pytest

from specc import models
from specc.planner import hardware, layouts, placement
from specc.planner.layouts import Pins
from specc.planner.memory import Workload
from specc.planner.placement import Request, job_environment, place


def request(
    model: str = "llama3-70b",
    pins: Pins | None = None,
    nodes: int | None = None,
    gpus: int | None = None,
    seq_length: int = 4096,
    global_batch: int = 128,
    **said,
) -> Request:
    found, _ = models.resolve(model, "model")
    assert found is not None
    paths = {
        "": "algorithm",
        "model": "model",
        "seq_length": "train.seq_length",
        "global_batch": "train.global_batch",
    }
    if nodes is not None:
        paths["nodes"] = "nodes"
    paths |= {
        name: f"parallel.{name}"
        for name in (pins or Pins()).names
        if name not in ("micro_batch", "recompute")
    }
    if pins and pins.micro_batch:
        paths["micro_batch"] = "train.micro_batch"
    work = Workload(found.shape, seq_length, global_batch, **said)
    return Request("model", "sft", found, work, pins or Pins(), nodes, gpus, paths)


def placed(asked: Request, card: str = "h100-80gb", gpus: int = 8, most: int = 2048):
    found = hardware.gpu(card)
    assert found is not None
    return place(asked, found, gpus, most)


def test_an_unpinned_70b_gets_the_fewest_nodes():
    role, said = placed(request())
    assert said == []
    assert role is not None
    assert role.nodes == 3
    assert role.layout.world_size == 24
    assert role.memory.oom_probability <= 0.05
    assert role.step_seconds > 0
    assert role.why.startswith("3 nodes are the fewest that fit; the fastest that fits of")


def test_pinned_nodes_stay_and_the_fastest_layout_is_taken():
    role, said = placed(request(nodes=32))
    assert said == []
    assert role is not None
    assert (role.nodes, role.layout.world_size) == (32, 256)
    assert role.why.startswith("the fastest that fits of")


def test_a_pinned_layout_stays():
    role, said = placed(request(nodes=8, pins=Pins(tp=8, pp=4, micro_batch=1)))
    assert said == []
    assert role is not None
    assert (role.layout.tp, role.layout.pp, role.micro_batch) == (8, 4, 1)
    assert role.why.startswith("tp, pp and micro_batch as pinned; ")


def test_70b_on_one_24_gb_gpu_is_refused_with_the_smallest_that_works():
    role, said = placed(request(nodes=1), "rtx4090", gpus=1)
    assert role is None
    assert [(d.code, d.severity, d.path) for d in said] == [("P031", "error", "nodes")]
    assert said[0].message == "llama3-70b does not fit on 1 node x 1 rtx4090"
    assert said[0].help == "it needs at least 3 nodes x 8 a100-80gb"


def test_the_smallest_that_is_named_does_work():
    _, said = placed(request(nodes=1), "h100-80gb")
    assert said[0].message == "llama3-70b does not fit on 1 node x 8 h100-80gb"
    assert said[0].help == "it needs at least 3 nodes x 8 h100-80gb or 2 nodes x 8 h200"
    role, said = placed(request(nodes=3))
    assert role is not None
    assert said == []
    assert placed(request(nodes=2))[0] is None


def test_a_bound_on_nodes_is_kept():
    role, said = placed(request(), most=2)
    assert role is None
    assert said[0].message == "llama3-70b does not fit on up to 2 nodes x 8 h100-80gb"


def test_more_gpus_than_a_node_has_are_refused():
    role, said = placed(request("llama3-8b", nodes=1, gpus=16))
    assert role is None
    assert (said[0].code, said[0].message) == ("P034", "gpus 16 is more than the 8 of a node")


def test_a_part_of_a_node_may_be_asked_for():
    role, _ = placed(request("llama3.2-1b", nodes=1, gpus=2))
    assert role is not None
    assert (role.gpus, role.layout.world_size) == (2, 2)


def test_an_illegal_pin_is_an_error_at_the_pin():
    role, said = placed(request("qwen2.5-7b", Pins(tp=8), nodes=1))
    assert role is None
    assert [(d.code, d.path) for d in said] == [("P012", "parallel.tp")]
    assert said[0].message == "28 attention heads do not divide by tp 8"


def test_an_illegal_pin_is_found_when_the_nodes_are_free_too():
    role, said = placed(request("qwen2.5-7b", Pins(tp=8)))
    assert role is None
    assert (said[0].code, said[0].path) == ("P012", "parallel.tp")


def test_a_layout_that_does_not_fill_its_nodes_is_told_how_many_would():
    role, said = placed(request(nodes=1, pins=Pins(tp=8, pp=3)))
    assert role is None
    assert (said[0].code, said[0].path) == ("P011", "parallel.tp")
    assert said[0].help == "use nodes: 3, or a smaller layout"


def test_a_batch_that_cannot_be_dealt_is_an_error_at_the_batch():
    role, said = placed(request("llama3-8b", nodes=2, pins=Pins(tp=1, pp=1, cp=1), global_batch=10))
    assert role is None
    assert said[0].code == "P018"
    assert said[0].message == "global_batch 10 is not a multiple of micro_batch 1 x data-parallel 16 = 16"


def test_a_pinned_layout_that_is_predicted_not_to_fit_is_a_warning_with_the_numbers():
    role, said = placed(request(nodes=2, pins=Pins(tp=8, pp=2, micro_batch=1)))
    assert role is not None
    assert (role.layout.tp, role.layout.pp, role.nodes) == (8, 2, 2)
    assert [(d.code, d.severity, d.path) for d in said] == [("P030", "warning", "parallel.tp")]
    assert "of 79.1 GiB per GPU and is 100% likely to run out of memory" in said[0].message
    assert "weights 8.2" in said[0].help
    assert "without the pins 3 nodes x 8 h100-80gb would do" in said[0].help


def test_a_pinned_layout_that_fits_nowhere_is_planned_on_its_fewest_nodes_with_a_warning():
    role, said = placed(request(pins=Pins(tp=1, pp=1, cp=1, micro_batch=1)))
    assert role is not None
    assert (role.nodes, role.layout.tp, role.layout.pp) == (1, 1, 1)
    assert [(d.code, d.severity) for d in said] == [("P030", "warning")]
    assert "without the pins 3 nodes x 8 h100-80gb would do" in said[0].help


def test_a_pinned_micro_batch_that_is_too_large_is_a_warning_where_another_would_fit():
    role, said = placed(request(nodes=4, pins=Pins(micro_batch=128)))
    assert role is not None
    assert role.micro_batch == 128
    assert [(d.code, d.severity, d.path) for d in said] == [("P030", "warning", "train.micro_batch")]


def test_a_pinned_micro_batch_does_not_turn_too_few_nodes_into_a_warning():
    role, said = placed(request(nodes=1, pins=Pins(micro_batch=1)))
    assert role is None
    assert [(d.code, d.severity) for d in said] == [("P031", "error")]


def aiming(objective: str, max_nodes: int | None = None, **said) -> Request:
    asked = dataclasses.replace(request("llama3-8b", **said), objective=objective, max_nodes=max_nodes)
    paths = {"objective": "plan.objective"} | ({"max_nodes": "plan.max_nodes"} if max_nodes else {})
    return dataclasses.replace(asked, paths=asked.paths | paths)


def test_the_objective_chooses_the_number_of_nodes():
    roles = {aim: placed(aiming(aim, 6))[0] for aim in ("fewest_nodes", "fastest", "cheapest", "earliest")}
    assert all(role is not None for role in roles.values())
    cost = {aim: role.nodes * role.step_seconds for aim, role in roles.items() if role}
    assert roles["fewest_nodes"].nodes == 1  # type: ignore[union-attr]
    assert roles["fastest"].step_seconds == min(role.step_seconds for role in roles.values() if role)  # type: ignore[union-attr]
    assert roles["earliest"].layout == roles["fastest"].layout  # type: ignore[union-attr]
    assert cost["cheapest"] == min(cost.values())
    assert roles["cheapest"].why.split(";")[0].endswith("the cheapest in GPU-hours")  # type: ignore[union-attr]


def test_the_earliest_end_needs_a_budget():
    role, said = placed(aiming("earliest"))
    assert role is None
    assert [(d.code, d.path) for d in said] == [("P037", "plan.objective")]


def test_an_impossible_budget_says_the_smallest_that_works():
    asked = dataclasses.replace(request(), max_nodes=2)
    _, said = placed(dataclasses.replace(asked, paths=asked.paths | {"max_nodes": "plan.max_nodes"}))
    assert [(d.code, d.path) for d in said] == [("P031", "plan.max_nodes")]
    assert said[0].help.startswith("it needs at least 3 nodes x 8 h100-80gb")


def test_an_objective_beside_a_number_of_nodes_is_told_to_have_no_choice():
    role, said = placed(aiming("cheapest", nodes=2))
    assert role is not None
    assert role.nodes == 2
    assert [(d.code, d.severity) for d in said] == [("P038", "warning")]


def test_cpu_processes_are_those_of_the_profile():
    role, said = placed(request("tiny-llama", implementation="local", precision="fp32"), "cpu", gpus=2)
    assert said == []
    assert role is not None
    assert (role.nodes, role.gpus, role.layout.dp, role.step_seconds) == (1, 2, 2, 0.0)


def test_cpu_processes_grow_with_a_pinned_layout():
    asked = request("tiny-llama", Pins(tp=2, pp=2), implementation="local", precision="fp32")
    role, _ = placed(asked, "cpu", gpus=2)
    assert role is not None
    assert (role.gpus, role.layout.tp, role.layout.pp) == (4, 2, 2)


def test_cpu_processes_shrink_when_the_batch_is_one_row_and_the_heads_do_not_divide():
    asked = request("tiny-llama", seq_length=63, global_batch=1, implementation="local", precision="fp32")
    role, _ = placed(asked, "cpu", gpus=3)
    assert role is not None
    assert role.layout.dp == 1


@pytest.mark.parametrize(
    ("model", "key"), [("llama3-70b", "CUDA_DEVICE_MAX_CONNECTIONS"), ("gemma-2b", None)]
)
def test_the_environment_goes_with_the_layout(model: str, key: str | None):
    role, _ = placed(request(model, Pins(tp=8 if key else 1), nodes=4))
    assert role is not None
    environment = job_environment(hardware.gpu("h100-80gb"), (role,))  # type: ignore[arg-type]
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert ("CUDA_DEVICE_MAX_CONNECTIONS" in environment) == bool(key)


def test_rounds_that_ask_the_same_are_searched_once(monkeypatch):
    """Of as many roles as a stage is repeated, the searches are those of different questions."""
    asked = []

    def counted(*question):
        asked.append(question)
        return layouts.search(*question)

    monkeypatch.setattr(placement, "searched", functools.lru_cache(counted))
    first, _ = placed(request(nodes=4))
    again, _ = placed(dataclasses.replace(request(nodes=4), name="later"))
    other, _ = placed(request(nodes=4, seq_length=8192))
    assert len(asked) == 2
    assert dataclasses.replace(again, name="model") == first
    assert other != first
