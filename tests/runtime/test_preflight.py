"""Preflight: what is wrong is said in one line, before torch is imported."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import toy_runs  # noqa: E402

from runtime import ports, preflight  # noqa: E402
from runtime.place import place_of  # noqa: E402
from runtime.problem import Problem  # noqa: E402
from specc.plan import Layout, Model, Weights  # noqa: E402


def checked(folder, found, **environment):
    file = toy_runs.written(folder, found)
    plan, job, role = preflight.read_plan(file, "sft", "model")
    world = str(role.layout.world_size)
    own = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "SPECC_ATTEMPT": "1"} | environment
    place = place_of(file, job, role.name, own)
    preflight.check(plan, job, role, place)
    return plan, job, place


def refused(folder, found, **environment):
    with pytest.raises(Problem) as caught:
        checked(folder, found, **environment)
    return str(caught.value).replace(str(folder), "RUN")


def test_a_good_plan_passes(tmp_path):
    checked(tmp_path, toy_runs.plan(Layout(tp=2)))


def test_a_plan_of_another_format_is_refused(tmp_path):
    file = toy_runs.written(tmp_path, toy_runs.plan())
    file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(
        Problem, match=r"R001: .* plan format 99, but this version reads format 1; compile again"
    ):
        preflight.read_plan(file, "sft", "model")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"format": 1}'])
def test_what_is_no_plan_is_refused(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(Problem, match="R001: "):
        preflight.read_plan(tmp_path / "plan.json", "sft", "model")


def test_a_plan_that_is_not_there_is_outside_our_power(tmp_path):
    with pytest.raises(Problem, match=r"R001: cannot read the plan `.*`: No such file") as caught:
        preflight.read_plan(tmp_path / "plan.json", "sft", "model")
    assert caught.value.outside


def test_an_unknown_job_or_role_is_refused_by_name(tmp_path):
    file = toy_runs.written(tmp_path, toy_runs.plan())
    with pytest.raises(Problem, match="R002: the plan has no job `dpo`; it has sft"):
        preflight.read_plan(file, "dpo", "model")
    with pytest.raises(Problem, match="R002: job `sft` has no role `critic`; it has model"):
        preflight.read_plan(file, "sft", "critic")


def test_a_wrong_world_size_shows_the_product(tmp_path):
    said = refused(tmp_path, toy_runs.plan(Layout(tp=2, pp=2, dp=2)), WORLD_SIZE="6")
    assert said == (
        "R003: world size 6 is not TP 2 x PP 2 x CP 1 x DP 2 = 8 of role `model`; "
        "start 8 processes, or compile for 6"
    )


def test_data_that_is_not_there_is_refused(tmp_path):
    found = toy_runs.plan(data={"path": "/nowhere/rows.jsonl"})
    assert refused(tmp_path, found) == "R005: data.train is not there: `/nowhere/rows.jsonl`"


def test_empty_data_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    found = toy_runs.plan(data={"path": str(tmp_path / "rows.jsonl")})
    assert refused(tmp_path, found) == "R011: data.train is empty: `RUN/rows.jsonl`"


def test_weights_that_are_not_there_are_refused(tmp_path):
    found = toy_runs.plan(weights=Weights("hf", "/nowhere/llama"))
    assert refused(tmp_path, found) == "R005: model `tiny` is not there: `/nowhere/llama`"


def test_a_stage_whose_model_is_not_there_yet_is_refused(tmp_path):
    found = toy_runs.plan(weights=Weights("stage", stage="before"))
    said = refused(tmp_path, found)
    assert said == "R016: the model comes from stage `before`, but `RUN/before` is not finished; run it first"


def test_a_tokenizer_that_is_not_there_is_refused(tmp_path):
    found = toy_runs.plan(model=Model("tiny", toy_runs.LLAMA, Weights(), tokenizer="/nowhere/tokenizer.json"))
    assert refused(tmp_path, found) == "R005: the tokenizer is not there: `/nowhere/tokenizer.json`"


def test_an_unknown_program_is_refused(tmp_path):
    assert refused(tmp_path, toy_runs.plan(program="alchemy")).startswith(
        "R002: this version has no program `alchemy`"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    toy_runs.written(tmp_path, toy_runs.plan())
    tmp_path.chmod(0o500)
    assert refused(tmp_path, toy_runs.plan()).startswith("R006: cannot write in `RUN/sft`")


def test_a_stage_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "sft").write_text("")
    assert refused(tmp_path, toy_runs.plan()).startswith("R006: cannot write in `RUN/sft`")


def test_a_model_that_no_disk_holds_is_refused_with_both_sizes(tmp_path):
    giant = replace(toy_runs.LLAMA, layers=2000, hidden=65536, ffn=262144)
    said = refused(tmp_path, toy_runs.plan(shape=giant))
    assert said.startswith("R007: 3 checkpoints of ")
    assert "GiB free; lower train.keep_last or use another --dir" in said


def test_another_experiment_in_the_folder_is_refused_with_the_changed_keys(tmp_path):
    _, job, place = checked(tmp_path, toy_runs.plan())
    preflight.write_identity(job, place)
    checked(tmp_path, toy_runs.plan())
    changed = {"hash": "other", "identity": {"train.lr": 1e-6, "data.train.path": "b", "seed": 1}}
    assert refused(tmp_path, toy_runs.plan(job=changed)) == (
        "R008: `RUN/sft` holds another experiment: `data.train.path`, `seed`, `train.lr` changed; "
        "use another --dir, or --fresh sft to begin it again"
    )


def test_a_cuda_plan_on_a_machine_without_is_refused(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    found = toy_runs.plan()
    found = replace(found, cluster=replace(found.cluster, device="cuda", gpu="h100-80gb"))
    plan, _, place = checked(tmp_path, found)
    with pytest.raises(Problem, match="R004: the plan is for h100-80gb, but torch sees no CUDA device"):
        preflight.check_device(plan.cluster, place)


def test_weights_of_a_known_model_are_counted():
    llama2_7b = replace(
        toy_runs.LLAMA, layers=32, hidden=4096, ffn=11008, heads=32, kv_groups=32, head_dim=128, vocab=32000
    )
    assert preflight.parameters(llama2_7b) == 6_738_415_616 - (2 * 32 + 1) * 4096  # published, less the norms


# ── as a process ──────────────────────────────────────────────────────────────────────────────────


def process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "runtime", *map(str, arguments)],
        env=os.environ | {"SPECC_ATTEMPT": "1"} | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def own_lines(stderr):
    return [line for line in stderr.splitlines() if not line.startswith("import time:")]


def test_a_problem_is_one_line_and_torch_is_not_imported_for_it(tmp_path):
    file = toy_runs.written(tmp_path, toy_runs.plan(Layout(tp=2)))
    ended = process(file, "sft", "model")
    assert ended.returncode == 1
    assert own_lines(ended.stderr) == [
        "error[R003]: world size 1 is not TP 2 x PP 1 x CP 1 x DP 1 = 2 of role `model`; "
        "start 2 processes, or compile for 1"
    ]
    assert " torch\n" not in ended.stderr
    error = json.loads((tmp_path / "sft" / "attempts" / "1" / "error-0.json").read_text())
    assert (error["code"], error["rank"], error["step"], error["exit_code"]) == ("R003", 0, None, 1)


def test_only_rank_0_says_what_every_rank_sees(tmp_path):
    ended = process(tmp_path / "none.json", "sft", "model", RANK="1")
    assert (ended.returncode, own_lines(ended.stderr)) == (3, [])


def test_a_wrong_call_shows_the_right_one():
    ended = process("plan.json")
    assert (ended.returncode, own_lines(ended.stderr)) == (2, ["usage: python -m runtime plan.json JOB ROLE"])


# ── the meeting ───────────────────────────────────────────────────────────────────────────────────


def meet(failing, seconds):
    job = toy_runs.plan(Layout(dp=3)).jobs[0]
    place = place_of(Path("plan.json"), job, "model", os.environ)
    found = Problem("R005", "no data here", outside=True) if place.rank in failing else None
    meeting = preflight.Meeting(place)
    agreed = meeting.agree("preflight", found, seconds)
    # here rank 0 holds the store itself, and must not leave before the others have read their verdict
    meeting.agree("leaving", None, seconds)
    if place.is_first:
        time.sleep(1.0)
    return (agreed.code, agreed.message, agreed.outside, agreed.rank) if agreed else None


def test_all_ranks_agree_when_none_has_a_problem(world):
    assert world(3, meet, (), 20) == [None] * 3


def test_the_lowest_rank_with_a_problem_speaks_for_all(world):
    assert world(3, meet, (1, 2), 20) == [("R005", "no data here", True, 1)] * 3


def late(seconds):
    if os.environ["RANK"] == "2":
        job = toy_runs.plan(Layout(dp=3)).jobs[0]
        preflight.Meeting(place_of(Path("plan.json"), job, "model", os.environ))
        time.sleep(2 * seconds)
        return "absent"
    return meet((), seconds)


def test_a_rank_that_does_not_come_is_named_and_nobody_waits_forever(world):
    here = ("R017", "rank 2 did not come to preflight within 2 s", True, 2)
    assert world(3, late, 2) == [here, here, "absent"]


# ── ports ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_taken_port_names_its_holder_and_the_next_is_tried(capsys):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
        assert f"(pid {os.getpid()})" in ports.holder(port)
        assert ports.main([str(port)]) == 0
        said = capsys.readouterr()
        assert int(said.out) > port
        assert f"port {port} is held by " in said.err
    assert ports.is_free(port)


@pytest.mark.parametrize("words", [[], ["x"], ["0"], ["70000"]])
def test_a_port_that_is_none_is_a_wrong_call(words):
    assert ports.main(words) == 2
