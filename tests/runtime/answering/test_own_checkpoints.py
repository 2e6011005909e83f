"""Checkpoints of our own runs behind HTTP: a step, a stage, another layout, and a torn one."""

import pytest
import requests
import saves
import toy_answering
import toys

from specc import serving
from specc.plan import Layout

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stage(world, tmp_path_factory):
    """A stage with the steps 2 and 20, which answer differently."""
    folder = tmp_path_factory.mktemp("own") / "run" / "sft"
    world(1, saves.saved_at, toys.role(), folder / "checkpoint", [2, 20])
    return folder


def said(server):
    body = {"prompt": "hello", "max_tokens": 12, "temperature": 0, "logprobs": 1}
    answer = requests.post(f"{server.url}/v1/completions", json=body, timeout=60)
    return answer.json()["choices"][0]["logprobs"]["token_logprobs"]


def test_a_stage_answers_with_its_last_step_and_a_step_with_itself(world, stage, tmp_path):
    answers = {}
    for name in ("", "checkpoint/step-2", "checkpoint/step-20"):
        with toy_answering.served(world, tmp_path / f"run-{len(answers)}", stage / name) as server:
            answers[name] = said(server)
            assert server.name == f"run/sft/{name}".removesuffix("/").replace("checkpoint/", "")
    assert answers[""] == answers["checkpoint/step-20"] != answers["checkpoint/step-2"]


def test_a_torn_step_is_refused_by_the_name_of_the_file(world, stage, tmp_path):
    import shutil

    torn = tmp_path / "run" / "sft" / "checkpoint" / "step-20"
    shutil.copytree(stage / "checkpoint" / "step-20", torn)
    victim = next(torn.glob("*.distcp"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert serving.plan_of(str(torn), serving.Wishes()).jobs
    with (
        pytest.raises(AssertionError, match=r"\[1\]"),
        toy_answering.served(world, tmp_path / "served", torn),
    ):
        pass
    [error] = (tmp_path / "served").rglob("error-0.json")
    assert victim.name in error.read_text()
    assert "R021" in error.read_text()


def test_another_layout_than_the_saved_one_answers_alike(world, stage, tmp_path):
    with toy_answering.served(world, tmp_path / "one", stage) as server:
        alone = said(server)
    layout = Layout(tp=2)
    with toy_answering.served(world, tmp_path / "two", stage, layout.world_size, tp=2) as server:
        assert said(server) == pytest.approx(alone, abs=1e-3)
