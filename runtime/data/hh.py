"""Anthropic's helpful and harmless dialogues (Bai et al. 2022): comparisons and prompts.

A row holds two dialogues that end in answers of different worth:

    {"chosen": "\\n\\nHuman: q\\n\\nAssistant: a", "rejected": "\\n\\nHuman: q\\n\\nAssistant: b"}

Their .jsonl.gz files and the Hugging Face data set have the same rows, so `format: hh` reads either as it
is; nothing has to be converted first. Texts take the tutorials' form, `User: q\\n\\nAssistant: a`, and a
prompt ends in `Assistant:`. Rows whose speakers do not take turns are dropped and counted.

    python -m runtime.data.hh SOURCE OUT

writes the four files of the tutorials, {train,test}_{comparisons,prompts}.jsonl, from a folder of
.jsonl.gz files or the data set's id, for other programs that want them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.data.prompt_response import Encoded, kind
from runtime.problem import Problem

UNLIKE = "without speakers that take turns"
SPEAKERS = ("Human", "Assistant")
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")


def turns(dialogue: str) -> list[str] | None:
    """What question and answer say by turns, an answer last; None when it is no such dialogue."""
    marks = list(_TURN.finditer(dialogue))
    if not marks or dialogue[: marks[0].start()].strip() or len(marks) % 2:
        return None
    if any(mark[1] != SPEAKERS[i % 2] for i, mark in enumerate(marks)):
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(dialogue)]
    said = [dialogue[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    return said if all(said[::2]) else None


def text(said: list[str]) -> str:
    """The dialogue in the tutorials' form."""
    pairs = zip(said[::2], said[1::2], strict=True)
    return "\n\n".join(f"User: {question}\n\nAssistant: {answer}".rstrip(" ") for question, answer in pairs)


def asked(said: list[str]) -> str:
    """The dialogue up to its last answer."""
    return text([*said[:-1], ""])


def pair(row: Mapping[str, Any], where: str) -> tuple[str, str] | Encoded:
    """The chosen and the rejected text, or why there are none; R010 for a row of another form."""
    sides = [turns(_dialogue(row, side, where)) for side in ("chosen", "rejected")]
    if sides[0] is None or sides[1] is None:
        return Encoded(dropped=UNLIKE)
    return text(sides[0]), text(sides[1])


def prompt(row: Mapping[str, Any], where: str) -> str | None:
    """What both answers answer; None for no such dialogue."""
    said = turns(_dialogue(row, "chosen", where))
    return None if said is None else asked(said)


def answered(row: Mapping[str, Any], where: str) -> tuple[str, str] | None:
    """The prompt and the chosen answer, which follows it after a space; None for no such dialogue."""
    said = turns(_dialogue(row, "chosen", where))
    return None if said is None else (asked(said), f" {said[-1]}")


def until_question(answer: str) -> str:
    """What a model said before it went on as the one who asks: the mark of a question ends an answer."""
    return answer.partition("\n\nUser:")[0]


def compared(row: Mapping[str, Any], where: str) -> tuple[str, str, str] | Encoded:
    """The prompt and both answers to it; why there are none, where the dialogues differ before the last."""
    sides = [turns(_dialogue(row, side, where)) for side in ("chosen", "rejected")]
    if sides[0] is None or sides[1] is None:
        return Encoded(dropped=UNLIKE)
    if sides[0][:-1] != sides[1][:-1]:
        return Encoded(dropped="with answers to two prompts")
    return asked(sides[0]), sides[0][-1], sides[1][-1]


def _dialogue(row: Mapping[str, Any], side: str, where: str) -> str:
    if side not in row:
        keys = ", ".join(map(str, row)) or "nothing"
        raise Problem("R010", f"{where}: expected dialogues in `chosen` and `rejected`; the row has {keys}")
    if not isinstance(row[side], str):
        raise Problem("R010", f"{where}: `{side}` is {kind(row[side])}; expected a dialogue as text")
    return row[side]


def prepare(source: str, folder: Path) -> dict[str, int]:
    """Write the tutorials' files; rows of each, and of those that were dropped."""
    from runtime.data.rows import open_rows

    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for split in ("train", "test"):
        rows = open_rows({"path": source, "split": split}, seed=0, cache=folder / ".fetched")
        texts, prompts, dropped = [], [], 0
        for index in range(len(rows)):
            found = pair(rows[index], rows.where(index))
            if isinstance(found, Encoded):
                dropped += 1
                continue
            texts += [{"text": side} for side in found]
            prompts.append({"text": prompt(rows[index], rows.where(index))})
        counts |= {f"{split}_comparisons": _written(folder / f"{split}_comparisons.jsonl", texts) // 2}
        counts |= {f"{split}_prompts": _written(folder / f"{split}_prompts.jsonl", prompts)}
        counts |= {f"{split}_dropped": dropped}
    return counts


def _written(file: Path, rows: list[dict[str, Any]]) -> int:
    partial = file.with_name(f".{file.name}")
    with partial.open("w", encoding="utf-8") as opened:
        opened.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(file)
    return len(rows)


def main(arguments: list[str]) -> int:
    """`python -m runtime.data.hh SOURCE OUT`; its exit code."""
    if len(arguments) != 2:
        print("usage: python -m runtime.data.hh SOURCE OUT", file=sys.stderr)
        return 2
    try:
        counts = prepare(arguments[0], Path(arguments[1]))
    except Problem as problem:
        print(f"error[{problem.code}]: {problem.message}", file=sys.stderr)
        return 3 if problem.outside else 1
    except OSError as error:
        print(f"error[R006]: cannot write in `{arguments[1]}`: {error.strerror}", file=sys.stderr)
        return 3
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
