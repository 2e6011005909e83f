"""Small tokenizers that are trained on the spot, where a model's own cannot be reached.

`builtin:words/FAMILY` has the special tokens and the chat template of a family's tokenizers and a byte-level
BPE of 480 entries, trained on generated sums; `builtin:words/FAMILY/FILE` is trained on the texts of a JSONL
file. The same name gives the same tokens everywhere: what is trained on depends on nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from runtime.problem import Problem
from runtime.tokenizer import HuggingFaceTokenizer, Settings, Tokenizer, _write_json

PREFIX = "builtin:words/"
ENTRIES, ROWS = 480, 500
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """The special tokens of a family's tokenizers, the text's begin and end among them, and their chat."""

    specials: tuple[str, ...]
    begin: str = ""
    end: str = ""
    template: str = ""


FAMILIES = {
    "llama3": Family(
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
        LLAMA3,
    ),
    "llama2": Family(("<unk>", "<s>", "</s>"), "<s>", "</s>", INST),
    "mistral": Family(("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>", INST),
    "qwen": Family(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "", "<|im_end|>", CHATML),
    "gemma": Family(("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", GEMMA),
    "nemotron": Family(
        ("<unk>", "<s>", "</s>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"), "<s>", "</s>"
    ),
    "gpt": Family(("<|endoftext|>",), "", "<|endoftext|>"),
}


class Words(HuggingFaceTokenizer):
    """A tokenizer that no file holds until it is saved."""

    def __init__(self, name: str, family: Family, texts: Iterator[str]) -> None:
        Tokenizer.__init__(self, name=name)
        self._inner = _trained(family, texts)
        self.vocab_size = 1 + max(self._inner.get_vocab(with_added_tokens=True).values())
        named = {"bos_token": family.begin, "eos_token": family.end}
        self._named = {key: token for key, token in named.items() if token}
        Settings(self._named, (), (), family.template).apply(self)

    def save(self, folder: Path) -> None:
        self._inner.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self._named}
        config |= {"chat_template": self.chat_template} if self.chat_template else {}
        _write_json(folder / "tokenizer_config.json", config)


def load(name: str) -> Words:
    """The tokenizer of a name that begins with PREFIX; Problem R034 when there is no such family or file."""
    family, _, file = name.removeprefix(PREFIX).partition("/")
    if family not in FAMILIES:
        raise Problem("R034", f"there is no tokenizer `{name}`; families are {', '.join(FAMILIES)}")
    return Words(name, FAMILIES[family], texts_of(Path("/" + file)) if file else sums())


def sums() -> Iterator[str]:
    """The texts of generated rows."""
    from runtime.data.builtin import ArithmeticRows, dialogue

    for row in islice(iter(ArithmeticRows(0, "train", "prompt_response", ROWS)), ROWS):
        yield row["input"] + row["output"]
        yield dialogue(row["input"], row["output"])
    yield from ("user assistant system\n", "What is 1 + 1? It is 2.\n") * 50


def texts_of(file: Path) -> Iterator[str]:
    """Every text in the first rows of a JSONL file."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in islice(lines, ROWS):
                yield from _texts(json.loads(line))
    except (OSError, ValueError, RecursionError) as error:
        raise Problem("R034", f"no tokenizer can be trained on `{file}`: {error}") from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _trained(family: Family, texts: Iterator[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        special_tokens=[AddedToken(token, special=True) for token in family.specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
