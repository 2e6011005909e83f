"""Plain data -> a section, and every mistake in it as a diagnostic in plain words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from specc.diagnostics import Diagnostic, Span, parent, span_of
from specc.source import Source, join
from specc.spec import section as sections
from specc.spec.section import Section, Shorthand

Kind = TypeVar("Kind", bound=Section)

NOUNS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a section",
    "model_type": "a section",
    "model_attributes_type": "a section",
}
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_YES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def read(
    kind: type[Kind], data: Any, source: Source, path: str = "", also: Sequence[str] = ()
) -> tuple[Kind | None, list[Diagnostic]]:
    """The section of that kind at `path`, or None and all that is wrong with it, in the order of the text.

    `also` names keys that may stand beside the section's own, for suggestions.
    """
    try:
        return kind.model_validate(data), []
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    said = [_said(kind, mistake, source, path, also) for mistake in mistakes]
    return None, in_order(_without_echoes(said), source)


def _without_echoes(said: list[Diagnostic]) -> list[Diagnostic]:
    """A key that is missing because it is misspelt is told once, where it stands; and so is what is wrong
    with an entry of a list, which without it has too few.
    """
    meant = {
        join(parent(d.path), d.help.removeprefix("did you mean `").removesuffix("`?")): d
        for d in said
        if d.code == "T001" and d.help.startswith("did you mean `")
    }
    return [
        d
        for d in said
        if not (d.code == "T005" and d.path in meant)
        and not (d.code == "T004" and any(o.path.startswith((f"{d.path}[", f"{d.path}.")) for o in said))
    ]


def in_order(said: Sequence[Diagnostic], source: Source) -> list[Diagnostic]:
    """Diagnostics in the order of the lines they point at; those of other texts come last."""

    def place(diagnostic: Diagnostic) -> tuple[bool, int, int]:
        span = span_of(diagnostic, source)
        return (
            span is not None and span.origin is not None,
            span.line if span else 0,
            span.column if span else 0,
        )

    return sorted(said, key=place)


def _said(kind: type[Section], mistake: Any, source: Source, path: str, also: Sequence[str]) -> Diagnostic:
    loc = tuple(part for part in mistake["loc"] if part != "[key]")
    here, where = path, path
    for part in loc:
        inner = f"{where}[{part}]" if isinstance(part, int) else join(where, str(part))
        if not isinstance(part, int) or inner in source.spans or where not in source.spans:
            here, where = where, inner  # else a list's only entry, which stands without brackets
    if mistake["loc"][-1:] == ("[key]",):
        return _bad_key(str(loc[-1]), mistake, where)
    if mistake["type"] == "extra_forbidden":
        return _unknown_key(kind, loc, where, here, path, also)
    if mistake["type"] == "missing":
        return _missing(kind, loc, source, where)
    return _bad_value(kind, loc, mistake, where)


# --- keys --------------------------------------------------------------------------------------------


def _bad_key(key: str, mistake: Any, where: str) -> Diagnostic:
    context = mistake.get("ctx") or {}
    message = f"the key `{key}` must be {context.get('expected', 'text')}"
    plain = re.sub(r"\W", "_", key, flags=re.ASCII)
    help = context.get("help") or f"call it `{plain if not plain[:1].isdigit() else f'_{plain}'}`"
    return Diagnostic(context.get("code", "T006"), "error", message, where, help=help, of_key=True)


def _unknown_key(
    kind: type[Section], loc: tuple[Any, ...], where: str, here: str, top: str, also: Sequence[str]
) -> Diagnostic:
    key, holder = str(loc[-1]), section_at(kind, loc[:-1])
    known = [*(sections.keys(holder) if holder else ()), *(also if len(loc) == 1 else ())]
    help = _where_it_belongs(kind, key, known, here, top)
    message = f"unknown key `{key}`"
    return Diagnostic("T001", "error", message, where, "not a key of this section", help, of_key=True)


def _where_it_belongs(kind: type[Section], key: str, known: Sequence[str], here: str, top: str) -> str:
    """`did you mean ...?`: a key of this section, or one elsewhere by the same name; else all keys here."""
    first, dot, rest = key.partition(".")
    if dot and first in known:
        return f"a key has no dots; write `{first}: {{{rest}: ...}}`"
    near = nearest(key, known)
    if near:
        return f"did you mean `{near}`?"
    elsewhere = [p for p in paths_of(kind) if p.rsplit(".", 1)[-1] == key]
    if elsewhere:
        return f"`{key}` belongs in `{join(top, parent(elsewhere[0])) or 'the top level'}`"
    return f"{f'`{here}`' if here else 'the top level'} takes {listed(known)}" if known else "remove it"


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that `word` was perhaps meant to be, or ''."""
    plain = {k.lower().replace("-", "_"): k for k in reversed(known)}
    folded = word.lower().replace("-", "_")
    near = difflib.get_close_matches(folded, plain, n=1, cutoff=0.6)
    if near:
        return plain[near[0]]
    longer = [k for k in known if len(word) > 2 and (k.startswith(f"{folded}_") or k.endswith(f"_{folded}"))]
    return longer[0] if len(longer) == 1 else ""


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a`, `b` and `c`."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


def paths_of(kind: type[Section], path: str = "") -> Iterator[str]:
    """The path of every key, breadth first."""
    inner = []
    for key in sections.keys(kind):
        here = join(path, key)
        yield here
        if found := sections.inner(kind, key):
            inner.append((found, here))
    for found, here in inner:
        yield from paths_of(found, here)


def section_at(kind: type[Section], loc: Sequence[Any]) -> type[Section] | None:
    """The section that lies at a location within another."""
    found: type[Section] | None = kind
    for part in loc:
        if not isinstance(part, int):  # an entry of a list of sections
            found = sections.inner(found, part) if found and part in sections.keys(found) else None
    return found


def _missing(kind: type[Section], loc: tuple[Any, ...], source: Source, where: str) -> Diagnostic:
    key, at = str(loc[-1]), parent(where)
    message = f"`{at}` has no `{key}`" if at else f"the spec has no `{key}`"
    sentence = _sentence(kind, loc)
    help = f"add `{key}:`" + (f" ({sentence.partition(': ')[2]})" if sentence else "")
    span = _anchor(at, source)
    return Diagnostic("T005", "error", message, where, f"needs `{key}`", help, span)


def _anchor(path: str, source: Source) -> Span | None:
    """Where to point for something that is not there: the section at `path`, or the spec's first words."""
    for known in (path, "algorithm", "stages", "name", *source.spans):
        if known in source.spans and known:
            key, value = source.spans[known]
            return value if key.line == value.line == value.end_line and known == path else key
    return None


def _sentence(kind: type[Section], loc: Sequence[Any]) -> str:
    """The field at a location, or the nearest one around it, and what the docs say of it; or ''."""
    names = [part for part in loc if not isinstance(part, int)]
    while names:
        holder = section_at(kind, names[:-1])
        if holder and names[-1] in sections.keys(holder):
            return f"`{names[-1]}`: {_lower(sections.docs(holder).get(str(names[-1]), ''))}"
        names.pop()
    return ""


def _lower(sentence: str) -> str:
    """A sentence as it goes on after a comma: first part only, no capital, no full stop."""
    first = re.split(r"(?<=[a-z0-9`)])[.;:] ", sentence)[0].rstrip(".")
    word = first.split(" ", 1)[0]
    if word[1:] != word[1:].lower() or word in ("Adam's", "Slurm's", "Transformer"):
        return first
    return first[:1].lower() + first[1:]


# --- values ------------------------------------------------------------------------------------------


def _bad_value(holder: type[Section], loc: tuple[Any, ...], mistake: Any, where: str) -> Diagnostic:
    kind, given, context = mistake["type"], mistake["input"], mistake.get("ctx") or {}
    if kind == "conflict":
        path = join(where, context["key"]) if context["key"] else where
        return Diagnostic("T009", "error", context["message"], path, help=context["help"])
    if kind == "spec":
        code, expected, help = context["code"], context["expected"], context["help"]
    elif kind == "literal_error":
        found = re.findall(r"'([^']*)'|\b(True|False)\b", context["expected"])
        choices = [text or word.lower() for text, word in found]
        near = nearest(str(given), choices) if isinstance(given, str) else ""
        code, help = "T003", f"did you mean `{near}`?" if near else ""
        expected = listed(choices, "or") if len(choices) > 1 else listed(choices)
    elif kind in BOUNDS:
        name, words = BOUNDS[kind]
        code, expected, help = "T004", f"{words} {number(context[name])}", ""
    elif kind in ("too_short", "too_long"):
        least = kind == "too_short"
        count = context["min_length" if least else "max_length"]
        code, expected, help = "T004", f"a list of {'at least' if least else 'at most'} {count}", ""
        given = list(given) if isinstance(given, tuple) else given
    else:
        code, expected = "T002", NOUNS.get(kind) or _lower(str(mistake["msg"]))
        inner = section_at(holder, loc)
        if kind == "model_type" and inner and issubclass(inner, Shorthand):
            expected = "text or a section"
        help = _way_out(kind, given)
    if not help and (sentence := _sentence(holder, loc)):
        help = sentence
    message = f"`{where}` is {shown(given)}, but must be {expected}"
    label = f"expected {expected}" if len(expected) <= 50 else ""
    return Diagnostic(code, "error", message, where, label, help)


def _way_out(kind: str, given: Any) -> str:
    """What to write instead of a value of the wrong type, where that can be guessed."""
    if given is None:
        return f"give it {'keys' if kind in ('model_type', 'dict_type') else 'a value'}, or remove it"
    if kind == "bool_type" and isinstance(given, str):
        return f"write {_YES[given.lower()]}" if given.lower() in _YES else ""
    if kind in ("int_type", "float_type") and isinstance(given, str):
        plain = re.sub(r"(?<=\d)[_,](?=\d{3})", "", given)
        if re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", plain):
            return "remove the quotes" if plain == given else f"write {plain}"
        match = re.fullmatch(r"(\d+)([kKmM])", given)
        return f"write {int(match[1]) * (1000 if match[2] in 'kK' else 1_000_000)}" if match else ""
    if kind in ("int_type", "int_from_float") and isinstance(given, float) and given.is_integer():
        return f"write {int(given)}"
    if kind == "string_type" and isinstance(given, int | float):
        return "put it in quotes"
    if kind == "tuple_type" and not isinstance(given, dict | None):
        return f"write [{given}]"
    return ""


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if len(value) != 1 else "a list of one"
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    text = text or (number(value) if isinstance(value, float) else str(value))
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}...`"


def number(value: Any) -> str:
    """A number as a person writes it: 0 for 0.0, 1e-05 stays."""
    return (
        str(int(value))
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15
        else str(value)
    )
