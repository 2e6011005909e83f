"""Small real tokenizers for tests: a SentencePiece model and a byte-level BPE, trained on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SENTENCES = (
    ["hello world\n<extra_id_1>User\nthe quick brown fox jumps.\n<extra_id_1>Assistant\n"] * 40
    + ["What is 1 + 1? It is 2!\n\n", "<extra_id_0>System\nA chat between a curious user and an assistant.\n"]
    * 30
    + ["so\n\nit goes\n", "quality:4,helpfulness:3\n", "über Größe 日本語\n"] * 20
)


LINES = [line for text in SENTENCES for line in text.split("\n") if line and "extra_id" not in line]


def sentencepiece_model(folder: Path, **options: Any) -> Path:
    """A `tokenizer.model` like Llama 2's: BPE, byte fallback, a dummy prefix, nothing normalised.

    As with Llama 2 no piece holds a newline.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "vocab_size": 330,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": True,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES), model_writer=file, **(settings | options)
        )
    return folder / "tokenizer.model"


def byte_level_folder(folder: Path, chat_template: str = "", **config: Any) -> Path:
    """A folder with a byte-level BPE `tokenizer.json` that splits like Llama 3's, and its config."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    split = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
    }
    if chat_template:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))
    return folder
