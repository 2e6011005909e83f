"""SteerLM's rows: trees and marked responses to conversations, conversations to what a judge reads."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.data import helpsteer, oasst, steerlm, sums
from runtime.data.builtin import generated
from runtime.problem import Problem

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def message(text, role="assistant", replies=(), **labels):
    marks = {name: {"value": value, "count": 3} for name, value in labels.items()}
    return {"text": text, "role": role, "replies": list(replies)} | ({"labels": marks} if marks else {})


def tree(*replies, text="q", **labels):
    return {"message_tree_id": "x", "prompt": message(text, "prompter", replies, **labels)}


def said(row):
    return [(turn["from"], turn["value"], turn["label"]) for turn in row["conversations"]]


# ── OpenAssistant ─────────────────────────────────────────────────────────────────────────────────


def test_every_leaf_of_a_tree_is_a_conversation_in_the_order_of_the_replies():
    again = message("why?", "prompter", [message("because", quality=1.0)], quality=0.25)
    rows = list(oasst.conversations(tree(message("a", replies=[again], quality=0.5), message("b")), "f:1"))
    assert [[value for _, value, _ in said(row)] for row in rows] == [
        ["q", "a", "why?", "because"],
        ["q", "b"],
    ]
    assert said(rows[0]) == [
        ("User", "q", None),
        ("Assistant", "a", "quality:2"),
        ("User", "why?", None),  # what users say is not judged, even where somebody did
        ("Assistant", "because", "quality:4"),
    ]
    assert {key: rows[0][key] for key in ("system", "mask", "type")} == {
        "system": SYSTEM,
        "mask": "User",
        "type": "VALUE_TO_TEXT",
    }


def test_a_question_without_answers_is_no_conversation():
    assert list(oasst.conversations(tree(), "f:1")) == []


def test_marks_are_quarters_with_halves_to_the_even_neighbour_in_the_order_of_the_four():
    answer = message("a", creativity=0.125, humor=0.375, spam=1.0, quality=0.625, toxicity=0.874)
    (row,) = oasst.conversations(tree(answer), "f:1")
    assert said(row)[1][2] == "quality:2,toxicity:3,humor:2,creativity:0"


def test_an_answer_judged_by_other_things_only_has_an_empty_label_and_an_unjudged_one_none():
    (row, other) = oasst.conversations(tree(message("a", spam=0.0), message("b")), "f:1")
    assert (said(row)[1][2], said(other)[1][2]) == ("", None)


trees = st.recursive(
    st.builds(lambda n: (f"m{n}", []), st.integers(0, 99)),
    lambda below: st.builds(lambda n, kids: (f"m{n}", kids), st.integers(0, 99), st.lists(below, max_size=3)),
    max_leaves=12,
)


def as_message(node, depth=0):
    text, replies = node
    role = "prompter" if depth % 2 == 0 else "assistant"
    return message(text, role, [as_message(reply, depth + 1) for reply in replies])


def ways(node):
    """From the root to each leaf, by the definition."""
    text, replies = node
    return [[text, *way] for reply in replies for way in ways(reply)] if replies else [[text]]


@given(trees)
def test_the_ways_are_those_of_the_definition(node):
    rows = oasst.conversations({"prompt": as_message(node)}, "f:1")
    assert [[turn["value"] for turn in row["conversations"]] for row in rows] == [
        way for way in ways(node) if len(way) > 1
    ]


def test_a_tree_may_be_deeper_than_the_interpreter_can_recurse():
    node = message("end")
    for depth in range(3000):
        node = message("m", "prompter" if depth % 2 == 0 else "assistant", [node])
    (row,) = oasst.conversations({"prompt": node}, "f:1")
    assert len(row["conversations"]) == 3001


@pytest.mark.parametrize("count", [1, 7, 100])
def test_trees_are_split_as_the_tutorials_shuffle_splits_them(count):
    names = [f"tree {i}" for i in range(count)]
    random.seed(10)
    random.shuffle(names)
    first = int(count * 0.95)
    train, validation = (oasst.order(count, split) for split in ("train", "validation"))
    assert [f"tree {i}" for i in train] == names[:first]
    assert [f"tree {i}" for i in validation] == names[first:]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": {"role": "prompter", "replies": []}}, "no field `text`"),
        ({"prompt": {"text": 3, "role": "prompter"}}, "`text` is int"),
        ({"prompt": message("q", "system")}, "`system` is neither prompter nor assistant"),
        ({"prompt": None}, "a message is NoneType"),
        (tree("a"), "a message is str"),
        ({"prompt": {"text": "q", "role": "prompter", "replies": {"a": 1}}}, "`replies` is dict"),
        (tree(message("a", quality=1.5)), "`quality` has value `1.5`, expected 0 to 1"),
        (tree(message("a", quality=float("nan"))), "`quality` has value `nan`"),
        (tree(message("a", quality=True)), "`quality` has value `True`"),
        (tree({"text": "a", "role": "assistant", "labels": [1]}), "`labels` is list"),
        (tree({"text": "a", "role": "assistant", "labels": {"humor": 1}}), "`humor` has value `None`"),
    ],
)
def test_a_bad_tree_is_refused_by_its_line(row, words):
    with pytest.raises(Problem, match="R010: f:7: ") as caught:
        list(oasst.conversations(row, "f:7"))
    assert words in caught.value.message


# ── HelpSteer ─────────────────────────────────────────────────────────────────────────────────────

MARKS = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1}


def test_a_marked_response_is_a_conversation():
    row = helpsteer.conversation({"prompt": "q", "response": "a", **MARKS}, "f:1")
    line = "helpfulness:3,correctness:4,coherence:4,complexity:2,verbosity:1"
    assert row == {
        "conversations": [
            {"value": "q", "from": "User", "label": None},
            {"value": "a", "from": "Assistant", "label": line},
        ],
        "system": SYSTEM,
        "mask": "User",
        "type": "VALUE_TO_TEXT",
    }


def test_helpfulness_may_be_taken_alone():
    row = helpsteer.conversation({"prompt": "q", "response": "a", **MARKS}, "f:1", ("helpfulness",))
    assert said(row)[1][2] == "helpfulness:3"


def test_a_preference_is_two_conversations_with_its_strength():
    row = {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": -2, "split": "val"}
    assert [said(each)[1] for each in helpsteer.preference(row, "f:1")] == [
        ("Assistant", "a", "quality:-2"),
        ("Assistant", "b", "quality:-2"),
    ]
    assert helpsteer.split_of(row, "f:1") == "validation"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"helpfulness": 5}, "`helpfulness` is `5`, expected a whole number between 0 and 4"),
        ({"helpfulness": 2.5}, "`helpfulness` is `2.5`"),
        ({"helpfulness": None}, "`helpfulness` is `None`"),
        ({"helpfulness": float("nan")}, "`helpfulness` is `nan`"),
        ({"helpfulness": "3"}, "`helpfulness` is `'3'`"),
        ({"prompt": 3}, "`prompt` is int, expected text"),
    ],
)
def test_a_bad_response_is_refused_by_its_line(change, words):
    with pytest.raises(Problem, match="R010: f:7: ") as caught:
        helpsteer.conversation({"prompt": "q", "response": "a", **MARKS, **change}, "f:7")
    assert words in caught.value.message


@pytest.mark.parametrize("lost", ["prompt", "response", "verbosity"])
def test_an_absent_field_is_named(lost):
    row = {key: value for key, value in {"prompt": "q", "response": "a", **MARKS}.items() if key != lost}
    with pytest.raises(Problem, match=f"R010: f:7: no (field|mark) `{lost}`"):
        helpsteer.conversation(row, "f:7")


def test_a_strength_beyond_three_and_an_unknown_split_are_refused():
    row = {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": -4}
    with pytest.raises(Problem, match="expected a whole number between -3 and 3"):
        helpsteer.preference(row, "f:7")
    with pytest.raises(Problem, match="`split` is `None`, expected train or val"):
        helpsteer.split_of(row, "f:7")


# ── what a judge reads ────────────────────────────────────────────────────────────────────────────


def talk(*turns, **fields):
    return steerlm.record([steerlm.turn(*each) for each in turns]) | fields


TALK = talk(
    ("User", "q"), ("Assistant", "a", "quality:3"), ("User", "r"), ("Assistant", "b", "humor:1,verbosity:4")
)
HEADER = f"<extra_id_0>System\n{SYSTEM}\n<extra_id_1>User\nq\n<extra_id_1>Assistant\na\n"


def test_a_row_for_every_answer_with_marks_without_the_labels_before_it():
    missing = -100.0
    assert list(steerlm.regression(TALK | {"system": "Another one."}, "f:1")) == [
        {"text": HEADER + "<extra_id_2>", "label": [3.0] + [missing] * 8},
        {
            "text": HEADER + "<extra_id_1>User\nr\n<extra_id_1>Assistant\nb\n<extra_id_2>",
            "label": [missing, missing, 1.0] + [missing] * 5 + [4.0],
        },
    ]


def test_the_speakers_are_called_by_what_they_do():
    row = talk(("Human", "q"), ("Bot", "a", "quality:3"), mask="Human")
    assert [each["text"] for each in steerlm.regression(row, "f:1")] == [HEADER + "<extra_id_2>"]


def test_an_empty_label_is_judged_but_teaches_nothing():
    row = talk(("User", "q"), ("Assistant", "a", ""))
    assert list(steerlm.judged_texts(row, "f:1")) == [(1, HEADER + "<extra_id_2>")]
    assert list(steerlm.regression(row, "f:1")) == []


def test_an_answer_that_nobody_judges_has_no_text():
    assert list(steerlm.judged_texts(talk(("User", "q"), ("Assistant", "a", None)), "f:1")) == []


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("quality", "`quality` is no list"),
        (":3", "`:3` is no list"),
        ("quality:3,quality:4", "names an attribute twice"),
        ("quality:good", "`quality` of the label is `good`, expected a number"),
        ("quality:inf", "expected a number"),
        ("beauty:3", "the label has `beauty`, which is none of quality"),
    ],
)
def test_a_label_that_is_none_is_refused(label, words):
    with pytest.raises(Problem, match="R010: f:7") as caught:
        list(steerlm.regression(talk(("User", "q"), ("Assistant", "a", label)), "f:7"))
    assert words in caught.value.message


def test_a_row_without_a_conversation_is_refused():
    for row in ({"text": "a"}, {"conversations": "a"}, {"conversations": []}, {"conversations": [3]}, {}):
        with pytest.raises(Problem, match="R010: f:7"):
            list(steerlm.regression(row, "f:7"))


# ── annotation ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("prediction", "mark"),
    [(-0.7, 0), (0.5, 0), (0.51, 1), (1.5, 2), (2.5, 2), (3.5, 4), (3.49, 3), (4.9, 4), (1e9, 4)],
)
def test_a_prediction_is_held_between_0_and_4_and_halves_go_to_the_even_neighbour(prediction, mark):
    assert steerlm.rounded(prediction) == mark


def test_annotation_replaces_the_labels_that_are_there_and_no_others():
    marks = {1: {"quality": 0, "humor": 4}, 3: {"quality": 1, "humor": 2}}
    row = steerlm.annotated(TALK, marks)
    assert [turn["label"] for turn in row["conversations"]] == [
        None,
        "quality:0,humor:4",
        None,
        "quality:1,humor:2",
    ]
    assert TALK["conversations"][1]["label"] == "quality:3"  # the row itself is as it was
    assert {key: row[key] for key in row if key != "conversations"} == {
        key: TALK[key] for key in TALK if key != "conversations"
    }


# ── asking with a label ───────────────────────────────────────────────────────────────────────────


def test_a_conversation_is_asked_without_its_last_answer_and_with_a_label():
    row = steerlm.asked(TALK, "quality:4", "f:1")
    assert [turn["value"] for turn in row["conversations"]] == ["q", "a", "r"]
    assert (row["label"], row["type"], row["mask"]) == ("quality:4", "VALUE_TO_TEXT", "User")


def test_what_was_answered_becomes_a_conversation_again():
    source = steerlm.asked(TALK, "quality:4", "f:1")
    row = steerlm.answered({"output": "c\n<extra_id_1>", "source": source}, "f:1")
    assert said(row)[-1] == ("Assistant", "c", "quality:4")
    assert said(row)[:-1] == said(TALK)[:-1]
    assert "label" not in row
    assert row["type"] == "VALUE_TO_TEXT"


def test_an_answer_that_was_cut_is_taken_as_it_is():
    source = steerlm.asked(TALK, "quality:4", "f:1")
    assert said(steerlm.answered({"output": "c and", "source": source}, "f:1"))[-1][1] == "c and"


def test_rows_that_nobody_generated_are_refused():
    for row in ({"output": "a"}, {"output": 3, "source": {}}, {"source": TALK}):
        with pytest.raises(Problem, match="R010: f:7: expected `source` and a text `output`"):
            steerlm.answered(row, "f:7")


# ── generated rows of the published forms ─────────────────────────────────────────────────────────


def test_generated_rows_have_the_published_forms():
    rows = {form: generated("arithmetic", {"subset": form, "limit": 40}, seed=3) for form in sums.FORMS}
    trees = [row for i in range(40) for row in oasst.conversations(rows["oasst"][i], "f:1")]
    assert len(trees) == 80
    assert {label for row in trees for _, _, label in said(row) if label} <= {
        f"quality:{quality},toxicity:0,humor:0,creativity:{creativity}"
        for quality in (0, 4)
        for creativity in (0, 2, 4)
    }
    for i in range(40):
        row = helpsteer.conversation(rows["helpsteer"][i], "f:1")
        [judged] = steerlm.regression(row, "f:1")
        (_, question, _), (_, answer, _) = said(row)
        a, b = question.removesuffix("=").split("+")
        right = answer.split()[-1].rstrip(".") == str(int(a) + int(b))
        assert judged["label"][4] == 4.0 * right
        assert len(helpsteer.preference(rows["helpsteer2_preference"][i], "f:1")) == 2
        assert list(steerlm.regression(rows["steerlm"][i], "f:1"))
    assert len(rows["steerlm2"][0]["responses"]) == sums.RESPONSES
