"""The base of every section: frozen, unknown keys refused, each field tagged and documented.

A tag says what changes when a value changes:
  maths      the numbers a run computes; these fields and a stage's inputs make its hash
  placement  where and how it runs: nodes, layouts, times; the result stays the same
  cosmetic   names, logs, how often something is written

The sentence about a field is the string literal under it. It is read from the source text when someone
asks (`docs`), so that importing a section costs nothing for it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

# else pydantic looks through every installed package for plugins, which takes longer than all sections
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

Tag = Literal["maths", "placement", "cosmetic"]
Item = TypeVar("Item")

Many = Annotated[tuple[Item, ...], Field(strict=False)]
"""A list in a spec. It becomes a tuple, so that a section never changes."""


class Section(BaseModel):
    """A part of a spec: what it may hold, and what it says when it is left out."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        serialize_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_are_defaults(cls, given: Any) -> Any:
        """`train:` with nothing below it is the section as it is when it is left out."""
        if not isinstance(given, dict) or None not in given.values():
            return given
        fields = cls.model_fields
        empty = [key for key, value in given.items() if value is None and key in fields]
        left_out = [key for key in empty if isinstance(fields[key].default, Section)]
        return {key: value for key, value in given.items() if key not in left_out}


class Shorthand(Section):
    """A section that may be written as text alone, which is then one of its fields."""

    shorthand: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {cls.shorthand: given} if isinstance(given, str) else given

    @model_serializer(mode="wrap")
    def _as_text(self, handler: SerializerFunctionWrapHandler) -> Any:
        fields = type(self).model_fields
        said = [name for name, field in fields.items() if getattr(self, name) != field.default]
        return getattr(self, self.shorthand) if said == [self.shorthand] else handler(self)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        schema = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string"}, dict(schema)]}


def maths(default: Any = ..., **constraints: Any) -> Any:
    """A field that decides what is computed."""
    return Field(default, json_schema_extra={"tag": "maths"}, **constraints)


def placement(default: Any = ..., **constraints: Any) -> Any:
    """A field that decides where and how it runs, and not what comes out."""
    return Field(default, json_schema_extra={"tag": "placement"}, **constraints)


def cosmetic(default: Any = ..., **constraints: Any) -> Any:
    """A field for people: names, logs, what is kept."""
    return Field(default, json_schema_extra={"tag": "cosmetic"}, **constraints)


def keys(section: type[Section]) -> dict[str, str]:
    """The section's keys as a spec spells them, each with the name of its field."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


def tag(section: type[Section], key: str) -> Tag:
    """The tag of a field, by its key."""
    extra = section.model_fields[keys(section)[key]].json_schema_extra
    assert isinstance(extra, dict), f"{section.__name__}.{key} has no tag"
    return extra["tag"]  # type: ignore[return-value]


def inner(section: type[Section], key: str) -> type[Section] | None:
    """The section that a field holds, or None when it holds something else."""
    return section_in(section.model_fields[keys(section)[key]].annotation)


def section_in(annotation: Any) -> type[Section] | None:
    """The section in `Section`, `Section | None`, `Annotated[Section, ...]`, or of a list's entries."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (dict, list):
        return None
    return next((found for arg in get_args(annotation) if (found := section_in(arg))), None)


def leaves(section: Section, path: str = "") -> Iterator[tuple[str, Tag, Any]]:
    """Every value with its path and tag; a section that is left out (None) is one value."""
    for key, name in keys(type(section)).items():
        value = getattr(section, name)
        here = f"{path}.{key}" if path else key
        if isinstance(value, Section):
            yield from leaves(value, here)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for number, entry in enumerate(value):
                yield from leaves(entry, f"{here}[{number}]")
        else:
            yield here, tag(type(section), key), value


def maths_fields(section: Section) -> dict[str, Any]:
    """The values that decide what is computed, by path, as JSON holds them; what was not said is left out."""
    found = {}
    for path, kind, value in leaves(section):
        if kind == "maths" and value is not None:
            found[path] = list(value) if isinstance(value, tuple) else value
    return found


@functools.cache
def docs(section: type[Section]) -> dict[str, str]:
    """The sentence about each field, by its key."""
    sentences: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if isinstance(kind, type) and issubclass(kind, Section):
            sentences |= _module_docs(kind.__module__).get(kind.__name__, {})
    return {key: sentences.get(name, "") for key, name in keys(section).items()}


@functools.cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    """For each class of a module, the string literal under each of its fields."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, KeyError):  # no source at hand, e.g. typed at a prompt
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                field.target.id: " ".join(inspect.cleandoc(below.value.value).split())
                for field, below in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            }
    return found
