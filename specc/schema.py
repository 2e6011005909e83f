"""The JSON Schema of a spec and of a cluster profile: draft-07, which editors read.

Generated from the sections, with the sentence and the tag of each field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import models_json_schema

from specc import algorithms
from specc.spec.section import Section, docs, inner, keys
from specc.spec.units import STAGE

DRAFT = "http://json-schema.org/draft-07/schema#"


def of_experiment(header: type[Section]) -> dict[str, Any]:
    """One stage at the top level, or several under `stages`; `header` is what both have."""
    specs = {name: algorithms.load(name).Spec for name in algorithms.names()}
    definitions = _definitions([header, *specs.values()])
    head = definitions.pop(_title(header, definitions))
    stages = {}
    for name, spec in specs.items():
        stages[name] = definitions.pop(_title(spec, definitions))
    definitions |= {f"{name}-stage": schema for name, schema in stages.items()}
    several = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{STAGE}$"},
        "additionalProperties": {"anyOf": [{"$ref": f"#/definitions/{name}-stage"} for name in stages]},
        "description": "Stages by name, each with an `algorithm`.",
    }
    ways = [_merged(head, schema) for schema in stages.values()]
    ways.append(_merged(head, {"properties": {"stages": several}, "required": ["stages"]}))
    return {
        "$schema": DRAFT,
        "title": "specc spec",
        "description": "An alignment experiment: one stage, or several under `stages`.",
        "anyOf": ways,
        "definitions": definitions,
    }


def of_section(section: type[Section]) -> dict[str, Any]:
    """The schema of one section by itself, such as a cluster profile."""
    definitions = _definitions([section])
    return {"$schema": DRAFT, **definitions.pop(_title(section, definitions)), "definitions": definitions}


def _merged(head: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """One object with the keys of both."""
    return {
        "type": "object",
        "properties": head["properties"] | body["properties"],
        "required": [*head.get("required", []), *body.get("required", [])],
        "additionalProperties": False,
    }


def _definitions(sections: list[type[Section]]) -> dict[str, Any]:
    """Every section reachable from these, by its name."""
    _, schema = models_json_schema([(section, "validation") for section in sections])
    text = json.dumps(schema.get("$defs", {})).replace("#/$defs/", "#/definitions/")
    definitions: dict[str, Any] = json.loads(text)
    for section in {found: None for root in sections for found in _reachable(root)}:
        definition = definitions[_title(section, definitions)]
        for way in (definition, *definition.get("anyOf", [])):
            for key, sentence in docs(section).items():
                if key in way.get("properties", {}):
                    _described(way["properties"][key], sentence)
    return definitions


def _title(section: type[Section], definitions: dict[str, Any]) -> str:
    """What pydantic calls a section: its name, with its module's where several have that name."""
    whole = f"{section.__module__}.{section.__qualname__}".replace(".", "__")
    return whole if whole in definitions else section.__name__


def _described(field: dict[str, Any], sentence: str) -> None:
    """Adds the sentence; draft-07 ignores what stands beside a `$ref`, so that moves into an `allOf`."""
    field.pop("title", None)
    if "$ref" in field:
        field["allOf"] = [{"$ref": field.pop("$ref")}]
    field["description"] = sentence


def _reachable(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for key in keys(section):
        found = inner(section, key)
        if found is not None:
            yield from _reachable(found)
