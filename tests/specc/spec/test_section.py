"""Tags, docs, and what a section says of itself."""

import importlib
import pkgutil

import pytest

import specc.algorithms
import specc.spec
from specc.algorithms.sft import Spec
from specc.experiment import Header
from specc.schema import _reachable
from specc.spec.cluster import Profile
from specc.spec.section import Section, Shorthand, docs, keys, maths_fields, tag
from specc.spec.train import Train

for package in (specc.spec, specc.algorithms):
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")


def below(section):
    for kind in section.__subclasses__():
        yield kind
        yield from below(kind)


SECTIONS = sorted(
    (kind for kind in below(Section) if kind.__module__.startswith("specc.")), key=lambda k: k.__qualname__
)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda x: x.__name__)
def test_a_section_has_a_docstring_and_every_field_a_tag_and_a_sentence(section):
    assert section.__doc__
    for key in keys(section) if section is not Shorthand else ():
        assert tag(section, key) in ("maths", "placement", "cosmetic"), key
        sentence = docs(section)[key]
        assert sentence.endswith("."), key
        assert len(sentence) >= 6, key


def test_sections_reachable_from_a_spec_have_names_of_their_own():
    names = [kind.__name__ for root in (Header, Spec, Profile) for kind in dict.fromkeys(_reachable(root))]
    assert sorted(set(names)) == sorted(dict.fromkeys(names))


def test_a_section_never_changes():
    with pytest.raises(Exception, match="frozen"):
        Train().lr = 1.0


def test_a_text_stands_for_the_first_field_of_a_shorthand():
    spec = Spec.model_validate({"algorithm": "sft", "model": "tiny", "data": {"train": "rows.jsonl"}})
    assert (spec.model.name, spec.data.train.path) == ("tiny", "rows.jsonl")
    assert spec.model_dump(mode="json")["model"] == "tiny"


def test_an_empty_section_is_the_section_as_it_is_when_left_out():
    spec = {"algorithm": "sft", "model": "tiny", "data": {"train": "rows.jsonl"}}
    assert Spec.model_validate(spec | {"train": None, "parallel": None}) == Spec.model_validate(spec)


def test_only_fields_of_mathematics_make_the_identity():
    spec = {"algorithm": "sft", "model": "tiny", "data": {"train": "rows.jsonl"}}
    one = maths_fields(Spec.model_validate(spec))
    placed = spec | {
        "nodes": 4,
        "parallel": {"tp": 2},
        "time": "4h",
        "train": {"micro_batch": 2, "save_every": 7},
    }
    assert maths_fields(Spec.model_validate(placed)) == one
    assert maths_fields(Spec.model_validate(spec | {"train": {"lr": 1e-3}})) == one | {"train.lr": 1e-3}
    assert one["data.train.path"] == "rows.jsonl"
    assert one["train.betas"] == [0.9, 0.98]
