"""Text to token ids and back, whatever the tokenizer's file format.

`load` takes `builtin:bytes`, a Hugging Face folder or id, a `tokenizer.json`, or a SentencePiece
`.model`. transformers is not needed: `tokenizer.json` is read with the `tokenizers` package, and
the special tokens and the chat template from the JSON files beside it.

A special token written in a text (`<eos>`, `<|im_end|>`) is read as that token, as Hugging Face
tokenizers do, because chat templates write them so.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from runtime.hf import fetch
from runtime.problem import Problem

Offsets = list[tuple[int, int]]
"""For every token the characters [start, end) that it covers; bytes of one character may share them."""

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

BYTES_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role + ': ' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""`builtin:bytes` has no chat of its own to imitate, so it spends few bytes on the turns."""


@dataclass
class Tokenizer:
    """What the rest of the runtime may ask; the three formats below fill in how they encode and decode."""

    name: str
    vocab_size: int = 0  # one more than the largest id
    bos_id: int | None = None
    eos_id: int | None = None
    eos_ids: tuple[int, ...] = ()  # every id that ends a generation; eos_id is the first
    pad_id: int = 0  # the pad token, else the end token, else 0
    chat_template: str = ""  # jinja2 source; empty when it has none
    specials: dict[str, str] = field(default_factory=dict)  # bos_token and so on, as text, for templates
    files: tuple[Path, ...] = ()  # what an export copies

    def encode(self, text: str) -> list[int]:
        """Token ids of a whole text; neither begin nor end token is added."""
        return self.encode_with_offsets(text)[0]

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        raise NotImplementedError

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        raise NotImplementedError

    def id_of(self, token: str) -> int | None:
        """The id of a token given as it stands in the vocabulary, or None."""
        raise NotImplementedError

    @cached_property
    def adds_leading_space(self) -> bool:
        """Does encoding put a space first by itself, so that `x y` is `x` and then `y`?"""
        return self.encode("x y") == self.encode("x") + self.encode("y")

    def encode_continued(self, text: str) -> tuple[list[int], Offsets]:
        """Tokens of a text that follows another one, so without the space that some tokenizers put first.

        A few characters are tried in front of the text until one leaves a clean cut behind itself.
        """
        for before in ("\x00", "\n", "☃"):
            ids_before = self.encode(before)
            ids, offsets = self.encode_with_offsets(before + text)
            n = len(ids_before)
            if n and ids[:n] == ids_before and all(end <= len(before) for _, end in offsets[:n]):
                shift = len(before)
                return ids[n:], [(max(s - shift, 0), max(e - shift, 0)) for s, e in offsets[n:]]
        return self.encode_with_offsets(text)

    def encode_pieces(self, pieces: Sequence[str]) -> list[list[int]]:
        """Tokens of the pieces of one text, such that no token crosses from one piece into the next.

        The whole text is encoded at once, so the tokens are those of the text as it stands. Only
        where a token would cross an edge (a newline that ends one piece and one that begins the
        next) is the text cut there and the rest encoded as a continuation.
        """
        result: list[list[int]] = []
        rest = list(pieces)
        while rest:
            encode = self.encode_continued if result else self.encode_with_offsets
            count = len(rest)
            while (grouped := _grouped(*encode("".join(rest[:count])), rest[:count])) is None:
                count = _first_crossed(*encode("".join(rest[:count])), rest[:count])
            result += grouped
            rest = rest[count:]
        return result

    def save(self, folder: Path) -> None:
        """Write the files that `load(folder)` and transformers read."""
        for file in self.files:
            shutil.copyfile(file, folder / file.name)


def _edges(pieces: Sequence[str]) -> list[int]:
    ends, at = [], 0
    for piece in pieces:
        at += len(piece)
        ends.append(at)
    return ends


def _grouped(ids: list[int], offsets: Offsets, pieces: Sequence[str]) -> list[list[int]] | None:
    """The tokens of each piece; None when one crosses an edge."""
    ends = _edges(pieces)
    groups: list[list[int]] = [[] for _ in pieces]
    piece = 0
    for token, (start, end) in zip(ids, offsets, strict=True):
        while piece < len(ends) - 1 and start >= ends[piece]:
            piece += 1
        if end > ends[piece]:
            return None
        groups[piece].append(token)
    return groups


def _first_crossed(ids: list[int], offsets: Offsets, pieces: Sequence[str]) -> int:
    """How many pieces lie before the first edge that a token crosses."""
    ends = _edges(pieces)
    for start, end in offsets:
        for count, edge in enumerate(ends[:-1], 1):
            if start < edge < end:
                return count
    raise AssertionError("no edge is crossed")


# --- the three formats ---------------------------------------------------------------------------


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes are ids 0 to 255; then <bos>, <eos>, <pad>. Needs no file."""

    SPECIALS = ("<bos>", "<eos>", "<pad>")

    def __init__(self) -> None:
        bos, eos, pad = self.SPECIALS
        super().__init__(
            name="builtin:bytes", vocab_size=259, bos_id=256, eos_id=257, eos_ids=(257,), pad_id=258,
            chat_template=BYTES_CHAT_TEMPLATE,
            specials={"bos_token": bos, "eos_token": eos, "pad_token": pad},
        )  # fmt: skip
        self._split = re.compile("(" + "|".join(self.SPECIALS) + ")")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._split.split(text):
            special = self.id_of(part)
            ids += part.encode("utf-8", "surrogatepass") if special is None else [special]
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        offsets: Offsets = []
        at = 0
        for part in self._split.split(text):
            if self.id_of(part) is not None:
                offsets.append((at, at + len(part)))
            else:
                widths = (len(c.encode("utf-8", "surrogatepass")) for c in part)
                offsets += [(at + i, at + i + 1) for i, width in enumerate(widths) for _ in range(width)]
            at += len(part)
        return self.encode(text), offsets

    def encode_pieces(self, pieces: Sequence[str]) -> list[list[int]]:
        return [self.encode(piece) for piece in pieces]  # bytes never merge

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        out = bytearray()
        for token in ids:
            if token < 256:
                out.append(token)
            elif token < self.vocab_size and not skip_special:
                out += self.SPECIALS[token - 256].encode()
        return out.decode("utf-8", "replace")

    def id_of(self, token: str) -> int | None:
        return 256 + self.SPECIALS.index(token) if token in self.SPECIALS else None

    def save(self, folder: Path) -> None:
        """The same tokenizer as a `tokenizer.json`: byte fallback over an empty list of merges."""
        special = {
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        data = {
            "version": "1.0",
            "added_tokens": [{"id": 256 + i, "content": t, **special} for i, t in enumerate(self.SPECIALS)],
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {
                "type": "BPE", "byte_fallback": True, "merges": [],
                "vocab": {f"<0x{byte:02X}>": byte for byte in range(256)},
            },
        }  # fmt: skip
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self.specials,
            "chat_template": self.chat_template,
            "clean_up_tokenization_spaces": False,
        }
        _write_json(folder / "tokenizer.json", data)
        _write_json(folder / "tokenizer_config.json", config)


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`, read by the `tokenizers` package."""

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name=name, files=_beside(file))
        self._inner = _read_tokenizer_json(file)
        settings = Settings.read(file.parent)
        self._inner.add_tokens([_added_token(t) for t in settings.added if self.id_of(t["content"]) is None])
        self.vocab_size = 1 + max(self._inner.get_vocab(with_added_tokens=True).values(), default=-1)
        settings.apply(self)

    def encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        encoding = self._inner.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return self._inner.decode(list(ids), skip_special_tokens=skip_special)

    def id_of(self, token: str) -> int | None:
        return self._inner.token_to_id(token)


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece `.model`. Its control pieces (<s>, </s>) count as tokens where a text writes them."""

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name=name, files=_beside(file))
        inner = self._inner = _read_sentencepiece(file)
        self.vocab_size = inner.vocab_size()
        self._control = {inner.id_to_piece(i): i for i in range(self.vocab_size) if inner.is_control(i)}
        self._split = (
            re.compile("(" + "|".join(map(re.escape, self._control)) + ")") if self._control else None
        )
        bos, eos, pad = (i if i >= 0 else None for i in (inner.bos_id(), inner.eos_id(), inner.pad_id()))
        Settings.read(file.parent).apply(self, bos, eos, pad)

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        ids: list[int] = []
        offsets: Offsets = []
        at = 0
        for part in self._split.split(text) if self._split else [text]:
            if part in self._control:
                ids.append(self._control[part])
                offsets.append((at, at + len(part)))
            elif part:
                # after a control piece the text goes on: no space is put before it
                found = (
                    self._inner.encode(part, return_type="offset_mapping")
                    if not ids
                    else self._continued(part)
                )
                ids += found["ids"]
                offsets += [(at + s, at + e) for s, e in found["offsets"]]
            at += len(part)
        return ids, offsets

    def _continued(self, text: str) -> dict[str, Any]:
        before = "\x00"
        skip = len(self._inner.encode(before))
        found = self._inner.encode(before + text, return_type="offset_mapping")
        if not skip:  # the model drops the character, so nothing can stand before the text
            return self._inner.encode(text, return_type="offset_mapping")
        return {"ids": found["ids"][skip:], "offsets": [(s - 1, e - 1) for s, e in found["offsets"][skip:]]}

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        parts: list[str] = []
        run: list[int] = []
        names = {i: piece for piece, i in self._control.items()}
        for token in [*ids, None]:
            if token is not None and token not in names:
                run.append(token)
                continue
            if run:
                parts.append(self._inner.decode(run))
                run = []
            if token is not None and not skip_special:
                parts.append(names[token])
        return "".join(parts)

    def id_of(self, token: str) -> int | None:
        found = self._inner.piece_to_id(token)
        return None if found == self._inner.unk_id() and token != self._inner.id_to_piece(found) else found


# --- finding and reading files -------------------------------------------------------------------


@lru_cache(maxsize=8)
def load(name: str, revision: str = "") -> Tokenizer:
    """The tokenizer of that name (see the module's docstring); Problem R034 when it cannot be read."""
    if name == "builtin:bytes":
        return ByteTokenizer()
    if name.startswith("builtin:words/"):
        from runtime import words

        return words.load(name)
    if name.startswith("builtin:"):
        raise Problem("R034", f"there is no tokenizer `{name}`; the built-in one is `builtin:bytes`")
    path = fetch.fetch(name, revision, fetch.TOKENIZER)
    file = _tokenizer_file(path, name)
    return SentencePieceTokenizer(name, file) if file.suffix == ".model" else HuggingFaceTokenizer(name, file)


def _tokenizer_file(path: Path, name: str) -> Path:
    if path.is_file():
        if path.suffix in (".json", ".model"):
            return path
        raise Problem(
            "R034", f"`{name}` is no tokenizer; give a folder, a tokenizer.json or a SentencePiece .model"
        )
    models = sorted(path.glob("*tokenizer.model")) + sorted(path.glob("spiece.model"))
    for file in (path / "tokenizer.json", *models):
        if file.is_file():
            return file
    if (path / "vocab.json").is_file() or (path / "vocab.txt").is_file():
        found = "only the slow format's vocabulary (vocab.json or vocab.txt)"
        way = "write the fast format once: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        raise Problem("R034", f"`{name}` holds {found}; {way}")
    raise Problem(
        "R034", f"`{name}` holds neither tokenizer.json nor tokenizer.model; give `model.tokenizer`"
    )


def _read_tokenizer_json(file: Path) -> Any:
    import tokenizers

    try:
        inner = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises bare Exception
        raise Problem("R034", f"`{file}` is no readable tokenizer.json ({error}); fetch it again") from None
    inner.no_truncation()
    inner.no_padding()
    return inner


def _read_sentencepiece(file: Path) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError):
        raise Problem(
            "R034",
            f"`{file}` is no SentencePiece model (a tiktoken file goes by the same name); "
            "give the folder that holds a tokenizer.json",
        ) from None


def _added_token(entry: dict[str, Any]) -> Any:
    import tokenizers

    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return tokenizers.AddedToken(entry["content"], **{k: bool(entry[k]) for k in flags if k in entry})


COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def _beside(file: Path) -> tuple[Path, ...]:
    """The tokenizer's file and those next to it that say more about it."""
    folder = file.parent
    both = [folder / n for n in ("tokenizer.json", "tokenizer.model", *COMPANIONS) if folder / n != file]
    return (file, *(f for f in both if f.is_file()))


@dataclass(frozen=True)
class Settings:
    """What the JSON files beside a tokenizer say about its special tokens and its chat."""

    specials: dict[str, str]
    added: tuple[dict[str, Any], ...]
    eos_ids: tuple[int, ...]
    chat_template: str

    @staticmethod
    def read(folder: Path) -> Settings:
        """Later files fill in only what earlier ones leave out."""
        config, mapped = (
            _read_json(folder / "tokenizer_config.json"),
            _read_json(folder / "special_tokens_map.json"),
        )
        generation = _read_json(folder / "generation_config.json")
        specials = {}
        for name in SPECIAL_NAMES:
            token = config.get(name) or mapped.get(name)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                specials[name] = text
        decoder = config.get("added_tokens_decoder") or {}
        added = [decoder[key] for key in sorted(decoder, key=int)]
        ends = generation.get("eos_token_id")
        ends = ends if isinstance(ends, list) else [ends]
        return Settings(
            specials=specials,
            added=tuple(entry for entry in added if isinstance(entry, dict) and "content" in entry),
            eos_ids=tuple(i for i in ends if isinstance(i, int)),
            chat_template=_chat_template(folder, config),
        )

    def apply(
        self, to: Tokenizer, bos: int | None = None, eos: int | None = None, pad: int | None = None
    ) -> None:
        """Fill in ids and template; the arguments are what the tokenizer's own file says."""

        def id_of(name: str, own: int | None) -> int | None:
            text = self.specials.get(name)
            found = to.id_of(text) if text is not None else None
            if text is not None and found is None:
                raise Problem("R034", f"`{to.name}` names {name} `{text}`, which is not in its vocabulary")
            return own if found is None else found

        to.bos_id = id_of("bos_token", bos)
        to.eos_id = id_of("eos_token", eos)
        if to.eos_id is None and self.eos_ids:
            to.eos_id = self.eos_ids[0]
        to.eos_ids = tuple(dict.fromkeys(i for i in (to.eos_id, *self.eos_ids) if i is not None))
        pad = id_of("pad_token", pad)
        to.pad_id = next((i for i in (pad, to.eos_id) if i is not None), 0)
        to.specials = self.specials | _own_specials(to, self.specials)
        to.chat_template = self.chat_template


def _own_specials(to: Tokenizer, named: dict[str, str]) -> dict[str, str]:
    """The texts of bos and eos that only the tokenizer's own file names."""
    own = {"bos_token": to.bos_id, "eos_token": to.eos_id}
    return {name: to.decode([i]) for name, i in own.items() if i is not None and name not in named}


def _chat_template(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise Problem("R034", f"`{file}` is not readable JSON ({error}); fetch it again") from None
    return data if isinstance(data, dict) else {}


def _write_json(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
