"""From a graph and a profile to a plan: complete, deterministic, and read back as the same value."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specc import experiment, graph, planner, source
from specc import plan as plans
from specc.spec.cluster import SHIPPED, Gpus, Profile, SlurmProfile, find_profile

H100 = Profile(gpus=Gpus(type="h100-80gb", per_node=8), slurm=SlurmProfile(time="4h"))  # type: ignore[arg-type]
CPU = Profile(gpus=Gpus(type="cpu", per_node=2), scheduler="none")
DATA = "data: {train: builtin:arithmetic}"


def lowered(text: str) -> graph.Graph:
    read, said = source.parse(text, "test.yaml")
    assert not said, said
    checked, said = experiment.check(read)
    assert checked is not None, said
    found, said = graph.lower(checked)
    assert not said, said
    return found


def planned(text: str, profile: Profile = H100, folder: Path | str = ".") -> plans.Plan:
    found, said = planner.plan(lowered(text), profile, "test", folder)
    assert found is not None, said
    return found


def refused(text: str, profile: Profile = H100):
    found, said = planner.plan(lowered(text), profile, "test")
    assert found is None
    return said


def spec(more: str = "", model: str = "llama3-8b") -> str:
    return f"name: x\nalgorithm: sft\nmodel: {model}\n{DATA}\n{more}"


def test_a_plan_is_complete():
    found = planned(spec("train: {steps: 10, global_batch: 64}\nnodes: 2\ntime: 2h"))
    job = found.jobs[0]
    role = job.roles[0]
    assert (found.format, found.name, found.seed) == (plans.FORMAT, "x", 1234)
    assert (found.cluster.name, found.cluster.device, found.cluster.backend) == ("test", "cuda", "nccl")
    assert (job.name, job.stage, job.nodes, job.time_seconds, job.export) == ("sft", "sft", 2, 7200, True)
    assert job.settings["train"]["steps"] == 10
    assert (role.program, role.implementation, role.precision, role.global_batch) == ("sft", "te", "bf16", 64)
    assert role.layout.world_size == 16
    assert role.model.weights.path == "meta-llama/Meta-Llama-3-8B"
    assert found.totals.jobs == 1
    assert found.totals.wall_seconds == pytest.approx(10 * role.step_seconds, abs=0.1)
    assert found.totals.gpu_hours == pytest.approx(found.totals.wall_seconds / 3600 * 16, abs=0.1)


def test_the_number_of_nodes_is_left_to_the_planner():
    assert planned(spec(model="llama3-70b")).jobs[0].nodes == 3


def test_a_cpu_runs_local_layers_over_gloo_and_its_seconds_are_not_predicted():
    found = planned(spec("precision: fp32\ntrain: {global_batch: 8, seq_length: 64}", "tiny-llama"), CPU)
    role = found.jobs[0].roles[0]
    assert (found.cluster.device, found.cluster.backend, found.cluster.scheduler) == ("cpu", "gloo", "none")
    assert (role.implementation, role.layout.dp, role.step_seconds) == ("local", 2, 0.0)
    assert found.totals.wall_seconds == 0


def test_a_profile_may_ask_for_our_own_layers_on_gpus():
    profile = H100.model_copy(update={"runtime": H100.runtime.model_copy(update={"layers": "local"})})
    assert planned(spec(), profile).jobs[0].roles[0].implementation == "local"


TWO = f"""
name: x
stages:
  chat: {{algorithm: sft, model: llama3-8b, {DATA}}}
  maths: {{algorithm: sft, model: {{from: chat}}, {DATA}, nodes: 2}}
"""


def test_a_stage_that_starts_from_another_depends_on_it_and_has_its_shape():
    chat, maths = planned(TWO).jobs
    assert (chat.depends_on, maths.depends_on) == ((), ("chat",))
    assert maths.roles[0].model.weights == plans.Weights("stage", stage="chat")
    assert maths.roles[0].model.shape == chat.roles[0].model.shape
    assert maths.roles[0].model.tokenizer == chat.roles[0].model.tokenizer
    assert (chat.export, maths.export) == (False, True)


def test_the_hash_of_a_stage_follows_its_maths_and_its_inputs_but_not_its_placement():
    def hashes(text: str, profile: Profile = H100) -> list[str]:
        return [job.hash for job in planned(text, profile).jobs]

    moved, second = TWO.replace("nodes: 2", "nodes: 4"), TWO.replace("nodes: 2", "train: {lr: 1e-4}")
    assert hashes(TWO) == hashes(moved)
    assert hashes(TWO)[0] == hashes(second)[0]
    assert hashes(TWO)[1] != hashes(second)[1]
    changed = TWO.replace("model: llama3-8b,", "model: llama3-8b, train: {lr: 1e-4},")
    assert all(a != b for a, b in zip(hashes(TWO), hashes(changed), strict=True))


def test_the_identity_holds_the_maths_fields_by_path():
    identity = planned(spec("train: {lr: 1e-4}")).jobs[0].identity
    assert identity["train.lr"] == 1e-4
    assert identity["seed"] == 1234
    assert "nodes" not in identity
    assert identity["model.shape"]["layers"] == 32


def test_every_problem_of_every_stage_is_said_at_its_path():
    text = TWO.replace("llama3-8b", "qwen2.5-7b, parallel: {tp: 8}").replace(
        "nodes: 2", "nodes: 2, parallel: {pp: 1, vp: 2}"
    )
    said = refused(text.replace("{from: chat}", "llama3-8b"))
    assert [(d.code, d.path) for d in said] == [
        ("P012", "stages.chat.parallel.tp"),
        ("P017", "stages.maths.parallel.vp"),
    ]


def test_a_stage_whose_input_has_no_model_is_not_blamed_for_it():
    assert [d.code for d in refused(TWO.replace("llama3-8b", "llama9"))] == ["P001"]


def test_the_layers_of_uneven_stages_may_be_pinned():
    text = spec("nodes: 1\nparallel: {tp: 4, stage_layers: [15, 17]}")
    layout = planned(text).jobs[0].roles[0].layout
    assert (layout.pp, layout.stage_layers) == (2, (15, 17))
    assert refused(text.replace("17", "18"))[0].code == "P016"


def test_a_profile_bounds_nodes_and_time():
    small = H100.model_copy(update={"nodes": 2})
    assert [d.code for d in refused(spec("nodes: 4"), small)] == ["P032"]
    assert [(d.code, d.path) for d in refused(spec("time: 5h"))] == [("P033", "time")]
    assert refused(spec(model="llama3-70b"), small)[0].message.endswith("up to 2 nodes x 8 h100-80gb")


def test_a_job_lasts_longer_than_it_is_given_to_save():
    assert [(d.code, d.path) for d in refused(spec("time: 5m"))] == [("P035", "time")]
    assert planned(spec("time: 301s")).jobs[0].time_seconds == 301


def test_an_unknown_gpu_is_answered_with_the_nearest():
    said = refused(spec(), Profile(gpus=Gpus(type="h1000", per_node=8)))
    assert (said[0].code, said[0].path) == ("P006", "cluster.gpus.type")
    assert "h100" in said[0].help


def test_packed_rows_are_not_cut():
    text = spec("nodes: 1\ntrain: {packing: true}\nparallel: {cp: 2}")
    assert refused(text)[0].code == "P023"


@pytest.mark.parametrize("name", sorted(file.stem for file in SHIPPED.glob("*.yaml")))
def test_every_shipped_profile_plans_a_small_model(name: str):
    profile, _, said = find_profile(name, SHIPPED)
    assert profile is not None
    assert said == []
    text = spec("precision: fp32\ntrain: {global_batch: 8, seq_length: 64}", "tiny-llama")
    assert planned(text, profile).jobs[0].roles[0].memory.oom_probability == 0


def test_the_plan_of_every_spec_comes_back_from_json():
    found = planned(TWO)
    assert plans.from_json(plans.to_json(found)) == found


@pytest.mark.slow
@given(
    st.sampled_from(["tiny-llama", "llama3-8b", "mixtral-8x7b", "qwen2.5-7b", "gemma-2b"]),
    st.integers(1, 4),
    st.sampled_from(["", "tp: 2", "pp: 2", "tp: 4, pp: 2", "ep: 2", "recompute: full"]),
    st.sampled_from([64, 96, 128]),
)
@settings(max_examples=settings().max_examples * 3 // 5, deadline=None)
def test_any_plan_fills_its_gpus_keeps_its_pins_and_survives_json(model, nodes, pins, batch):
    text = spec(f"nodes: {nodes}\nparallel: {{{pins}}}\ntrain: {{global_batch: {batch}}}", model)
    found, said = planner.plan(lowered(text), H100, "test")
    if found is None:
        assert all(d.code[0] == "P" and d.message and d.path for d in said)
        return
    role = found.jobs[0].roles[0]
    assert role.layout.world_size == role.nodes * role.gpus == nodes * 8
    assert batch % (role.micro_batch * role.layout.dp) == 0
    for pin in filter(None, pins.split(", ")):
        name, _, value = pin.partition(": ")
        chosen = getattr(role if name == "recompute" else role.layout, name)
        assert str(chosen) == value
    assert plans.from_json(plans.to_json(found)) == found
