"""Tokenizers of every format: what they say of themselves, and text that comes back."""

import json

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("sentencepiece")

import words
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import tokenizer
from runtime.problem import Problem

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return tokenizer.load(str(words.byte_level_folder(tmp_path_factory.mktemp("fast"))))


@pytest.fixture(scope="module")
def piece(tmp_path_factory):
    return tokenizer.load(str(words.sentencepiece_model(tmp_path_factory.mktemp("sp"))))


# --- bytes -----------------------------------------------------------------------------------------


def test_bytes_are_their_own_ids():
    own = tokenizer.load("builtin:bytes")
    assert own.encode("aé") == [97, 195, 169]
    assert (own.vocab_size, own.bos_id, own.eos_id, own.pad_id) == (259, 256, 257, 258)
    assert own.encode("a<eos>b") == [97, 257, 98]
    assert own.decode([97, 257, 98]) == "a<eos>b"
    assert own.decode([97, 257, 98], skip_special=True) == "ab"
    assert own.decode([0xC3]) == "\N{REPLACEMENT CHARACTER}"


@given(TEXTS)
def test_bytes_come_back(text):
    own = tokenizer.load("builtin:bytes")
    ids, offsets = own.encode_with_offsets(text)
    assert own.decode(ids) == text
    assert [text[s:e].encode()[0:1] != b"" for s, e in offsets] == [True] * len(ids)


@pytest.mark.torch  # transformers brings it in
@settings(deadline=None)
@given(st.lists(st.sampled_from(["<bos>", "<eos>", "é", "ab", "<", "eos>", "\n", " x"]), max_size=8))
def test_the_byte_tokenizer_is_the_same_when_saved_and_opened_by_transformers(tmp_path_factory, parts):
    folder = _saved(tmp_path_factory)
    text = "".join(parts)
    own = tokenizer.load("builtin:bytes")
    assert tokenizer.load(str(folder)).encode(text) == own.encode(text)
    assert tokenizer.load(str(folder)).encode_with_offsets(text)[1] == own.encode_with_offsets(text)[1]
    assert _theirs(folder)(text, add_special_tokens=False).input_ids == own.encode(text)


_FOLDERS = {}


def _saved(tmp_path_factory):
    if "bytes" not in _FOLDERS:
        _FOLDERS["bytes"] = tmp_path_factory.mktemp("bytes")
        tokenizer.load("builtin:bytes").save(_FOLDERS["bytes"])
    return _FOLDERS["bytes"]


def _theirs(folder):
    transformers = pytest.importorskip("transformers")
    return _FOLDERS.setdefault(("theirs", folder), transformers.AutoTokenizer.from_pretrained(folder))


def test_a_saved_byte_tokenizer_says_the_same_of_itself(tmp_path_factory):
    own, again = tokenizer.load("builtin:bytes"), tokenizer.load(str(_saved(tmp_path_factory)))
    for name in ("vocab_size", "bos_id", "eos_id", "eos_ids", "pad_id", "chat_template", "specials"):
        assert getattr(again, name) == getattr(own, name), name
    assert again.decode([104, 195, 169, 257]) == "hé<eos>"


# --- tokenizer.json --------------------------------------------------------------------------------


def test_special_tokens_come_from_the_files_beside_it(fast):
    assert fast.decode([fast.bos_id]) == "<|begin|>"
    assert fast.decode([fast.eos_id]) == "<|im_end|>"
    assert fast.pad_id == fast.eos_id  # no pad token: the end token pads
    assert fast.specials == {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
    assert not fast.adds_leading_space


def test_every_end_of_generation_counts(tmp_path):
    folder = words.byte_level_folder(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3]}))
    loaded = tokenizer.load(str(folder))
    assert loaded.eos_ids == (3, 1)
    assert loaded.eos_id == 3


@pytest.mark.torch  # transformers brings it in
def test_it_encodes_as_transformers_does(fast):
    theirs = _theirs(fast.name)
    for text in [*words.SENTENCES[-4:], "<|im_start|>user\nhi<|im_end|>", "  two  spaces\n\n", "日本 ü", ""]:
        assert fast.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert fast.decode(fast.encode(text)) == text
        assert fast.encode("x" + text) == fast.encode_with_offsets("x" + text)[0]


def test_tokens_that_only_the_config_adds_are_known(tmp_path):
    added = {"500": {"content": "<|tool|>", "special": True}}
    loaded = tokenizer.load(str(words.byte_level_folder(tmp_path, added_tokens_decoder=added)))
    assert loaded.encode("<|tool|>") == [loaded.id_of("<|tool|>")]
    assert loaded.vocab_size == loaded.id_of("<|tool|>") + 1


@pytest.mark.parametrize("form", ["file", "list", "text"])
def test_the_chat_template_is_found_wherever_it_lies(tmp_path, form):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ yes }}"}]
    config = {"list": {"chat_template": named}, "text": {"chat_template": "{{ yes }}"}, "file": {}}[form]
    folder = words.byte_level_folder(tmp_path, **config)
    if form == "file":
        (folder / "chat_template.jinja").write_text("{{ yes }}")
    assert tokenizer.load(str(folder)).chat_template == "{{ yes }}"


def test_saving_copies_the_files(fast, tmp_path):
    fast.save(tmp_path)
    again = tokenizer.load(str(tmp_path))
    assert again.encode("hello <|im_end|>") == fast.encode("hello <|im_end|>")
    assert again.specials == fast.specials


# --- SentencePiece ---------------------------------------------------------------------------------


def test_control_pieces_in_a_text_are_tokens(piece):
    ids, offsets = piece.encode_with_offsets("<s>hello</s>")
    assert ids[0] == piece.bos_id == 1
    assert ids[-1] == piece.eos_id == 2
    assert (offsets[0], offsets[-1]) == ((0, 3), (8, 12))
    assert piece.decode(ids) == "<s>hello</s>"
    assert piece.decode(ids, skip_special=True) == "hello"
    assert piece.specials == {"bos_token": "<s>", "eos_token": "</s>"}


def test_a_plain_text_is_encoded_as_sentencepiece_does(piece):
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(model_file=str(piece.files[0]))
    for text in [*words.SENTENCES[-4:], "héllo\x00 日本", "  spaces", ""]:
        assert piece.encode(text) == own.encode(text)
    assert piece.adds_leading_space


@pytest.mark.parametrize("text", ["hello world", " hello", "\n<extra_id_1>", "日本", "<s>x"])
def test_a_continued_text_gets_no_space_put_before_it(piece, text):
    ids, offsets = piece.encode_continued(text)
    assert piece.decode(piece.encode("x") + ids) == "x" + text
    assert offsets[-1][1] == len(text)


# --- pieces ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    pieces=st.lists(st.sampled_from(["\n", "\n\n", "a", " b", "<extra_id_1>", "User", "é", ". "]), min_size=1)
)
@pytest.mark.parametrize("which", ["fast", "piece"])
def test_pieces_spell_the_text_and_no_token_crosses_an_edge(request, which, pieces):
    loaded = request.getfixturevalue(which)
    groups = loaded.encode_pieces(pieces)
    assert len(groups) == len(pieces)
    assert loaded.decode([i for ids in groups for i in ids]) == "".join(pieces)
    whole, offsets = loaded.encode_with_offsets("".join(pieces))
    edges = {len("".join(pieces[:n])) for n in range(1, len(pieces))}
    if not any(s < edge < e for s, e in offsets for edge in edges):
        assert [i for ids in groups for i in ids] == whole


def test_a_merge_across_an_edge_is_undone_there_only(fast):
    assert fast.encode("?\n\n") != fast.encode("?\n") + fast.encode("\n")
    first, second = fast.encode_pieces(["What?\n", "\nIt is"])
    assert first == fast.encode("What?\n")
    assert fast.decode(second) == "\nIt is"


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds neither tokenizer.json nor tokenizer.model; give `model.tokenizer`"),
        ({"vocab.json": "{}"}, "holds only the slow format's vocabulary"),
        ({"tokenizer.json": "{"}, "is no readable tokenizer.json"),
        (
            {"tokenizer.model": "IQ== 0\nIg== 1\n"},
            "is no SentencePiece model (a tiktoken file goes by the same",
        ),
    ],
)
def test_folders_without_a_usable_tokenizer(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Problem) as caught:
        tokenizer.load(str(tmp_path))
    assert caught.value.code == "R034"
    assert said in caught.value.message


def test_a_special_token_outside_the_vocabulary_is_named(tmp_path):
    folder = words.byte_level_folder(tmp_path, eos_token="<|nope|>")
    with pytest.raises(
        Problem, match=r"R034: .* names eos_token `<\|nope\|>`, which is not in its vocabulary"
    ):
        tokenizer.load(str(folder))


def test_an_unknown_builtin_is_named():
    with pytest.raises(Problem, match="R034: there is no tokenizer `builtin:gpt`; the built-in one is"):
        tokenizer.load("builtin:gpt")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(Problem, match=r"is no tokenizer; give a folder, a tokenizer.json or a SentencePiece"):
        tokenizer.load(str(tmp_path / "merges.txt"))
