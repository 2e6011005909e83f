"""Data: readers of every form, rows refused by file and line, truncation, and the order of the stream."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.data.order import Order, max_steps
from runtime.data.prompt_response import Form, encode, pieces
from runtime.data.rows import open_rows
from runtime.data.tokenised import Tokenised, form_of, tokenised
from runtime.problem import Problem

pytestmark = pytest.mark.torch  # samples live beside tensors


class Letters:
    """A tokenizer that shows what it was given: one token a character."""

    bos_id, eos_id, name = 1, 2, "letters"
    chat_template = "{{ 1 }}"
    adds_leading_space = False

    def encode(self, text):
        return [ord(c) for c in text]


def text(encoded):
    return "".join(chr(t) if t > 2 else "^$"[t - 1] for t in encoded.tokens)


def marks(encoded):
    return "".join(map(str, encoded.mask))


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"input": f"q{i}", "output": f"a{i}"} for i in range(7)]


def rows_of(path, cache, **settings):
    return open_rows({"path": str(path), **settings}, seed=0, cache=cache)


# ── readers ───────────────────────────────────────────────────────────────────────────────────────


def parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3)
    return path


def zipped(path, rows):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def saved(path, rows):
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


def shards(path, rows):
    path.mkdir()
    jsonl(path / "train-0.jsonl", rows[:3])
    parquet(path / "train-1.parquet", rows[3:])
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", jsonl),
        ("rows.parquet", parquet),
        ("rows.jsonl.gz", zipped),
        ("saved", saved),
        ("shards", shards),
    ],
)
def test_every_form_gives_the_same_rows(tmp_path, name, write):
    path = write(tmp_path / name, ROWS)
    rows = rows_of(path, tmp_path / "cache")
    assert [rows[i] for i in range(len(rows))] == ROWS
    assert rows[5] == ROWS[5]  # in any order
    assert rows[0] == ROWS[0]
    assert rows.fingerprint() == rows_of(path, tmp_path / "cache").fingerprint()


def test_rows_come_from_an_fsspec_url(tmp_path):
    import fsspec

    with fsspec.open("memory://bucket/rows.jsonl", "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in ROWS))
    rows = rows_of("memory://bucket/rows.jsonl", tmp_path)
    assert [rows[i] for i in range(len(rows))] == ROWS


def test_a_limit_takes_the_first_rows(tmp_path):
    assert len(rows_of(jsonl(tmp_path / "a.jsonl", ROWS), tmp_path, limit=3)) == 3


def test_blank_lines_do_not_count_but_line_numbers_do(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"input": "x"}\n   \n{"input": "y"}\n')
    rows = rows_of(tmp_path / "a.jsonl", tmp_path)
    assert [rows[0], rows[1]] == [{"input": "x"}, {"input": "y"}]
    assert rows.where(1) == f"{tmp_path}/a.jsonl:4"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{'input': 1}", r"R010: .*a.jsonl:2:2: not JSON: Expecting property name"),
        (b'{"input": "\xff"}', r"R010: .*a.jsonl:2: byte 12 is not UTF-8"),
        (b'["input"]', r"R010: .*a.jsonl:2: expected a JSON object on every line, not a list"),
        (b"[" * 100_000, r"R010: .*a.jsonl:2: nested too deeply"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_bytes(b'{"input": "x"}\n' + line + b"\n")
    rows = rows_of(tmp_path / "a.jsonl", tmp_path)
    with pytest.raises(Problem, match=said):
        rows[1]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none.jsonl", r"R005: no data at `none.jsonl`"),
        (
            "builtin:geometry",
            r"R005: there is no generated data `builtin:geometry`; there is `builtin:arithmetic`",
        ),
        ("memory://nowhere/a.jsonl", r"R005: cannot read `memory://nowhere/a.jsonl`"),
    ],
)
def test_data_that_cannot_be_had_is_a_problem(tmp_path, path, said):
    with pytest.raises(Problem, match=said):
        rows_of(path, tmp_path)


def test_a_file_whose_ending_says_nothing_is_refused(tmp_path):
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(Problem, match=r"no ending that says its format; expected one of \.bz2, \.gz, \.json"):
        rows_of(tmp_path / "data.txt", tmp_path)


# ── prompt and response ───────────────────────────────────────────────────────────────────────────


def test_the_answer_is_trained_and_its_end_too():
    encoded = encode({"input": "1+1=", "output": "2"}, "a:1", Letters(), Form())
    assert text(encoded) == "1+1=2$"
    assert marks(encoded) == "000011"


def test_a_template_is_cut_before_each_placeholder_with_its_spaces():
    shown = [(p.words, p.field) for p in pieces("Q: {question} A: {answer}!")]
    assert shown == [("Q:", ""), (" ", "question"), (" A:", ""), (" ", "answer"), ("!", "")]


def test_values_are_stripped_and_templates_are_not():
    form = Form(prompt="Q: {question}\nA:", response=" {answer}")
    encoded = encode({"question": " why ", "answer": " so "}, "a:1", Letters(), form)
    assert text(encoded) == "Q: why\nA: so$"
    assert marks(encoded) == "0" * 9 + "1" * 4


def test_what_a_stage_made_is_learnt_with_its_spaces():
    """A decision transformer's prompt ends in one, and a response may begin with one."""
    made = {"path": "rows.jsonl", "from": {"stage": "select", "run": ""}}
    form = form_of("train", "sft", made, {"seq_length": 99}, {"add_eos": False})
    row = {"input": "2+2= <rm_score>: 5.0 ", "output": "four "}
    assert text(encode(row, "r", Letters(), form)) == "2+2= <rm_score>: 5.0 four "
    plain = form_of("train", "sft", {"path": "rows.jsonl"}, {"seq_length": 99}, {"add_eos": False})
    assert text(encode(row, "r", Letters(), plain)) == "2+2= <rm_score>: 5.0four"


def test_a_tokenizer_that_adds_a_space_does_not_get_a_second_one():
    tokenizer = Letters()
    tokenizer.adds_leading_space = True
    encoded = encode(
        {"input": "a", "output": "b"}, "a:1", tokenizer, Form(prompt="{input}", response=" {output}")
    )
    assert text(encoded) == "ab$"


def test_begin_and_end_are_what_the_spec_says():
    form = Form(add_bos=True, add_eos=False, answer_only=False)
    encoded = encode({"input": "ab", "output": "c"}, "a:1", Letters(), form)
    assert (text(encoded), marks(encoded)) == ("^abc", "0111")


@pytest.mark.parametrize(
    ("truncation", "expected"), [("right", "Q:abc;A:xy$"), ("left", "Q:efg;A:xy$"), ("drop", "")]
)
def test_an_over_long_row_loses_prompt_but_never_answer(truncation, expected):
    form = Form(prompt="Q:{input};A:", seq_length=11, truncation=truncation)
    encoded = encode({"input": "abcdefg", "output": "xy"}, "a:1", Letters(), form)
    assert text(encoded) == expected
    assert encoded.dropped == ("" if expected else "longer than 11 tokens")


def test_an_over_long_row_can_be_an_error():
    form = Form(seq_length=4, truncation="error")
    with pytest.raises(Problem, match=r"R010: a:7: 8 tokens, but seq_length is 4"):
        encode({"input": "abcde", "output": "xy"}, "a:7", Letters(), form)


def test_a_response_that_alone_is_too_long_is_dropped():
    encoded = encode({"input": "a", "output": "x" * 9}, "a:1", Letters(), Form(seq_length=6))
    assert encoded.dropped == "response does not fit in 6 tokens"


@given(st.text("abc", max_size=9), st.text("def", max_size=9), st.text("xyz", min_size=1, max_size=5))
def test_the_excess_is_taken_from_all_fields_and_the_row_fills_the_length(a, b, answer):
    form = Form(prompt="<{a}|{b}>", response="{answer}", seq_length=12)
    encoded = encode({"a": a, "b": b, "answer": answer}, "a:1", Letters(), form)
    whole = len(f"<{a}|{b}>{answer}$")
    if not encoded.dropped:
        assert len(encoded.tokens) == min(whole, 12)
        assert text(encoded).endswith(f">{answer}$")
        assert text(encoded)[0] == "<"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "x", "output": "y"}, r"a:3: no field `input`; the row has question, output"),
        ({"input": None, "output": "y"}, r"a:3: field `input` is null; expected text"),
        ({"input": ["x"], "output": "y"}, r"a:3: field `input` is a list; expected text"),
        ({"input": True, "output": "y"}, r"a:3: field `input` is a boolean; expected text"),
    ],
)
def test_a_row_without_its_fields_is_refused_by_line(row, said):
    with pytest.raises(Problem, match=said):
        encode(row, "a:3", Letters(), Form())


def test_a_field_may_lie_in_an_object():
    row = {"qa": {"q": "x", "a": 7}}
    encoded = encode(row, "a:1", Letters(), Form(prompt="{qa.q}", response="{qa.a}"))
    assert text(encoded) == "x7$"


# ── tokenised sets ────────────────────────────────────────────────────────────────────────────────


def prepare(folder, path, form=None, tokenizer=None, **settings):
    data = {"path": str(path), **settings}
    form = form or form_of("train", "sft", data, {"seq_length": 32}, {})
    tokenizer = tokenizer or Letters()
    made = tokenised(data, form, tokenizer, tokenizer_name="letters", template="", seed=0, folder=folder)
    return Tokenised(made)


def test_samples_come_back_as_they_were_encoded(tmp_path):
    samples = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", ROWS))
    assert len(samples) == 7
    assert [(s.id, "".join(map(chr, s.tokens))) for s in map(samples.__getitem__, range(7))] == [
        (i, f"q{i}a{i}\x02") for i in range(7)
    ]
    assert samples[3].mask == [0, 0, 1, 1, 1]


def test_what_is_cut_and_dropped_is_counted(tmp_path):
    rows = [{"input": "q" * n, "output": "a" * m} for n, m in [(2, 2), (9, 2), (1, 20)]]
    samples = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", rows), Form(seq_length=8))
    assert samples.summary() == "3 rows: 2 kept (1 cut), 1 dropped (1 response does not fit in 8 tokens)"


def test_the_same_data_is_tokenised_once_and_changed_data_again(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    first = prepare(tmp_path, path)
    assert prepare(tmp_path, path).folder == first.folder
    assert prepare(tmp_path, path, Form(seq_length=16)).folder != first.folder
    jsonl(path, ROWS[:3])
    again = prepare(tmp_path, path)
    assert (again.folder != first.folder, again.hash != first.hash, len(again)) == (True, True, 3)


@pytest.mark.parametrize("name", ["tokens.npy", "rows.npy", "facts.json"])
@pytest.mark.parametrize(
    "harm", [lambda content: b"", lambda content: b"junk", lambda content: content[:-20]]
)
def test_tokens_that_were_harmed_are_made_anew(tmp_path, name, harm):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    harmed = prepare(tmp_path, path).folder / name
    harmed.write_bytes(harm(harmed.read_bytes()))
    again, elsewhere = prepare(tmp_path, path), prepare(tmp_path / "elsewhere", path)
    assert [again[i] for i in range(7)] == [elsewhere[i] for i in range(7)]


def test_what_a_kill_left_of_tokens_goes_when_they_are_written_again(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    whole = prepare(tmp_path / "data", path).folder
    whole.rename(whole.with_name(f".{whole.name}.123"))
    assert len(prepare(tmp_path / "data", path)) == 7
    assert [folder.name for folder in (tmp_path / "data").iterdir()] == [whole.name]


def test_data_of_which_no_row_is_left_is_a_problem(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"input": "x", "output": "y" * 99}] * 3)
    with pytest.raises(
        Problem, match=r"R011: no row of `.*` can be used: 3 response does not fit in 8 tokens"
    ):
        prepare(tmp_path, path, Form(seq_length=8))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(Problem, match=r"R011: no row of `.*` can be used: it is empty"):
        prepare(tmp_path, tmp_path / "empty.jsonl")


def chat_rows(path, answers):
    said = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": a}] for a in answers]
    return jsonl(path, [{"messages": m} for m in said])


def test_chats_are_known_by_their_rows_and_cut_on_the_right(tmp_path):
    from runtime import tokenizer

    own = tokenizer.load("builtin:bytes")
    path = chat_rows(tmp_path / "a.jsonl", ["yes", "no " * 30])
    samples = prepare(tmp_path, path, Form(seq_length=40), own)
    assert samples.facts["cut"] == 1
    assert len(samples[1].tokens) == 40
    trained = [t for t, m in zip(samples[0].tokens, samples[0].mask, strict=True) if m]
    assert own.decode(trained).startswith("yes")


def test_a_chat_that_loses_its_answer_is_dropped_and_one_without_is_refused(tmp_path):
    from runtime import tokenizer

    own = tokenizer.load("builtin:bytes")
    path = chat_rows(tmp_path / "a.jsonl", ["yes"])
    with pytest.raises(Problem, match=r"R011: no row .* 1 no answer within 8 tokens"):
        prepare(tmp_path, path, Form(seq_length=8), own)
    jsonl(path, [{"messages": [{"role": "user", "content": "hi"}]}])
    with pytest.raises(Problem, match=r"R010: .*a.jsonl:1: "):
        prepare(tmp_path, path, Form(seq_length=64), own)


def learnt(samples, own):
    return [own.decode([t for t, m in zip(s.tokens, s.mask, strict=True) if m]) for s in samples]


def test_of_a_conversation_all_answers_are_learnt_or_the_last_one(tmp_path):
    from runtime import tokenizer

    own = tokenizer.load("builtin:bytes")
    turns = [("user", "q"), ("assistant", "old"), ("user", "r"), ("assistant", "new")]
    path = jsonl(tmp_path / "a.jsonl", [{"messages": [{"role": r, "content": c} for r, c in turns]}])
    found = {
        turns: learnt(prepare(tmp_path, path, Form(seq_length=200, turns=turns), own), own)
        for turns in ("all", "last")
    }
    assert found["last"] == ["new" + own.decode([own.eos_id])]
    assert found["all"][0].startswith("old")
    assert found["all"][0].endswith(found["last"][0])
    plain = learnt(prepare(tmp_path, path, Form(seq_length=200), own), own)
    assert plain == found["all"], "unless said otherwise all answers are learnt"


def test_an_answer_that_was_cut_is_learnt_without_an_end_unless_the_spec_says_so(tmp_path):
    from runtime import tokenizer

    own = tokenizer.load("builtin:bytes")
    texts = [{"input": "q", "output": "aaa", "finish": way} for way in ("stop", "length")]
    path, end = jsonl(tmp_path / "a.jsonl", texts), own.decode([own.eos_id])
    form = Form(seq_length=99, response="{output}!")
    closed = replace(form, cut_answers="closed")
    assert learnt(prepare(tmp_path, path, form, own), own) == ["aaa!" + end, "aaa"]
    assert learnt(prepare(tmp_path, path, closed, own), own) == ["aaa!" + end] * 2
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "aaa"}]
    path = jsonl(tmp_path / "b.jsonl", [{"messages": turns, "finish": way} for way in ("stop", "length")])
    assert learnt(prepare(tmp_path, path, form, own), own) == ["aaa" + end, "aaa"]
    assert learnt(prepare(tmp_path, path, closed, own), own) == ["aaa" + end] * 2


def test_a_cut_answer_that_says_nothing_is_left_out(tmp_path):
    from runtime import tokenizer

    own = tokenizer.load("builtin:bytes")
    rows = [{"input": "q", "output": text, "finish": "length"} for text in ("", "a")]
    found = prepare(tmp_path, jsonl(tmp_path / "a.jsonl", rows), Form(seq_length=99), own)
    assert (learnt(found, own), found.facts["dropped"]) == (["a"], {"cut at the limit with nothing said": 1})


def test_a_row_among_chats_that_is_none_is_refused_by_line(tmp_path):
    from runtime import tokenizer

    path = chat_rows(tmp_path / "a.jsonl", ["yes"])
    path.write_text(path.read_text() + '{"text": "x"}\n')
    with pytest.raises(
        Problem, match=r"a.jsonl:2: expected a list `messages` or `conversations`; the row has text"
    ):
        prepare(tmp_path, path, Form(seq_length=64), tokenizer.load("builtin:bytes"))


def test_generated_sums_are_right_and_depend_on_the_seed():
    rows = open_rows({"path": "builtin:arithmetic"}, seed=5, cache=Path("unused"))
    for i in range(50):
        a, b = rows[i]["input"].rstrip("=").split("+")
        assert int(a) + int(b) == int(rows[i]["output"])
    other = open_rows({"path": "builtin:arithmetic"}, seed=6, cache=Path("unused"))
    assert [rows[i] for i in range(9)] != [other[i] for i in range(9)]
    chat = open_rows({"path": "builtin:arithmetic", "subset": "chat"}, seed=5, cache=Path("unused"))
    assert [m["content"] for m in chat[4]["messages"]] == [rows[4]["input"], rows[4]["output"]]


# ── the stream ────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 2**40))
def test_an_epoch_holds_every_sample_once(count, batch, seed):
    order = Order(count, seed)
    steps = -(-3 * count // batch)
    stream = [i for step in range(steps) for i in order.indices(step, batch)]
    for epoch in range(3):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(st.integers(2, 40), st.integers(1, 17), st.integers(0, 50))
def test_a_step_is_the_same_whoever_asks_and_when(count, batch, step):
    asked = Order(count, 7)
    for before in range(step):
        asked.indices(before, batch)
    assert asked.indices(step, batch) == Order(count, 7).indices(step, batch)


def test_epochs_differ_and_seeds_differ():
    first = Order(30, 1)
    assert first.indices(0, 30) != first.indices(1, 30)
    assert first.indices(0, 30) != Order(30, 2).indices(0, 30)
    assert Order(30, 1, shuffle=False).indices(1, 30) == list(range(30))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"steps": 5}, 5),
        ({"epochs": 2}, 5),
        ({"steps": 3, "epochs": 2}, 3),
        ({"epochs": 0.1}, 1),
        ({"epochs": 1}, 2),
    ],
)
def test_the_number_of_steps_comes_from_steps_or_epochs(train, expected):
    assert max_steps(train, count=10, global_batch=4) == expected


def test_a_run_without_steps_and_epochs_is_a_problem():
    with pytest.raises(Problem, match="R012: neither `steps` nor `epochs` is above 0"):
        max_steps({"steps": 0}, 10, 4)
