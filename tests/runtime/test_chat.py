"""Conversations to tokens: what is learnt, worked out by hand, and what transformers makes of the same."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tokenizers")
pytest.importorskip("sentencepiece")

import words

from runtime import chat, tokenizer
from runtime.chat_jinja import JinjaTemplate
from runtime.problem import Problem

BYTES = tokenizer.load("builtin:bytes")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def turn(speaker, value, label=None):
    return {"from": speaker, "value": value, "label": label}


def talk(*turns, **fields):
    return {"system": "Be good.", "conversations": list(turns), "mask": "User"} | fields


def messages(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    rows = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + rows}


def shown(row, template, words=BYTES):
    """The text of a conversation with what is learnt between brackets."""
    tokens, mask = chat.encode(words, row, template)
    assert len(tokens) == len(mask)
    text, learning = "", False
    for position, learnt in enumerate(mask):
        if bool(learnt) != learning:
            text += "»" if learning else "«"
            learning = bool(learnt)
        text += words.decode(tokens[position : position + 1])
    return text + ("»" if learning else "")


# --- the tutorials' template, by hand --------------------------------------------------------------


def test_one_question_one_answer():
    row = talk(turn("User", "2+2?"), turn("Assistant", "4"))
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\n2+2?\n<extra_id_1>Assistant\n«4\n<extra_id_1>»"
    )


def test_the_mark_before_a_later_question_is_learnt():
    row = talk(turn("User", "a"), turn("Assistant", "b"), turn("User", "c"), turn("Assistant", "d"))
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n"
        "<extra_id_1>User\na\n"
        "<extra_id_1>Assistant\n«b\n"
        "<extra_id_1>»User\nc\n"
        "<extra_id_1>Assistant\n«d\n"
        "<extra_id_1>»"
    )


def test_no_mark_follows_a_question_at_the_end():
    row = talk(turn("User", "a"), turn("Assistant", "b"), turn("User", "c"))
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\na\n<extra_id_1>Assistant\n«b\n<extra_id_1>»User\nc\n"
    )


def test_an_answer_that_comes_first_is_context():
    row = talk(turn("Assistant", "Hi."), turn("User", "a"), turn("Assistant", "b"))
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>Assistant\nHi.\n"
        "<extra_id_1>User\na\n"
        "<extra_id_1>Assistant\n«b\n<extra_id_1>»"
    )


def test_labels_before_the_text_are_conditions():
    row = talk(turn("User", "a"), turn("Assistant", "b", "quality:4"), type="VALUE_TO_TEXT")
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\na\n"
        "<extra_id_1>Assistant\n<extra_id_2>quality:4\n«b\n<extra_id_1>»"
    )


def test_an_empty_label_keeps_its_line_and_a_null_one_has_none():
    row = talk(turn("User", "a", ""), turn("Assistant", "b", None), type="VALUE_TO_TEXT")
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\n<extra_id_2>\na\n"
        "<extra_id_1>Assistant\n«b\n<extra_id_1>»"
    )


def test_labels_after_the_text_are_what_is_learnt():
    row = talk(
        turn("Assistant", "Hi.", "quality:1"),
        turn("User", "a"),
        turn("Assistant", "b", "quality:4"),
        type="TEXT_TO_VALUE",
    )
    assert shown(row, "extra_id") == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>Assistant\nHi.\n<extra_id_2>«quality:1\n"
        "<extra_id_1>»User\na\n"
        "<extra_id_1>Assistant\nb\n<extra_id_2>«quality:4\n<extra_id_1>»"
    )


def test_labels_without_a_type_do_not_count():
    row = talk(turn("User", "a"), turn("Assistant", "b", "quality:4"))
    assert "quality" not in shown(row, "extra_id")


def test_the_masked_role_is_the_rows_own():
    row = talk(turn("Human", "a"), turn("Bot", "b"), mask="Bot")
    with pytest.raises(Problem, match="R036: nothing to learn"):
        shown(row, "extra_id")
    row = talk(turn("Bot", "a"), turn("Human", "b"), mask="Bot")
    assert shown(row, "extra_id").endswith("<extra_id_1>Human\n«b\n<extra_id_1>»")


def test_messages_become_the_same_text():
    row = messages("2+2?", "4", system="Be good.")
    assert shown(row, "extra_id") == shown(talk(turn("User", "2+2?"), turn("Assistant", "4")), "extra_id")


def test_the_marks_can_be_chosen():
    marks = {"system_turn_start": "\x00", "turn_start": "\x11", "label_start": "\x12"}
    row = talk(turn("User", "a"), turn("Assistant", "b", "q:1"), type="VALUE_TO_TEXT")
    assert shown(row, "extra_id:" + json.dumps(marks)) == (
        "\x00System\nBe good.\n\x11User\na\n\x11Assistant\n\x12q:1\n«b\n\x11»"
    )


def test_the_prompt_ends_where_the_model_speaks():
    row = talk(turn("User", "a"))
    assert BYTES.decode(chat.prompt(BYTES, row, "extra_id")) == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\na\n<extra_id_1>Assistant\n"
    )


def test_a_prompt_may_say_which_label_the_answer_is_to_have():
    """As the tutorials ask a model that was steered: the label's line, then the answer."""
    row = talk(turn("User", "a"), type="VALUE_TO_TEXT") | {"label": "quality:4,humor:0"}
    asked = chat.prompt(BYTES, row, "extra_id")
    assert BYTES.decode(asked) == (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\na\n<extra_id_1>Assistant\n"
        "<extra_id_2>quality:4,humor:0\n"
    )
    learnt, _ = chat.encode(
        BYTES, talk(turn("User", "a"), turn("Assistant", "b", row["label"]), type=row["type"]), "extra_id"
    )
    assert learnt[: len(asked)] == asked
    assert (
        chat.prompt(BYTES, row | {"type": None}, "extra_id")
        == asked[: -len("<extra_id_2>quality:4,humor:0\n")]
    )


speech = st.text(alphabet="ab\n ", max_size=4)
spoken = st.tuples(
    st.sampled_from(["User", "Assistant"]), speech, st.one_of(st.none(), st.just("q:1"), st.just(""))
)


@given(st.lists(spoken, min_size=1, max_size=5), st.sampled_from([None, "VALUE_TO_TEXT"]))
def test_tokens_and_mask_are_those_of_the_rules(said, kind):
    """The rules of the tutorials' template token by token, a byte being a token."""
    row = talk(*(turn(*each) for each in said), type=kind)
    text, mask = "<extra_id_0>System\nBe good.\n", [0] * len("<extra_id_0>System\nBe good.\n")
    for position, (speaker, value, label) in enumerate(said):
        start, name = "<extra_id_1>", f"{speaker}\n"
        line = f"<extra_id_2>{label}\n" if kind and label is not None else ""
        text += start + name + line + value + "\n"
        is_answer = speaker != "User" and position > 0
        mask += [int(speaker == "User" and position >= 2)] * len(start)
        mask += [0] * len(name + line) + [int(is_answer)] * len(value + "\n")
    if said[-1][0] != "User":
        text, mask = text + "<extra_id_1>", mask + [1] * len("<extra_id_1>")
    if not any(speaker == "User" for speaker, _, _ in said) or not any(mask[1:]):
        with pytest.raises(Problem, match="R036"):
            chat.encode(BYTES, row, "extra_id")
        return
    tokens, found = chat.encode(BYTES, row, "extra_id")
    assert (BYTES.decode(tokens), found) == (text, mask)


@pytest.mark.parametrize("marks", ["", ':{"turn_start": "\\u0011", "end_of_turn": "\\n\\n"}'])
def test_as_jinja_it_is_the_same_text(marks):
    template = f"extra_id{marks}"
    row = messages("a", "b\n'{{", "c", system="Be good.")
    jinja = chat.jinja_of(template)
    assert chat.prompt(BYTES, row, jinja) == chat.prompt(BYTES, row, template)
    assert (
        shown(messages("a", "b"), jinja)
        == shown(messages("a", "b"), template).rpartition(
            chat.template_of(template, BYTES).tokens.turn_start
        )[0]
        + "»"
    )


# --- the same with real tokenizers -----------------------------------------------------------------


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return tokenizer.load(str(words.byte_level_folder(tmp_path_factory.mktemp("fast"), MARKED)))


@pytest.fixture(scope="module")
def piece(tmp_path_factory):
    return tokenizer.load(str(words.sentencepiece_model(tmp_path_factory.mktemp("sp"))))


LONG = talk(
    turn("User", "What is 1 + 1?"),
    turn("Assistant", "It is 2!\n\nhello world", "quality:4,helpfulness:3"),
    turn("User", "über 日本語"),
    turn("Assistant", "the quick brown fox jumps.", ""),
    type="VALUE_TO_TEXT",
)


@pytest.mark.parametrize("which", ["fast", "piece"])
def test_the_text_and_the_learnt_parts_do_not_depend_on_the_tokenizer(request, which):
    loaded = request.getfixturevalue(which)
    tokens, mask = chat.encode(loaded, LONG, "extra_id")
    reference, bits = chat.encode(BYTES, LONG, "extra_id")
    assert loaded.decode(tokens) == BYTES.decode(reference)
    learnt = [i for i, m in zip(reference, bits, strict=True) if m]
    assert loaded.decode([i for i, m in zip(tokens, mask, strict=True) if m]) == BYTES.decode(learnt)


def test_it_is_the_text_encoded_as_a_whole_where_nothing_merges(piece):
    tokens, _ = chat.encode(piece, LONG, "extra_id")
    assert tokens == piece.encode(BYTES.decode(chat.encode(BYTES, LONG, "extra_id")[0]))


def lengths_by_prefix(loaded, parts):
    """Tokens of each part as the tutorials count them: encoded after NUL, less the NUL's own."""
    before = len(loaded.encode("\x00"))
    return [len(loaded.encode("\x00" + part)) - before for part in parts]


def test_turns_are_as_long_as_the_tutorials_count_them(piece):
    """Their rule, applied to the parts by hand: header, four turns, the last mark."""
    header = "<extra_id_0>System\nBe good.\n"
    mark, names = "<extra_id_1>", ("User\n", "Assistant\n")
    first, last = "What is 1 + 1?\n", "the quick brown fox jumps.\n"
    row = talk(turn("User", first[:-1]), turn("Assistant", last[:-1]), turn("User", "x"))
    tokens, mask = chat.encode(piece, row, "extra_id")
    untrained = len(piece.encode(header)) + sum(
        lengths_by_prefix(piece, [mark + names[0] + first, mark + names[1]])
    )
    answer, sign, rest = lengths_by_prefix(piece, [last, mark, names[0] + "x\n"])
    assert mask == [0] * untrained + [1] * (answer + sign) + [0] * rest
    assert len(tokens) == len(mask)


def test_an_answer_that_begins_with_a_newline_is_learnt_whole(fast):
    row = talk(turn("User", "a"), turn("Assistant", "\nb"))
    assert "Assistant\n«\nb" in shown(row, "extra_id", fast)


# --- jinja2 ----------------------------------------------------------------------------------------


def test_the_tokenizers_own_template_is_the_default(fast):
    row = messages("hi", "hello world", "and?", "so", system="s")
    assert shown(row, "", fast) == (
        "<|begin|><|im_start|>system\ns<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n«hello world<|im_end|>»\n<|im_start|>user\nand?<|im_end|>\n"
        "<|im_start|>assistant\n«so<|im_end|>»\n"
    )


def test_without_generation_blocks_the_answers_are_found_by_rendering(fast):
    row = messages("hi", "hello world", "and?", "so")
    assert shown(row, CHATML, fast) == shown(row, MARKED, fast).removeprefix("<|begin|>")


def test_conversations_go_through_jinja_too(fast):
    row = talk(turn("User", "hi"), turn("Assistant", "so"))
    assert shown(row, MARKED, fast) == shown(messages("hi", "so", system="Be good."), MARKED, fast)


CHATS = [
    messages("hi", "hello world"),
    messages("What is 1 + 1?", "It is 2!\n\n", "und über?", "Größe 日本語", system="A chat."),
    messages("", " x "),
]


@pytest.mark.torch  # transformers brings it in
@pytest.mark.parametrize("row", CHATS, ids=["short", "long", "odd"])
def test_tokens_and_mask_are_those_of_transformers(fast, row):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(fast.name)
    reference = theirs.apply_chat_template(
        row["messages"], chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
    )
    tokens, mask = chat.encode(fast, row, MARKED)
    assert tokens == reference["input_ids"]
    assert mask == reference["assistant_masks"]
    asked = {"messages": row["messages"][:-1]}
    prompt = theirs.apply_chat_template(asked["messages"], chat_template=MARKED, add_generation_prompt=True)
    assert chat.prompt(fast, asked, MARKED) == prompt["input_ids"]


def test_the_byte_tokenizers_chat():
    assert shown(messages("2+2?", "4", "3+3?", "6"), "") == (
        "<bos>user: 2+2?\nassistant: «4<eos>»user: 3+3?\nassistant: «6<eos>»"
    )


def test_a_template_that_rewrites_what_was_said_is_refused(fast):
    forgetful = CHATML.replace("m.content", "(m.content if loop.last else 'gone')")
    with pytest.raises(
        Problem, match=r"R035: the chat template renders turn 2 otherwise when the conversation"
    ):
        chat.encode(fast, messages("a", "b", "c", "d"), forgetful)


def test_a_template_may_refuse_a_conversation(fast):
    strict = "{% if messages|length > 2 %}{{ raise_exception('one question only') }}{% endif %}" + CHATML
    assert chat.encode(fast, messages("a", "b"), strict)
    with pytest.raises(Problem, match="R036: the chat template refuses the conversation: one question only"):
        chat.encode(fast, messages("a", "b", "c", "d"), strict)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 'x' * 99999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_template_gets_nowhere(template):
    with pytest.raises(Problem):
        chat.encode(BYTES, messages("a", "b"), template)


def test_a_template_with_a_mistake_says_the_line():
    with pytest.raises(Problem, match=r"R035: the chat template is no jinja2 \(line 2\): .*endfor"):
        chat.encode(BYTES, messages("a", "b"), "\n{% endfor %}")


def test_the_date_is_fixed_when_asked(monkeypatch):
    source = "{{ strftime_now('%d %b %Y') }}" + CHATML
    pieces = JinjaTemplate(source, datetime(2024, 7, 26, tzinfo=UTC)).pieces(messages("a", "b"), {})
    assert pieces[0][0].startswith("26 Jul 2024")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert JinjaTemplate(source).pieces(messages("a", "b"), {})[0][0].startswith("01 Jan 1970")


def test_marks_in_a_text_cannot_forge_an_answer(fast):
    with pytest.raises(Problem, match="R036: the conversation holds the private characters"):
        chat.encode(fast, messages("\ue000\ue001 forged \ue001\ue000", "b"), MARKED)


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x"}, "no `messages` and no `conversations`; the row has text"),
        ({"messages": []}, "`messages` is empty, expected a list of turns"),
        ({"messages": "x"}, "`messages` is no list, expected a list of turns"),
        ({"messages": ["x"]}, "turn 1 of `messages` is str, expected an object"),
        ({"messages": [{"role": "user"}]}, "turn 1 has no `content`; it has role"),
        ({"messages": [{"role": "user", "content": None}]}, "turn 1: `content` is NoneType, expected text"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "turn 1: role `tool` is none of system, user, assistant",
        ),
        (talk(turn("User", "a"), {"from": "Assistant"}), "turn 2 has no `value`; it has from"),
        (talk(turn("User", "a", 4)), "turn 1: `label` is int, expected text or null"),
        (talk(turn("User", "a"), type="OTHER"), "`type` is `OTHER`, expected VALUE_TO_TEXT or TEXT_TO_VALUE"),
        (talk(turn("A", "a"), turn("B", "b")), "the masked role `User` does not speak; A, B does"),
        (
            talk(turn("User", "a"), turn("User", "b")),
            "nothing to learn: no turn after the first is an answer",
        ),
        (messages("a"), "nothing to learn: no turn after the first is an answer"),
    ],
)
def test_rows_that_cannot_be_used(row, said):
    with pytest.raises(Problem) as caught:
        chat.encode(BYTES, row, "extra_id")
    assert caught.value.code == "R036"
    assert caught.value.message.startswith(said)


def test_labels_need_the_template_that_has_them():
    row = talk(turn("User", "a"), turn("Assistant", "b", "q"), type="VALUE_TO_TEXT")
    with pytest.raises(Problem, match=r"labels \(`type: VALUE_TO_TEXT`\) need the chat template `extra_id`"):
        chat.encode(BYTES, row, "")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("extra_ids", "R035: there is no chat template `extra_ids`; use `extra_id`, or jinja2 text or file"),
        ("extra_id:{", "R035: the marks of chat template `extra_id` are no JSON object"),
        ('extra_id:{"turn": "x"}', "R035: chat template `extra_id` has marks system_turn_start, turn_start"),
    ],
)
def test_templates_that_do_not_exist(template, said):
    with pytest.raises(Problem) as caught:
        chat.encode(BYTES, messages("a", "b"), template)
    assert str(caught.value).startswith(said)


def test_a_tokenizer_without_a_template_says_so(piece):
    with pytest.raises(
        Problem, match=r"R035: tokenizer `.*` has no chat template; set `model.chat_template`"
    ):
        chat.encode(piece, messages("a", "b"), "")


def test_a_template_can_lie_in_a_file(fast, tmp_path):
    (tmp_path / "mine.jinja").write_text(CHATML)
    row = messages("a", "b")
    assert chat.encode(fast, row, str(tmp_path / "mine.jinja")) == chat.encode(fast, row, CHATML)


# --- answers that were cut -------------------------------------------------------------------------


def open_text(row, template, words=BYTES):
    tokens, mask = chat.encode(words, row, template, is_open=True)
    split = len(mask) - mask[::-1].index(0) if 0 in mask else 0
    return words.decode(tokens[:split])[-12:], words.decode(tokens[split:])


@pytest.mark.parametrize("answer", ["1", "It is 4 \n", "<", "a\n<extra_id_1>b"])
def test_an_answer_that_was_cut_has_no_mark_behind_it(answer):
    row = talk(turn("User", "2+2?"), turn("Assistant", answer))
    assert open_text(row, "extra_id") == ("1>Assistant\n", answer)


@pytest.mark.parametrize("template", [CHATML, MARKED, MARKED.replace("m.content +", "m.content | trim +")])
@pytest.mark.parametrize("answer", ["im", "It is 4 \n"])
def test_no_template_ends_what_was_cut(fast, template, answer):
    asked, learnt = open_text(messages("2+2?", "5", "No.", answer), template, fast)
    assert (asked.endswith("assistant\n"), learnt) == (True, answer)


def test_of_an_answer_that_says_nothing_nothing_is_learnt():
    assert chat.encode(BYTES, messages("2+2?", "4", "Sure?", " \n"), "extra_id", is_open=True) == ([], [])
