"""The pipeline from text to plan: where it stops, and what it gives then."""

import pytest

from specc.compile import compile_spec

SPEC = """\
name: small
cluster: example-h100
algorithm: sft
model: llama3-8b
data: {train: "builtin:arithmetic"}
train: {steps: 20, global_batch: 8, seq_length: 1024}
"""


@pytest.fixture
def compiled(tmp_path):
    """A spec of this text, compiled."""

    def compile_text(text=SPEC, overrides=(), **more):
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return compile_spec(path, overrides, **more)

    return compile_text


def test_a_sound_spec_comes_all_the_way(compiled):
    done = compiled()
    assert done.fine
    assert done.plan.name == "small"


@pytest.mark.parametrize(
    ("change", "reached", "code"),
    [
        (("name: small", "name: [small"), "source", "S"),
        (("steps: 20", "steps: many"), "source", "T"),
        (("model: llama3-8b", "model: {from: nothing}"), "graph", "G"),
        (("model: llama3-8b", "model: llama3-9b"), "profile", "P"),
    ],
)
def test_an_error_stops_the_pipeline_where_it_is_found(compiled, change, reached, code):
    done = compiled(SPEC.replace(*change))
    assert not done.fine
    assert done.plan is None
    assert getattr(done, reached) is not None
    assert {d.code[0] for d in done.diagnostics if d.severity == "error"} == {code}


def test_every_mistake_of_a_stage_is_said_not_the_first_only(compiled):
    done = compiled(SPEC.replace("steps: 20", "stepz: 20").replace("seq_length", "seq_len"))
    assert len(done.diagnostics) == 2


def test_the_cluster_that_is_asked_for_wins(compiled):
    assert compiled(cluster="example-a100").plan.cluster.name == "example-a100"


def test_overrides_are_checked_like_the_file_and_kept_in_the_plan(compiled):
    assert compiled(overrides=["train.lr=1e-3"]).plan.overrides == ("train.lr=1e-3",)
    assert not compiled(overrides=["train.lr=fast"]).fine
    assert not compiled(overrides=["train.learning=1"]).fine


def test_a_spec_for_slurm_is_planned_for_this_machine_when_it_is_to_run_here(compiled, monkeypatch):
    monkeypatch.setattr("specc.machine.gpus", list)
    done = compiled(overrides=["model=tiny-llama"], here=True)
    assert done.plan.cluster.name == "local-cpu"


def test_gpus_of_this_machine_are_used(compiled, monkeypatch):
    from specc.machine import Gpu

    found = [Gpu("NVIDIA H100 80GB HBM3", 79.6)] * 4
    monkeypatch.setattr("specc.machine.gpus", lambda: found)
    plan = compiled(overrides=["model=tiny-llama"], here=True).plan
    assert (plan.cluster.gpu, plan.cluster.gpus_per_node, plan.cluster.backend) == ("h100-80gb", 4, "nccl")


def test_a_model_too_large_for_the_memory_here_is_refused(compiled, monkeypatch):
    monkeypatch.setattr("specc.machine.gpus", list)
    monkeypatch.setattr("specc.machine.free_gib", lambda: 8.0)
    done = compiled(here=True)
    assert not done.fine
    assert any("needs about" in d.message for d in done.diagnostics)


def test_a_file_that_cannot_be_opened_raises(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        compile_spec(tmp_path / "nowhere.yaml")
