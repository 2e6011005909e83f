"""Comparisons, marks, dialogues and prompts: every form of row, what is dropped and what is refused."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.data import hh
from runtime.data.judged import JudgedForm
from runtime.data.prompts import PromptForm
from runtime.data.rows import open_rows
from runtime.data.tokenised import Tokenised, form_of, tokenised
from runtime.problem import Problem

pytestmark = pytest.mark.torch  # samples live beside tensors

SHARED = Path(os.environ.get("SPECC_SHARED", Path(__file__).parents[3] / "shared")) / "data"


class Letters:
    """A tokenizer that shows what it was given: one token a character."""

    bos_id, eos_id, name = 1, 2, "letters"
    chat_template = ""
    specials: dict[str, str] = {}  # noqa: RUF012
    adds_leading_space = False

    def encode(self, text):
        return [ord(c) for c in text]

    def encode_pieces(self, pieces):
        return [self.encode(piece) for piece in pieces]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder, rows, form, **settings):
    """The samples of these rows."""
    path = rows if isinstance(rows, Path) else jsonl(folder / "rows.jsonl", rows)
    data = {"path": str(path), **settings}
    made = tokenised(data, form, Letters(), tokenizer_name="x", template="extra_id", seed=0, folder=folder)
    return Tokenised(made)


def shown(sample):
    """A sample's text, `$` for the end token; the place where it is read is checked."""
    *tokens, last = sample.tokens
    assert last == tokens[-1]
    assert list(sample.mask) == [0] * len(tokens) + [1]
    return "".join(chr(t) if t > 2 else "^$"[t - 1] for t in tokens)


def pairs(samples):
    return [(shown(samples[i]), shown(samples[i + 1])) for i in range(0, len(samples), 2)]


COMPARE = JudgedForm(seq_length=200, add_eos=False)
THREE = {"prompt": "2+2=", "chosen": "4", "rejected": "5"}


# ── comparisons ──────────────────────────────────────────────────────────────────────────────────


def test_two_rows_that_follow_one_another_make_a_comparison(tmp_path):
    samples = read(tmp_path, [{"text": t} for t in ("a good", "a bad", "b good", "b bad")], COMPARE)
    assert pairs(samples) == [("a good", "a bad"), ("b good", "b bad")]
    assert (samples.group, samples.facts["kept"], [samples[i].id for i in range(4)]) == (2, 2, [0, 1, 2, 3])


def test_a_row_may_hold_prompt_chosen_and_rejected(tmp_path):
    assert pairs(read(tmp_path, [THREE], COMPARE)) == [("2+2=4", "2+2=5")]


def test_templates_rename_the_fields(tmp_path):
    form = JudgedForm(prompt="Q: {q}\n", chosen="A: {good}", rejected="A: {bad}", seq_length=99, add_eos=True)
    samples = read(tmp_path, [{"q": "1+1", "good": "2", "bad": "3"} | {"chosen": ""}], form)
    assert pairs(samples) == [("Q: 1+1\nA: 2$", "Q: 1+1\nA: 3$")]


ASKED = {"role": "user", "content": "2+2?"}
TURN_A, TURN_B = ({"role": "assistant", "content": c} for c in "45")
HEAD = "<extra_id_0>System\n\n<extra_id_1>User\n2+2?\n<extra_id_1>Assistant\n"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "chosen": [TURN_A], "rejected": [TURN_B]},
        {"prompt": "2+2?", "chosen": [ASKED, TURN_A], "rejected": [ASKED, TURN_B]},
        {"messages": [ASKED], "chosen": TURN_A, "rejected": TURN_B},
        {"prompt": [ASKED], "chosen": [ASKED, TURN_A], "rejected": [ASKED, TURN_B]},
    ],
)
def test_conversations_are_compared_in_the_chat_template(tmp_path, row):
    [pair] = pairs(read(tmp_path, [row], JudgedForm(seq_length=200)))
    assert pair == (f"{HEAD}4\n<extra_id_1>", f"{HEAD}5\n<extra_id_1>")


def test_the_sign_of_a_label_says_which_is_better_and_its_size_how_clearly(tmp_path):
    nine = [-100.0] * 8
    rows = [{"text": t, "label": [s, *nine]} for t, s in zip("abcdef", (-3, -3, 2, 2, 0, 0), strict=True)]
    samples = read(tmp_path, rows, JudgedForm(strength=True, seq_length=9, add_eos=False))
    assert pairs(samples) == [("a", "b"), ("d", "c")]
    assert [samples[i].labels for i in range(4)] == [(3.0,), (3.0,), (2.0,), (2.0,)]
    assert samples.summary() == "3 rows: 2 kept, 1 dropped (1 without a preference)"


def test_what_teaches_nothing_and_what_is_too_long_is_dropped_with_its_partner_and_counted(tmp_path):
    rows = [THREE, THREE | {"rejected": "4"}, THREE | {"rejected": "5" * 99}, THREE | {"margin": 0}]
    samples = read(tmp_path, rows, JudgedForm(seq_length=20))
    assert samples.summary() == (
        "4 rows: 1 kept, 3 dropped (1 longer than 20 tokens, 1 of two equal texts, 1 without a preference)"
    )
    assert len(samples) == 2


@pytest.mark.parametrize(("truncation", "kept"), [("left", "cdefgh$"), ("right", "abcdef$")])
def test_a_text_may_be_cut_at_either_end_but_never_its_end_token(tmp_path, truncation, kept):
    rows = [{"text": "abcdefgh"}, {"text": "x"}]
    samples = read(tmp_path, rows, JudgedForm(seq_length=7, truncation=truncation))
    assert pairs(samples) == [(kept, "x$")]
    assert samples.facts["cut"] == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([THREE, {"prompt": "x", "chosen": "y"}], "rows.jsonl:2: no field `rejected`; the row has prompt"),
        ([THREE | {"chosen": 4}], "rows.jsonl:1: field `chosen` is a int; expected text"),
        ([THREE | {"strength": "big"}], "rows.jsonl:1: `strength` is `'big'`, expected a number"),
        ([THREE | {"strength": -1}], "rows.jsonl:1: `strength` is -1; of `chosen` it is 0 or more"),
        ([{"text": "a"}, {"text": "b"}, {"text": "c"}], "rows.jsonl:3: its partner is missing"),
        ([{"text": "a"}, {"txt": "b"}], "rows.jsonl:2: expected `text`, or `chosen` and `rejected`"),
        ([{"text": "a"}, {"text": None}], "rows.jsonl:2: `text` is null; expected text"),
        (
            [{"text": "a", "label": [1]}, {"text": "b"}],
            "rows.jsonl:2: label None beside 1.0 of the row before",
        ),
        ([{"text": "", "label": -1}, {"text": "b", "label": -1}], "rows.jsonl:1: the text is empty"),
        ([THREE | {"chosen": [TURN_A]}], "rows.jsonl:1: `rejected` is text; expected turns like the other"),
        (
            [{"messages": [], "chosen": [], "rejected": []}],
            "rows.jsonl:1: `chosen` is a list; expected turns",
        ),
        ([{"prompt": [ASKED], "chosen": [ASKED], "rejected": [TURN_A]}], "rows.jsonl:1: nothing to learn"),
    ],
)
def test_a_bad_comparison_is_refused_by_file_and_line(tmp_path, rows, said):
    with pytest.raises(Problem) as caught:
        read(tmp_path, rows, COMPARE)
    assert caught.value.code == "R010"
    assert said in caught.value.message


@pytest.mark.parametrize("rows", [[THREE], [{"text": "a"}, {"text": "b"}]])
def test_a_loss_that_wants_strengths_refuses_rows_without(tmp_path, rows):
    with pytest.raises(Problem, match="how clear the preference is"):
        read(tmp_path, rows, JudgedForm(strength=True))


@given(st.lists(st.tuples(st.text("ab", min_size=1, max_size=9), st.booleans()), min_size=2, max_size=8))
def test_a_row_is_kept_whole_or_not_at_all(tmp_path_factory, texts):
    rows = [THREE | {"chosen": t, "rejected": "c" * (9 if long else 1)} for t, long in texts]
    samples = read(tmp_path_factory.mktemp("rows"), [*rows, THREE], JudgedForm(seq_length=11, add_eos=False))
    kept = [i for i, (text, long) in enumerate(texts) if len(text) <= 7 and not long] + [len(rows)]
    assert [samples[i].id for i in range(len(samples))] == [2 * i + k for i in kept for k in (0, 1)]


# ── marks ────────────────────────────────────────────────────────────────────────────────────────

MARK = JudgedForm("attributes", attributes=("kind", "long"), seq_length=200, add_eos=False)


def test_marks_are_as_many_as_the_attributes_and_some_are_missing(tmp_path):
    rows = [
        {"text": "a", "label": [4, -100.0]},
        {"text": "b", "long": 2.5},
        {"text": "c", "label": [-100, None]},
        {"messages": [ASKED, TURN_A], "label": [1, 2]},
    ]
    samples = read(tmp_path, rows, MARK)
    assert [samples[i].labels for i in range(3)] == [(4.0, -100.0), (-100.0, 2.5), (1.0, 2.0)]
    assert [shown(samples[i]) for i in range(3)] == ["a", "b", f"{HEAD}4\n<extra_id_1>"]
    assert samples.summary() == "4 rows: 3 kept, 1 dropped (1 without a label)"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": [1]}, "`label` is a list of 1, expected a number for each of 2: kind, long"),
        ({"text": "a", "label": 3}, "`label` is a int, expected a number for each of 2"),
        ({"text": "a", "label": [1, "x"]}, "label 2 is `'x'`, expected a number"),
        ({"text": "a", "label": [1, float("inf")]}, "label 2 is `inf`, expected a number"),
        ({"text": "a"}, "expected a list `label` of 2 numbers, or kind, long; the row has text"),
        ({"label": [1, 2]}, "`text` is missing; expected text, or a conversation"),
    ],
)
def test_a_bad_mark_is_refused_by_file_and_line(tmp_path, row, said):
    with pytest.raises(Problem) as caught:
        read(tmp_path, [{"text": "x", "label": [0, 0]}, row], MARK)
    assert caught.value.message.startswith(f"{tmp_path}/rows.jsonl:2: {said}")


# ── Anthropic's dialogues ────────────────────────────────────────────────────────────────────────

TALK = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: 2+2?\n\nAssistant:"
DIALOGUES = [
    {"chosen": f"{TALK} 4", "rejected": f"{TALK} 5\n\nor 6"},
    {"chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "rejected": "\n\nHuman: a\n\nAssistant: d"},
    {"chosen": "no dialogue", "rejected": "\n\nHuman: a\n\nAssistant: d"},
]
BEFORE = "User: hi\n\nAssistant: hello\n\nUser: 2+2?\n\nAssistant:"


def compressed(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def test_dialogues_are_read_as_they_are_from_their_compressed_files(tmp_path):
    folder = compressed(tmp_path / "hh", "train.jsonl.gz", DIALOGUES)
    samples = read(tmp_path, folder, JudgedForm("hh", seq_length=200, add_eos=False), split="train")
    assert pairs(samples) == [(f"{BEFORE} 4", f"{BEFORE} 5\n\nor 6")]
    assert samples.summary() == f"3 rows: 1 kept, 2 dropped (2 {hh.UNLIKE})"


def test_dialogues_saved_by_datasets_are_read_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(DIALOGUES).save_to_disk(str(tmp_path / "saved"))
    samples = read(tmp_path, tmp_path / "saved", JudgedForm("hh", seq_length=200, add_eos=False))
    assert pairs(samples) == [(f"{BEFORE} 4", f"{BEFORE} 5\n\nor 6")]


def test_their_prompts_end_where_the_assistant_speaks(tmp_path):
    samples = read(tmp_path, DIALOGUES, PromptForm("hh", seq_length=200))
    assert "".join(map(chr, samples[0].tokens)) == BEFORE
    assert samples.facts["dropped"] == {hh.UNLIKE: 2}


@pytest.mark.parametrize("made", [{}, {"from": {"stage": "mix", "run": ""}}])
def test_their_chosen_answers_can_be_learnt(tmp_path, made):
    form = form_of("train", "sft", made, {"seq_length": 200}, {})
    samples = read(tmp_path, DIALOGUES, form, format="hh")
    [sample] = [samples[i] for i in range(len(samples))]
    assert "".join(map(chr, sample.tokens)) == f"{BEFORE} 4\x02"
    assert sample.trained_tokens == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": TALK}, "expected dialogues in `chosen` and `rejected`; the row has chosen"),
        ({"chosen": TALK, "rejected": []}, "`rejected` is a list; expected a dialogue as text"),
    ],
)
def test_rows_of_another_form_are_no_dialogues(tmp_path, row, said):
    with pytest.raises(Problem) as caught:
        read(tmp_path, [row], JudgedForm("hh"))
    assert caught.value.message == f"{tmp_path}/rows.jsonl:1: {said}"


def test_the_tutorials_files_are_written_from_them(tmp_path, capsys):
    source = compressed(tmp_path / "hh", "train.jsonl.gz", DIALOGUES)
    compressed(source, "test.jsonl.gz", DIALOGUES[:1])
    assert hh.main([str(source), str(tmp_path / "out")]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts == {
        "train_comparisons": 1, "train_prompts": 1, "train_dropped": 2,
        "test_comparisons": 1, "test_prompts": 1, "test_dropped": 0,
    }  # fmt: skip
    samples = read(tmp_path, tmp_path / "out" / "train_comparisons.jsonl", COMPARE)
    assert pairs(samples) == [(f"{BEFORE} 4", f"{BEFORE} 5\n\nor 6")]
    prompts = read(tmp_path, tmp_path / "out" / "test_prompts.jsonl", PromptForm(seq_length=99))
    assert "".join(map(chr, prompts[0].tokens)) == BEFORE
    assert hh.main([str(tmp_path / "absent"), str(tmp_path / "out")]) == 3
    assert hh.main([]) == 2


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "how", "said"),
    [
        ({"prompt": " 2+2=", "answer": "4"}, {}, " 2+2="),
        ({"text": "2+2="}, {}, "2+2="),
        ({"input": "2+2="}, {}, "2+2="),
        ({"question": "2+2", "prompt": "no"}, {"prompt": "Q: {question}\nA:"}, "Q: 2+2\nA:"),
        ({"messages": [ASKED]}, {}, HEAD),
        ({"messages": [ASKED, TURN_A]}, {}, HEAD),
        ({"prompt": [ASKED]}, {}, HEAD),
        (
            {"conversations": [{"from": "User", "value": "2+2?"}, {"from": "Assistant", "value": "4"}]},
            {},
            HEAD,
        ),
        ({"prompt": "2+2="}, {"add_bos": True}, "\x012+2="),
    ],
)
def test_a_prompt_ends_where_the_model_speaks(tmp_path, row, how, said):
    samples = read(tmp_path, [row], PromptForm(seq_length=200, **how))
    assert "".join(map(chr, samples[0].tokens)) == said
    assert not any(samples[0].mask)


def test_a_prompt_that_is_too_long_is_dropped_and_counted(tmp_path):
    samples = read(tmp_path, [{"prompt": "x" * n} for n in (3, 9, 4)], PromptForm(seq_length=4))
    assert samples.summary() == "3 rows: 2 kept, 1 dropped (1 longer than 4 tokens)"
    assert [samples[i].id for i in range(2)] == [0, 2]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"promt": "x"}, "no field `input`; the row has promt"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 7.5, "text": None}, ""),
        ({"messages": [{"role": "user"}]}, "turn 1 has no `content`; it has role"),
    ],
)
def test_a_row_without_a_prompt_is_refused_by_file_and_line(tmp_path, row, said):
    if not said:  # a number is text
        assert "".join(map(chr, read(tmp_path, [row], PromptForm())[0].tokens)) == "7.5"
        return
    with pytest.raises(Problem) as caught:
        read(tmp_path, [row], PromptForm())
    assert caught.value.message == f"{tmp_path}/rows.jsonl:1: {said}"


# ── real rows ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not (SHARED / "lf-dpo-demo").exists(), reason="set SPECC_SHARED to the shared folder")
def test_real_conversations_of_several_turns_are_compared(tmp_path):
    rows = json.loads((SHARED / "lf-dpo-demo" / "dpo_en_demo.json").read_text())
    samples = read(tmp_path, rows, JudgedForm(seq_length=100_000))
    assert samples.facts["kept"] == len(rows) == 300
    for index in range(0, 600, 60):
        row = rows[index // 2]
        chosen, rejected = shown(samples[index]), shown(samples[index + 1])
        assert row["chosen"]["value"] in chosen
        assert row["rejected"]["value"] in rejected
        assert all(turn["value"] in chosen and turn["value"] in rejected for turn in row["conversations"])


def test_generated_rows_come_in_every_form(tmp_path):
    settings = {"path": "builtin:arithmetic", "limit": 50}
    compared = open_rows(settings | {"format": "comparisons"}, seed=1, cache=tmp_path)
    for i in range(50):
        row = compared[i]
        assert eval(row["prompt"].rstrip("=")) == int(row["chosen"]) != int(row["rejected"])
    assert 0 < sum(len(compared[i]["chosen"]) == len(compared[i]["rejected"]) for i in range(50)) < 50
    marked = open_rows(settings | {"format": "attributes", "attributes": ["a", "b"]}, seed=1, cache=tmp_path)
    for i in range(50):
        question, answer = marked[i]["text"].split("=")
        assert (marked[i]["label"][0] == 4.0) == (eval(question) == int(answer))
    dialogues = open_rows(settings | {"format": "hh"}, seed=1, cache=tmp_path)
    for i in range(50):
        asked, right = dialogues[i]["chosen"].removeprefix("\n\nHuman: ").split("\n\nAssistant: ")
        assert eval(asked.rstrip("=")) == int(right)
        assert dialogues[i]["rejected"].startswith(f"\n\nHuman: {asked}\n\nAssistant: ")


def test_generated_rows_have_the_fields_that_templates_name(tmp_path):
    asked = {"path": "builtin:arithmetic", "prompt": "Q: {question.text}", "response": "A: {answer}"}
    row = open_rows(asked, seed=1, cache=tmp_path)[0]
    assert eval(row["question"]["text"].rstrip("=")) == int(row["answer"])
    judged = {"path": "builtin:arithmetic", "format": "comparisons", "prompt": "{p}", "chosen": "{good}"}
    row = open_rows(judged, seed=1, cache=tmp_path)[0]
    assert row.keys() == {"p", "good", "rejected", "strength"}
    assert eval(row["p"].rstrip("=")) == int(row["good"]) != int(row["rejected"])
