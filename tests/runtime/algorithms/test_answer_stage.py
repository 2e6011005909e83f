"""A stage that serves: compiled from a spec, asked by a client, told to stop or left alone."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests
import toy_answering

from specc.compile import compile_spec
from specc.plan import to_json

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]

SPEC = """\
name: toy
cluster: local-cpu
algorithm: serve
model: {{path: {model}, tokenizer: "builtin:bytes"}}
gpus: 1
serve: {{port: 0, name: toy, max_length: 128, rows: 4, idle: {idle}, rehearsal: 2}}
precision: fp32
"""


def stage_of(tmp_path, idle):
    model = toy_answering.folder(tmp_path / "model")
    (tmp_path / "spec.yaml").write_text(SPEC.format(model=model, idle=idle))
    compilation = compile_spec(tmp_path / "spec.yaml")
    assert compilation.plan, compilation.diagnostics
    run = tmp_path / "run"
    run.mkdir()
    (run / "plan.json").write_text(to_json(compilation.plan))
    return run / compilation.plan.jobs[0].stage


def serving(plan_file, stage):
    """One process of the stage; its exit code."""
    import os

    os.environ["SPECC_ATTEMPT"] = "1"
    from runtime.__main__ import main

    return main([plan_file, stage, "model"])


def started(world, pool, stage):
    return pool.submit(world, 1, serving, str(stage.parent / "plan.json"), stage.name, timeout=200)


def address(stage, codes):
    return toy_answering.eventually(
        lambda: toy_answering._ready(stage / "attempts" / "1" / "address.json"), codes
    )


def test_a_client_talks_to_the_stage_and_the_file_stop_ends_it_unfinished(world, tmp_path):
    stage = stage_of(tmp_path, "1h")
    with ThreadPoolExecutor(1) as pool:
        codes = started(world, pool, stage)
        url = address(stage, codes)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60) as client:
            [card] = client.models.list().data
            said = client.completions.create(model="toy", prompt="x" * 120, max_tokens=50, temperature=0)
        assert (card.id, card.max_model_len) == ("toy", 128)
        assert said.usage.prompt_tokens == 120
        assert said.usage.completion_tokens <= 8
        long = requests.post(f"{url}/v1/completions", json={"prompt": "x" * 200}, timeout=60)
        assert "128 of the model's 512 positions" in long.json()["error"]["message"]
        (stage / "stop").touch()
        assert codes.result() == [0]
    [line] = map(json.loads, (stage / "served.jsonl").read_text().splitlines())
    assert line["why"] == "told to stop"
    assert line["answered"] >= 1
    assert not (stage / "output.json").exists()


def test_left_alone_it_finishes_and_is_not_served_again(world, tmp_path):
    stage = stage_of(tmp_path, "1s")
    with ThreadPoolExecutor(1) as pool:
        assert started(world, pool, stage).result() == [0]
        output = json.loads((stage / "output.json").read_text())
        assert (output["program"], output["answered"]) == ("answer", 2)  # what it asked itself
        assert output["hash"] == json.loads((stage.parent / "plan.json").read_text())["jobs"][0]["hash"]
        assert started(world, pool, stage).result() == [0]
    assert len((stage / "served.jsonl").read_text().splitlines()) == 1
