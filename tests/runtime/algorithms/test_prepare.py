"""The clerk that prepares rows: what goes in, what comes out, what is left out and said."""

from collections import Counter

import pytest

from runtime.algorithms import prepare
from runtime.data import steerlm
from runtime.problem import Problem

MARKS = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1}


class Listed(list):
    """Rows by index, which know where they came from."""

    def where(self, index):
        return f"f:{index + 1}"


class Clerk:
    """As much of a stage that makes rows as the program sees."""

    def __init__(self, rows, batch=2, **settings):
        self.source, self.batch, self.settings = Listed(rows), batch, settings
        self.counts, self.made, self.said, self.step = Counter(), [], [], 0

    def program_settings(self, form):
        return form(**self.settings)

    def indices(self):
        first = self.step * self.batch
        return range(first, min(first + self.batch, len(self.source)))

    def put(self, rows):
        self.made += list(rows)

    def count(self, **more):
        self.counts.update(more)

    def say(self, text):
        self.said.append(text)

    def run(self):
        while self.step * self.batch < len(self.source):
            prepare.step(self)  # type: ignore[arg-type]
            self.step += 1
        return list(prepare.closing(self, lambda: iter(self.made)))  # type: ignore[arg-type]


def answer(text="a", **more):
    return {"prompt": "q", "response": text, **MARKS, **more}


def labels(rows):
    return [row["conversations"][-1]["label"] for row in rows]


def asked(row):
    return row["conversations"][0]["value"]


def tree(name, replies=1):
    answers = [{"text": "a", "role": "assistant", "replies": []}] * replies
    return {"prompt": {"text": name, "role": "prompter", "replies": answers}}


def test_trees_come_in_their_shuffled_order_whatever_the_batches():
    trees = [tree(f"q{i}") for i in range(40)]
    of = {
        split: [asked(row) for row in Clerk(trees, 7, form="oasst", split=split).run()]
        for split in ("train", "validation")
    }
    assert len(of["train"]) == 38
    assert len(of["validation"]) == 2
    assert sorted(of["train"] + of["validation"]) == sorted(f"q{i}" for i in range(40))
    again = Clerk(trees, 40, form="oasst", split="train").run()
    assert of["train"] == [asked(row) for row in again]
    assert of["train"] != sorted(of["train"])


def test_questions_without_an_answer_are_counted_and_said():
    clerk = Clerk([tree("q", replies) for replies in (2, 0, 1)] * 20, form="oasst")
    rows = clerk.run()
    left = clerk.counts["dropped_without_an_answer"]
    assert left > 0
    assert clerk.counts["read"] == 57
    assert len(rows) + left > 57 - left  # trees of two answers give two rows
    assert clerk.said == [f"57 rows read, {left} left out ({left} without an answer)"]


def test_helpsteer2_gives_all_marks_or_those_asked_for():
    assert labels(Clerk([answer()], form="helpsteer2").run()) == [
        "helpfulness:3,correctness:4,coherence:4,complexity:2,verbosity:1"
    ]
    assert labels(Clerk([answer()], form="helpsteer2", attributes=["helpfulness"]).run()) == ["helpfulness:3"]


def test_preferences_of_a_split_are_two_rows_each():
    rows = [
        {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": s, "split": split}
        for s, split in ((-1, "train"), (2, "val"), (3, "train"))
    ]
    clerk = Clerk(rows, form="helpsteer2_preference", split="train")
    assert labels(clerk.run()) == ["quality:-1", "quality:-1", "quality:3", "quality:3"]
    assert clerk.said == ["3 rows read, 1 left out (1 of the other split)"]
    assert labels(Clerk(rows, form="helpsteer2_preference", split="validation").run()) == ["quality:2"] * 2


def test_dialogues_of_hh_are_comparisons_and_prompts():
    row = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
    assert Clerk([row], form="hh_comparisons").run() == [
        {"text": "User: q\n\nAssistant: a"},
        {"text": "User: q\n\nAssistant: b"},
    ]
    clerk = Clerk([row, {**row, "chosen": "a"}], form="hh_prompts")
    assert clerk.run() == [{"text": "User: q\n\nAssistant:"}]
    assert clerk.said == ["2 rows read, 1 left out (1 without speakers that take turns)"]


def test_the_tutorials_way_from_marked_responses_to_what_a_judge_learns():
    talks = Clerk([answer(), answer("b", helpfulness=0)], form="helpsteer").run()
    rows = Clerk(talks, form="regression").run()
    assert [row["label"] for row in rows] == [
        [-100.0] * 4 + [mark, 4.0, 4.0, 2.0, 1.0] for mark in (3.0, 0.0)
    ]
    assert [row["text"].split("<extra_id_1>")[-1] for row in rows] == [
        "Assistant\na\n<extra_id_2>",
        "Assistant\nb\n<extra_id_2>",
    ]
    names = ["verbosity", "helpfulness", "correctness", "coherence", "complexity"]
    assert Clerk(talks, form="regression", attributes=names).run()[0]["label"] == [1.0, 3.0, 4.0, 4.0, 2.0]


def test_the_way_from_asking_for_the_best_to_what_was_good_enough():
    talks = Clerk([answer(), answer("b")], form="helpsteer").run()
    questions = Clerk(talks, form="ask", label={"quality": 4, "verbosity": 0}).run()
    assert [row["label"] for row in questions] == ["quality:4,verbosity:0"] * 2
    generated = [
        {"output": text, "finish": finish, "source": questions[0]}
        for text, finish in (("c\n<extra_id_1>", "stop"), ("d", "length"), ("\n<extra_id_1>", "stop"))
    ]
    clerk = Clerk(generated, form="answers")
    answers = clerk.run()
    assert [row["conversations"][-1]["value"] for row in answers] == ["c"]
    assert clerk.said == ["3 rows read, 2 left out (1 cut at the length, 1 empty answers)"]
    kept = Clerk(generated, form="answers", truncated="keep").run()
    assert [row["conversations"][-1]["value"] for row in kept] == ["c", "d"]
    assert [row.get("finish") for row in kept] == [None, "length"], "or else it would be learnt with an end"
    judged = [steerlm.annotated(answers[0], {1: {"quality": mark}}) for mark in (1, 3)]
    assert labels(Clerk(judged, form="keep", least={"quality": 3}).run()) == ["quality:3"]


def test_a_mark_that_is_not_there_cannot_be_enough():
    talks = Clerk([answer()], form="helpsteer").run()
    with pytest.raises(Problem, match="R010: f:1: the last answer has no mark `quality`"):
        Clerk(talks, form="keep", least={"quality": 3}).run()


def test_a_set_of_which_nothing_is_left_is_refused():
    talks = Clerk([answer()], form="helpsteer").run()
    with pytest.raises(Problem, match=r"R011: .* \(?1 below what is wanted"):
        Clerk(talks, form="keep", least={"verbosity": 4}).run()


@pytest.mark.parametrize("form", sorted(prepare.CONVERSIONS))
def test_a_row_of_another_form_is_refused_by_its_place(form):
    settings = (
        {"label": {"quality": 4}} if form == "ask" else {"least": {"quality": 4}} if form == "keep" else {}
    )
    with pytest.raises(Problem, match=r"R010: f:\d+: "):
        Clerk([{"nonsense": 3}] * 40, batch=40, form=form, **settings).run()
