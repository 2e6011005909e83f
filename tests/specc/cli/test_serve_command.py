"""`specc serve` and `specc chat` as a person runs them: up, asked, told to stop, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(900)]

sys.path.insert(0, str(Path(__file__).parents[2] / "runtime"))
import toy_answering  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_answering.folder(tmp_path_factory.mktemp("served") / "tiny")


def begun(*words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "specc", *map(str, words)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SPECC_API_KEY": ""},
        **more,
    )


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes, seconds=30):
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_a_server_says_where_it_is_answers_and_ends_well(folder):
    process = begun("serve", folder, "--port", "0", "--name", "mine")
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), process.communicate(timeout=60)
    ranks = family(process)
    body = json.dumps({"sentences": ["1+1="], "tokens_to_generate": 4}).encode()
    request = urllib.request.Request(f"{url}/generate", body, method="PUT")
    with urllib.request.urlopen(request, timeout=120) as response:
        assert json.load(response)["sentences"][0].startswith("1+1=")
    second = begun("serve", folder, "--port", url.rsplit(":", 1)[1])
    _, said = second.communicate(timeout=300)
    assert second.returncode in (1, 3)
    assert "error[R050]" in said
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == ""
    assert "loading `mine`" in err
    assert gone(ranks)


def test_ctrl_c_while_the_model_is_loaded_ends_at_once(folder):
    process = begun("serve", folder, "--port", "0")
    assert "loading" in process.stderr.readline()
    time.sleep(1)
    ranks = family(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert gone(ranks)


def test_a_conversation_through_a_pipe_answers_each_line_and_leaves_nothing(folder):
    words = ("--temperature", "0", "--max-tokens", "8", "--tokenizer", "builtin:bytes")
    process = begun(
        *("chat", folder, "--chat-template", "extra_id", "--attributes", "quality=4", *words),
        stdin=subprocess.PIPE,
    )
    lines = [
        "hello",
        "/attributes humor=1",
        "/nonsense",
        "x" * 600,
        "/reset",
        "/attributes quality:4",
        "hello",
    ]
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()
    deadline = time.monotonic() + 300
    while not (ranks := family(process)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ranks
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "attributes: humor:1" in err
    assert "there is no /nonsense" in err
    assert "not answered: `messages` has" in err
    half = len(out) // 2
    assert out[:half] == out[half:]  # the same question twice, the second time anew
    assert len(out) > 2
    assert gone(ranks)


def test_a_chat_with_what_cannot_answer_ends_with_the_servers_word(tmp_path):
    (tmp_path / "x").mkdir()
    process = begun("chat", tmp_path / "x", stdin=subprocess.DEVNULL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error[R031]" in err


def test_attributes_that_are_none_are_a_usage_error(tmp_path):
    process = begun("chat", "http://127.0.0.1:9", "--attributes", "quality", stdin=subprocess.DEVNULL)
    assert "quality=4" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
