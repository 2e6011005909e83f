"""The warm process with real imports and real ranks: the same bytes and words as torchrun's, in less time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from specc import shipped

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks ranks"),
]

MEASURED = ("_seconds", "_per_second", "_gib", "_per_gpu")


def begun(folder, spec, *words, warm):
    """`specc run SPEC --tiny`, not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "specc", "run", str(spec), "--tiny", "--dir", str(folder), *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "SPECC_WARM": "1" if warm else "0"},
    )


def series(folder, stage):
    """What a stage's steps say, but for time and memory."""
    rows = map(json.loads, (folder / stage / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if not key.endswith(MEASURED)} for row in rows]


def started_by(run, folder, stage):
    """The process that starts a stage's ranks, and its program; waits until the stage has taken a step."""
    until = time.monotonic() + 250
    while not (folder / stage / "metrics.jsonl").exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    if run.poll() is not None:
        pytest.fail(run.communicate()[1])
    child = psutil.Process(run.pid).children()[0]
    return child.pid, child.cmdline()[2]


def weights(folder):
    """The bytes of what the run has saved and exported, by their places in its folder."""
    kinds = ("*.distcp", "*.safetensors", "*.jsonl")
    files = [path for kind in kinds for path in folder.rglob(kind) if path.name != "metrics.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_the_second_stage_of_one_process_has_the_bytes_that_torchrun_gives(tmp_path):
    spec, folder, found = shipped.specs() / "sft_two_stages.yaml", tmp_path / "run", {}
    for warm in (True, False):  # torchrun goes on behind the first stage
        run = begun(folder, spec, warm=warm)
        starters = [started_by(run, folder, stage) for stage in ("chat", "maths")[0 if warm else 1 :]]
        _, err = run.communicate(timeout=280)
        assert run.returncode == 0, err
        assert {program for _, program in starters} == {"runtime.warm" if warm else "torch.distributed.run"}
        assert len(set(starters)) == 1  # one process for both stages
        found[warm] = series(folder, "maths"), weights(folder / "maths")
        shutil.rmtree(folder / "maths")
    assert found[True] == found[False]
    rows, files = found[True]
    assert len(rows) >= 10
    assert any(name.endswith(".distcp") for name in files)


@pytest.mark.parametrize("warm", [False, True])
def test_what_goes_wrong_is_told_in_the_same_words(tmp_path, warm):
    stage = tmp_path / "run" / "sft"
    stage.mkdir(parents=True)
    (stage / "data").write_text("in the way of a folder")
    run = begun(tmp_path / "run", shipped.specs() / "sft_tiny.yaml", warm=warm)
    _, err = run.communicate(timeout=280)
    assert run.returncode == 3, err
    (said,) = [line for line in err.splitlines() if line.startswith("error")]
    assert re.fullmatch(rf"error\[R006\]: cannot use `{stage}/data/\S+`: not a directory \(rank 0\)", said)
    assert "sft: failed; logs in" in err
    assert "Traceback" not in err


def test_ctrl_c_saves_and_leaves_no_process(tmp_path):
    folder, spec = tmp_path / "run", shipped.specs() / "sft_tiny.yaml"
    run = begun(folder, spec, "--set", "train.steps=3000", "--set", "train.save_every=0", warm=True)
    until = time.monotonic() + 250
    while not (folder / "sft/metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) == 4  # the warm process, a leader, two ranks
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=250)
    assert run.returncode == 130, err
    assert len(list((folder / "sft/checkpoint").glob("step-*"))) == 1
    assert psutil.wait_procs(family, timeout=10)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_process_forks_only_while_it_has_one_thread(threads):
    if threads > (os.cpu_count() or 1):
        pytest.skip("a machine of one core starts no threads by itself")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    ran = subprocess.run(
        [sys.executable, "-m", "runtime.warm"],
        input="",
        capture_output=True,
        text=True,
        env=environment,
        timeout=250,
    )
    if threads == 1:
        assert (ran.returncode, json.loads(ran.stdout)) == (0, {"ready": True}), ran.stderr
    else:
        assert (ran.returncode, ran.stdout) == (3, "")
        assert "threads run after the imports" in ran.stderr
