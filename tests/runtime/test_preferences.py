"""Rows of preferences as tokens: every form, what is dropped, what is refused; that pairs stay together."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batch import Sample, dealt
from runtime.data.preferences import PreferenceForm, preference_form
from runtime.data.stream import Stream
from runtime.data.tokenised import Tokenised, tokenised
from runtime.problem import Problem

pytestmark = pytest.mark.torch  # samples live beside tensors


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


class Merging(Letters):
    """One whose tokens of a whole are not those of its parts: an `a` after a colon is another token."""

    def encode_pieces(self, pieces):
        groups = [self.encode(piece) for piece in pieces]
        if len(groups) > 1:
            groups[0][-1] = 7
        return groups


def read(folder, rows, tokenizer=None, template="extra_id", **form):
    """The samples of these rows."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = PreferenceForm(**({"seq_length": 400} | form))
    made = tokenised(
        {"path": str(path), "kind": how.kind}, how, tokenizer or Letters(),
        tokenizer_name="x", template=template, seed=0, folder=folder,
    )  # fmt: skip
    return Tokenised(made)


def shown(sample):
    """(prompt, response) of a sample as text, `^` and `$` for begin and end tokens."""
    text = "".join(chr(t) if t > 2 else "^$"[t - 1] for t in sample.tokens)
    learnt = [i for i, m in enumerate(sample.mask) if m]
    assert learnt == list(range(learnt[0], learnt[-1] + 1))
    return text[: learnt[0]], text[learnt[0] : learnt[-1] + 1]


def test_texts_go_through_templates_and_share_the_prompt(tmp_path):
    rows = [{"q": "2+2", "good": "4", "bad": "5", "chosen_reward": 3, "rejected_reward": -1.5}]
    rows += [{"q": "1+1", "good": "2", "bad": ""}]
    data = read(tmp_path, rows, prompt="Q: {q} A:", chosen=" {good}", rejected=" {bad}", add_bos=True)
    assert [shown(s) for s in data] == [
        ("^Q: 2+2 A:", " 4$"), ("^Q: 2+2 A:", " 5$"), ("^Q: 1+1 A:", " 2$"), ("^Q: 1+1 A:", " $"),
    ]  # fmt: skip
    assert [list(s.labels) for s in data] == [[3.0], [-1.5], [1.0], [0.0]]
    assert data.group == 2


TURNS = [{"role": "user", "content": "hi"}]
CHAT = "<extra_id_0>System\n\n<extra_id_1>User\nhi\n<extra_id_1>Assistant\n"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TURNS, "chosen": "yes", "rejected": "no"},
        {"prompt": TURNS, "chosen": {"role": "assistant", "content": "yes"}, "rejected": [
            {"role": "assistant", "content": "no"}]},
        {"chosen": [*TURNS, {"role": "assistant", "content": "yes"}],
         "rejected": [*TURNS, {"role": "assistant", "content": "no"}]},
        {"messages": TURNS, "chosen": [*TURNS, {"role": "assistant", "content": "yes"}], "rejected": "no"},
        {"conversations": [{"from": "User", "value": "hi"}],
         "chosen": {"from": "Assistant", "value": "yes"}, "rejected": "no"},
    ],
)  # fmt: skip
def test_turns_go_through_the_chat_template(tmp_path, row):
    assert [shown(s) for s in read(tmp_path, [row])] == [
        (CHAT, "yes\n<extra_id_1>"), (CHAT, "no\n<extra_id_1>"),
    ]  # fmt: skip


def test_of_several_answers_the_last_one_is_learnt(tmp_path):
    talk = [*TURNS, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "so?"}]
    [chosen, _] = read(tmp_path, [{"prompt": talk, "chosen": "yes", "rejected": "no"}])
    prompt, response = shown(chosen)
    assert prompt.endswith("ho\n<extra_id_1>User\nso?\n<extra_id_1>Assistant\n")
    assert response == "yes\n<extra_id_1>"


def test_a_prompt_that_reads_otherwise_with_an_answer_is_refused_by_its_line(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": TURNS, "chosen": "x", "rejected": "y"},
    ]
    changing = "{% for m in messages %}{{ m.content }}{% endfor %}{{ ':' if add_generation_prompt else '!' }}"
    with pytest.raises(Problem, match=r"rows.jsonl:2") as found:
        read(tmp_path, rows, template=changing)
    assert found.value.code == "R010"


def test_tokens_of_the_prompt_have_to_begin_those_of_the_whole(tmp_path):
    plain = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}:{% else %}{% generation %}"
    plain += "{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"
    row = {"prompt": TURNS, "chosen": "a", "rejected": "b"}
    assert shown(read(tmp_path, [row], template=plain)[0]) == ("hi:", "a")
    with pytest.raises(
        Problem, match=r"rows.jsonl:1: the tokens of the prompt are not the first .*token 3 of 3"
    ):
        read(tmp_path, [row], Merging(), plain, seq_length=300)


def test_dialogues_are_pairs_of_last_answers(tmp_path):
    begin = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:"
    rows = [{"chosen": f"{begin} yes", "rejected": f"{begin} no"}]
    rows += [{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: z\n\nAssistant: b"}]
    rows += [{"chosen": "nothing", "rejected": f"{begin} no"}]
    data = read(tmp_path, rows, format="hh")
    prompt = "User: q\n\nAssistant: a\n\nUser: r\n\nAssistant:"
    assert [shown(s) for s in data] == [(prompt, " yes$"), (prompt, " no$")]
    assert data.facts["dropped"] == {
        "with answers to two prompts": 1,
        "without speakers that take turns": 1,
    }


def test_long_and_equal_pairs_are_dropped_and_counted(tmp_path):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b" * n} for n in (1, 7, 8, 30)]
    rows.append({"prompt": "p", "chosen": "a", "rejected": "a"})
    data = read(tmp_path, rows, seq_length=9)
    assert [shown(s)[1] for s in data] == ["a$", "b$", "a$", "bbbbbbb$"]
    assert data.facts["dropped"] == {"longer than 9 tokens": 2, "of two equal responses": 1}
    with pytest.raises(Problem, match=r"rows.jsonl:3: 10 tokens, but seq_length is 9"):
        read(tmp_path, rows, seq_length=9, truncation="error")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "chosen": "a"}, "no field `rejected`"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": "x"}, "`chosen_reward` is"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "field `rejected` is null"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "rejected_reward": True}, "expected a number"),
        ({"prompt": TURNS, "chosen": [], "rejected": "b"}, "`chosen` is empty"),
        ({"prompt": TURNS, "chosen": "a"}, "no field `rejected`"),
        ({"prompt": TURNS, "chosen": 3, "rejected": "b"}, "`chosen` is a int"),
        ({"prompt": ["x"], "chosen": "a", "rejected": "b"}, "turn 1"),
    ],
)  # fmt: skip
def test_a_bad_pair_is_refused_by_its_line(tmp_path, row, said):
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(Problem, match=r"rows.jsonl:2") as found:
        read(tmp_path, [good, row])
    assert found.value.code == "R010"
    assert said in found.value.message


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────


def test_a_verdict_is_a_word_or_true_or_false(tmp_path):
    rows = [{"prompt": "p", "response": "r", "preference": "chosen"}]
    rows += [
        {"prompt": "p", "response": "s", "label": False},
        {"prompt": TURNS, "response": "t", "label": True},
    ]
    data = read(tmp_path, rows, kind="verdicts")
    assert [(shown(s)[1], list(s.labels)) for s in data] == [
        ("r$", [1.0]), ("s$", [0.0]), ("t\n<extra_id_1>", [1.0]),
    ]  # fmt: skip
    assert data.group == 1


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ({"preference": "good"}, "`preference` is `good`"),
        ({"preference": 1}, "expected `chosen` or `rejected`"),
        ({"label": 1}, "expected true or false"),
        ({}, "no `preference` and no `label`"),
    ],
)
def test_a_verdict_of_another_kind_is_refused(tmp_path, verdict, said):
    with pytest.raises(Problem, match=r"rows.jsonl:1") as found:
        read(tmp_path, [{"prompt": "p", "response": "r"} | verdict], kind="verdicts")
    assert said in found.value.message


# ── what was generated ───────────────────────────────────────────────────────────────────────────


def generated(source, output, finish="stop"):
    return {
        "input": "as the model read it",
        "output": output,
        "finish": finish,
        "sample": 0,
        "source": source,
    }


def test_a_source_s_own_answer_is_chosen_over_the_generated_one(tmp_path):
    rows = [
        generated({"input": "2+2=", "output": "4"}, "5"),
        generated({"input": "1+1=", "output": "2"}, "2"),
    ]
    form = {"kind": "generated", "prompt": "{input}", "response": "{output}"}
    data = read(tmp_path, rows, **form)
    assert [shown(s) for s in data] == [("2+2=", "4$"), ("2+2=", "5$")]
    assert data.facts["dropped"] == {"of two equal responses": 1}
    assert [list(s.labels) for s in data] == [[1.0], [0.0]]


def test_a_space_that_a_generated_answer_begins_with_stays(tmp_path):
    rows = [
        generated({"input": "2+2=", "output": "4"}, " 5"),
        generated({"input": "1+1=", "output": "2"}, "3"),
    ]
    form = {"kind": "generated", "prompt": "{input}", "response": " {output}"}
    said = [shown(s)[1] for s in read(tmp_path, rows, **form)]
    assert said == [" 4$", " 5$", " 2$", "3$"]


def test_an_answer_that_was_cut_has_no_end_token(tmp_path):
    rows = [generated({"input": "q", "output": "a"}, "bbb", "length")]
    form = {"kind": "generated", "prompt": "{input}", "response": "{output}"}
    assert [shown(s)[1] for s in read(tmp_path, rows, **form)] == ["a$", "bbb"]
    talk = {"messages": [*TURNS, {"role": "assistant", "content": "yes"}]}
    found = read(tmp_path, [generated(talk, "n", "length")], kind="generated")
    assert [shown(s) for s in found] == [(CHAT, "yes\n<extra_id_1>"), (CHAT, "n")]
    dialogue = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: z"}
    found = read(tmp_path, [generated(dialogue, "b", "length")], kind="generated", format="hh")
    assert [shown(s)[1] for s in found] == [" a$", " b"]


def test_generated_answers_to_conversations_and_dialogues(tmp_path):
    talk = {"messages": [*TURNS, {"role": "assistant", "content": "yes"}]}
    found = read(tmp_path, [generated(talk, "no")], kind="generated")
    assert [shown(s) for s in found] == [(CHAT, "yes\n<extra_id_1>"), (CHAT, "no\n<extra_id_1>")]
    dialogue = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: z"}
    found = read(tmp_path, [generated(dialogue, "b")], kind="generated", format="hh")
    assert [shown(s)[1] for s in found] == [" a$", " b$"]


def test_an_answer_that_a_text_ended_ends_once_like_the_source_s_own(tmp_path):
    """Else the marks at the end would tell what was generated, whatever it says."""
    row = generated({"messages": [*TURNS, {"role": "assistant", "content": "yes"}]}, "no\n<extra_id_1>")
    row["messages"] = [*TURNS, {"role": "assistant", "content": "no"}]  # as `generate` writes it
    found = read(tmp_path, [row], kind="generated")
    assert [shown(s) for s in found] == [(CHAT, "yes\n<extra_id_1>"), (CHAT, "no\n<extra_id_1>")]
    dialogue = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: z"}
    for finish in ("stop", "length"):
        row = generated(dialogue, "b\n\nUser: and", finish)
        found = read(tmp_path, [row], kind="generated", format="hh")
        assert [shown(s)[1] for s in found] == [" a$", " b$"]


def test_rows_that_no_stage_generated_are_refused(tmp_path):
    with pytest.raises(Problem, match=r"rows.jsonl:1: expected `output` and `source`"):
        read(tmp_path, [{"prompt": "p", "chosen": "a", "rejected": "b"}], kind="generated")


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


class Texts(list):
    group = 2


@given(
    pairs=st.lists(st.tuples(st.integers(2, 12), st.integers(2, 12)), min_size=3, max_size=12),
    dp=st.integers(1, 2),
    micro_batch=st.integers(2, 4),
    packing=st.booleans(),
)
def test_pairs_are_never_split_over_ranks_or_microbatches(pairs, dp, micro_batch, packing):
    samples = Texts(
        Sample(2 * i + k, list(range(n)), [0] + [1] * (n - 1))
        for i, pair in enumerate(pairs)
        for k, n in enumerate(pair)
    )
    data = Stream(samples, global_batch=len(pairs), seq_length=12, seed=1, shuffle=True, packing=packing)
    seen = []
    for rank in range(dp):
        for batch in dealt(data.bins(0), rank, dp, micro_batch * data.lines, packed=packing):
            assert [b - a for a, b in zip(batch.rows[::2], batch.rows[1::2], strict=True)] == [1] * (
                len(batch.rows) // 2
            )
            assert all(a % 2 == 0 for a in batch.rows[::2])
            seen += batch.rows
    assert sorted(seen) == list(range(2 * len(pairs)))


def test_the_form_is_what_the_plan_says():
    data = {"path": "x", "kind": "pairs", "format": "hh", "prompt": "{p}", "chosen": "{a}", "rejected": "{b}"}
    form = preference_form(data, {"seq_length": 7}, {"truncation": "error", "add_eos": False, "beta": 1})
    assert form == PreferenceForm(
        "pairs", "hh", "{p}", "{a}", "{b}", seq_length=7, truncation="error", add_eos=False
    )
