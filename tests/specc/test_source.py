"""From a file to data with spans; `--set`; canonical YAML."""

import pytest

from specc import source
from specc.diagnostics import render

SPEC = "name: toy\ntrain:\n  lr: 1e-5\n  betas: [0.9, 0.95]\nmodel: tiny\n"


def parsed(text=SPEC):
    read, said = source.parse(text, "spec.yaml")
    assert not said
    return read


def test_a_file_is_read_with_its_name(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    read, said = source.read(file)
    assert (read.name, read.data["train"]["lr"], said) == (str(file), 1e-5, [])


def test_a_file_that_is_not_there_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        source.read(tmp_path / "spec.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: toy\n")
    read, said = source.read(file)
    assert (read.data, said) == ({"name": "toy"}, [])
    assert read.spans["name"][0].column == 1


def test_windows_line_ends_are_no_mistake():
    assert parsed("a: 1\r\nb:\r\n  c: x\r\n").data == {"a": 1, "b": {"c": "x"}}


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_bytes(b"a: x\n" * (source.MAX_BYTES // 5 + 1))
    assert [d.code for d in source.read(file)[1]] == ["S005"]


def test_every_value_has_the_span_of_its_key_and_of_itself():
    spans = parsed().spans
    key, value = spans["train.lr"]
    assert (key.line, key.column, value.column, value.end_column) == (3, 3, 7, 11)
    assert spans["train.betas[1]"][1].column == 16


# --- --set -------------------------------------------------------------------------------------------


def with_set(*overrides, text=SPEC):
    return source.with_overrides(parsed(text), overrides)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.lr=1e-6", ("train", "lr"), 1e-6),
        ("train.steps=10", ("train", "steps"), 10),
        ("train.betas[1]=0.99", ("train", "betas"), [0.9, 0.99]),
        ("train={lr: 1}", ("train",), {"lr": 1}),
        ("name=a=b", ("name",), "a=b"),
        ("train.lr=", ("train", "lr"), None),
        ("parallel.tp=2", ("parallel", "tp"), 2),
        ('model="4"', ("model",), "4"),
    ],
)
def test_a_value_is_set_as_if_it_stood_in_the_file(override, path, value):
    changed, said = with_set(override)
    assert not said
    found = changed.data
    for key in path:
        found = found[key]
    assert found == value
    assert changed.overrides == (override,)


def test_setting_leaves_the_source_as_it_was():
    before = parsed()
    source.with_overrides(before, ["train.betas[0]=0.5", "train.lr=1"])
    assert before.data == parsed().data


def test_the_last_of_two_wins():
    assert with_set("name=a", "name=b")[0].data["name"] == "b"


def test_a_set_value_is_shown_as_the_person_typed_it():
    changed, _ = with_set("train.lr=abc")
    from specc.diagnostics import Diagnostic

    text = render([Diagnostic("T002", "error", "no", "train.lr")], changed)
    assert "--> --set:1:16" in text
    assert "1 | --set train.lr=abc\n  |                ^^^" in text


def test_what_lay_below_a_replaced_value_is_forgotten():
    changed, _ = with_set("train={steps: 3}")
    assert "train.lr" not in changed.spans
    assert changed.spans["train.steps"][1].origin is not None


def test_aliases_are_copies_so_that_setting_one_leaves_the_other():
    changed, _ = with_set("b.x=2", text="a: &a {x: 1}\nb: *a\n")
    assert changed.data == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize(
    "override", ["", "=1", "a", "a..b=1", ".a=1", "a.=1", "a b=1", "train.betas[7]=1", "model.x=1"]
)
def test_a_set_that_cannot_be_applied_says_so(override):
    assert [d.code for d in with_set(override)[1]] == ["S010"]


# --- canonical YAML ----------------------------------------------------------------------------------


def test_canonical_yaml_reads_well():
    data = {
        "name": "x",
        "train": {"lr": 1e-5, "betas": [0.9, 0.95], "wandb": None, "on": True},
        "env": {},
        "n": "12",
    }
    assert source.dump(data) == (
        'name: x\ntrain:\n  lr: 1e-05\n  betas: [0.9, 0.95]\n  wandb: null\n  on: true\nenv: {}\nn: "12"\n'
    )


def test_sections_within_lists_are_written_in_block_form():
    data = {"a": [{"b": 1, "c": [1, 2]}, {"d": {"e": "f"}}, [["x"]]]}
    assert source.parse(source.dump(data), "x")[0].data == data
