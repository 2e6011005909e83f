"""Tokenizers that are trained on the spot: the family's marks, the same tokens in every process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.problem import Problem

pytestmark = pytest.mark.torch
CHAT = {"messages": [{"role": "user", "content": "3+4="}, {"role": "assistant", "content": "7"}]}


@pytest.fixture
def words() -> Any:
    from runtime import words

    return words


def test_each_family_has_its_marks_as_single_tokens_and_every_text_comes_back(words: Any) -> None:
    for name, family in words.FAMILIES.items():
        tokenizer = words.load(f"builtin:words/{name}")
        assert tokenizer.vocab_size <= 512
        assert all(len(tokenizer.encode(mark)) == 1 for mark in family.specials)
        text = "3+4=7, naïve 日本語\n"
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert len(tokenizer.encode("Assistant")) < len("Assistant")
        if family.end:
            assert tokenizer.decode([tokenizer.eos_id]) == family.end


@pytest.mark.parametrize("name", ["llama3", "llama2", "mistral", "qwen", "gemma"])
def test_a_chat_is_learnt_in_the_family_s_template(name: str, words: Any) -> None:
    from runtime import chat

    tokenizer = words.load(f"builtin:words/{name}")
    tokens, mask = chat.encode(tokenizer, CHAT, "")
    learnt = tokenizer.decode([token for token, kept in zip(tokens, mask, strict=True) if kept])
    assert learnt.strip().startswith("7")
    assert "3+4=" in tokenizer.decode(tokens)


def test_another_process_trains_the_same_tokenizer(words: Any) -> None:
    said = "from runtime import words; print(words.load('builtin:words/qwen')._inner.to_str())"
    other = subprocess.run(
        [sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=120
    )
    assert other.stdout.strip() == words.load("builtin:words/qwen")._inner.to_str()


def test_rows_that_are_here_are_what_it_learns(words: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": [{"content": "flabbergasted " * 20}]}) + "\n")
    tokenizer = words.load(f"builtin:words/llama3{file}")
    assert len(tokenizer.encode(" flabbergasted")) <= 2
    assert len(words.load("builtin:words/llama3").encode(" flabbergasted")) > 4


def test_saved_it_is_read_again_and_by_transformers(words: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from runtime import tokenizer as tokenizers

    made = tokenizers.load("builtin:words/gemma")
    made.save(tmp_path)
    again, theirs = tokenizers.load(str(tmp_path)), AutoTokenizer.from_pretrained(str(tmp_path))
    text = "<start_of_turn>user\n3+4=<end_of_turn>"
    assert made.encode(text) == again.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert (again.bos_id, again.eos_id, again.chat_template) == (made.bos_id, made.eos_id, made.chat_template)


@pytest.mark.parametrize("name", ["builtin:words/nobody", "builtin:words/qwen/no/such.jsonl"])
def test_what_cannot_be_trained_is_one_error(name: str, words: Any) -> None:
    with pytest.raises(Problem) as caught:
        words.load(name)
    assert caught.value.code == "R034"
