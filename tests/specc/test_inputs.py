"""Data that is absent, bad or fine."""

import json
import os

import pytest

from specc import inputs, source
from specc.experiment import check


def said(tmp_path, rows, files=(), strict=False, model="tiny-llama"):
    for name, content in dict(files).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = {"name": "toy", "algorithm": "sft", "model": model, "data": {"train": rows}}
    experiment, wrong = check(source.parse(source.dump(data), "spec.yaml")[0])
    assert not wrong
    return [(d.severity, d.code, d.path) for d in inputs.check(experiment, tmp_path, strict)]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


FINE = {"input": "1+1", "output": 2}


@pytest.mark.parametrize(
    "content",
    [
        lines(FINE, FINE),
        "\n" + lines(FINE) + "\n\n",
        "\ufeff" + lines(FINE),
        lines(FINE).rstrip("\n"),
        lines(FINE).replace("\n", "\r\n"),
        lines({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        lines({"conversations": [{"from": "User", "value": "a"}], "system": ""}),
    ],
)
def test_rows_that_are_fine_are_not_spoken_of(tmp_path, content):
    assert said(tmp_path, "rows.jsonl", {"rows.jsonl": content}) == []


def test_fields_may_lie_within_fields(tmp_path):
    rows = {"path": "rows.jsonl", "prompt": "{a.b}", "response": "{c.d}"}
    assert said(tmp_path, rows, {"rows.jsonl": lines({"a": {"b": "x"}, "c.d": "y"})}) == []


def test_absent_data_is_a_warning_and_for_a_run_an_error(tmp_path):
    assert said(tmp_path, "rows.jsonl") == [("warning", "G010", "data.train.path")]
    assert said(tmp_path, "rows.jsonl", strict=True) == [("error", "G010", "data.train.path")]


@pytest.mark.parametrize(
    "path", ["s3://bucket/rows.jsonl", "nvidia/HelpSteer", "https://x.y/z.jsonl", "gsm8k"]
)
def test_what_lies_elsewhere_is_not_looked_for(tmp_path, path):
    assert said(tmp_path, path, strict=True) == []


@pytest.mark.parametrize(
    "path", ["x" * 5000 + "/y/z", "~nobody-of-this-name/x/y.jsonl", "file:///none/x.jsonl"]
)
def test_a_path_that_cannot_exist_is_absent(tmp_path, path):
    assert [code for _, code, _ in said(tmp_path, path)] in (["G010"], [])


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "G011"),
        (b"\n \n", "G011"),
        (b'{"input": "caf\xe9"}\n', "G012"),
        (b'{"input": 1, "output": \n', "G013"),
        (b"[1]\n", "G013"),
        (b"null\n", "G013"),
        (b"[" * 100_000 + b"\n", "G013"),
        (b'{"input": ' + b"9" * 10_000 + b"}\n", "G013"),
        (b'{"input": "a"}\n', "G014"),
        (b'{"input": null, "output": "a"}\n', "G014"),
        (b'{"messages": []}\n', "G014"),
        (b'{"messages": ["a"]}\n', "G014"),
        (b'{"messages": [{"content": "a"}]}\n', "G014"),
    ],
)
def test_a_file_that_is_here_and_bad_is_an_error(tmp_path, content, code):
    assert [(s, c) for s, c, _ in said(tmp_path, "rows.jsonl", {"rows.jsonl": content})] == [("error", code)]


def test_only_the_rows_that_are_used_are_judged(tmp_path):
    rows = {"path": "rows.jsonl", "limit": 1}
    assert said(tmp_path, rows, {"rows.jsonl": lines(FINE, {"x": 1})}) == []


def test_only_the_head_of_a_large_file_is_read(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = lines({"input": "x" * 50_000, "output": "y"})
    file.write_text(row * 40 + "not json\n")
    assert said(tmp_path, "rows.jsonl") == []


def test_a_line_longer_than_the_head_is_not_judged(tmp_path):
    (tmp_path / "rows.jsonl").write_text(lines({"input": "x" * (inputs.HEAD_BYTES + 10), "output": "y"}))
    assert said(tmp_path, "rows.jsonl") == []


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    assert said(tmp_path, "rows.jsonl") == [("error", "G012", "data.train.path")]


def test_a_folder_is_judged_by_its_first_file(tmp_path):
    files = {"rows/b.jsonl": lines(FINE), "rows/a.jsonl": lines({"x": 1})}
    assert [c for _, c, _ in said(tmp_path, "rows", files)] == ["G014"]
    split = {"path": "rows", "split": "b"}
    assert said(tmp_path, split, files) == []


def test_a_missing_field_points_at_the_template_that_names_it(tmp_path):
    rows = {"path": "rows.jsonl", "prompt": "{input}", "response": "{answer}"}
    assert said(tmp_path, rows, {"rows.jsonl": lines(FINE)}) == [("error", "G014", "data.train.response")]


def test_what_the_compiler_knows_of_generated_data_is_what_the_runtime_has():
    text = (source.Path(inputs.__file__).parent.parent / "runtime/data/builtin.py").read_text()
    assert all(f'"{name}"' in text for name in inputs.BUILTIN)


def test_a_model_folder_without_weights_is_a_warning_and_for_a_run_an_error(tmp_path):
    files = {"ckpt/config.json": "{}"}
    found = [(s, c) for s, c, _ in said(tmp_path, "builtin:arithmetic", files, model="./ckpt")]
    assert found == [("warning", "G020")]
    found = [(s, c) for s, c, _ in said(tmp_path, "builtin:arithmetic", model="./ckpt", strict=True)]
    assert found == [("error", "G020")]
