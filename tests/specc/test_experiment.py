"""Specs of one stage and of several; all mistakes at once; show is read back."""

import functools
import json
from pathlib import Path

import jsonschema
import pytest

from specc import experiment, schema, shipped, source
from specc.experiment import check, resolved
from specc.spec.cluster import Profile

ONE = {"name": "toy", "algorithm": "sft", "model": "tiny-llama", "data": {"train": "builtin:arithmetic"}}
STAGE = {key: value for key, value in ONE.items() if key != "name"}


def checked(data):
    read, said = source.parse(source.dump(data), "spec.yaml")
    assert not said
    return check(read)


def sound(data):
    found, said = checked(data)
    assert not said
    return found


def codes(data):
    found, said = checked(data)
    assert found is None
    return [d.code for d in said]


def test_a_spec_without_stages_is_one_stage_named_after_its_algorithm():
    found = sound(ONE)
    assert (found.single, list(found.stages)) == (True, ["sft"])
    assert found.path("sft", "train.lr") == "train.lr"


def test_stages_keep_the_order_of_the_spec():
    found = sound({"name": "toy", "stages": {"z": STAGE, "a": STAGE}})
    assert (found.single, list(found.stages)) == (False, ["z", "a"])
    assert found.path("a", "train.lr") == "stages.a.train.lr"


def test_every_mistake_is_told_at_once_in_the_order_of_the_text():
    data = {"name": "A B", "seed": -1, **STAGE, "train": {"lr": "x", "stepps": 1}, "nodes": 0, "extra": 1}
    assert codes(data) == ["T006", "T004", "T002", "T001", "T004", "T001"]


def test_mistakes_of_every_stage_are_told():
    data = {
        "name": "toy",
        "stages": {"a": {**STAGE, "nodes": 0}, "b": {"algorithm": "x"}, "c": 1, "D": STAGE},
    }
    assert codes(data) == ["T004", "T008", "T002", "T006"]


def test_a_misspelt_key_is_not_also_a_missing_one():
    assert codes({"modle": "x", **{k: v for k, v in ONE.items() if k != "model"}}) == ["T001"]


@pytest.mark.parametrize("algorithm", [1, None, ["sft"], {"a": 1}, "", "../sft", "__init__", "specc"])
def test_an_algorithm_is_the_name_of_a_file_of_the_folder(algorithm):
    assert codes({**ONE, "algorithm": algorithm}) == ["T008"]


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "a b", "-a", "A", "ü", "a" * 64, "a\nb", "$HOME"]
)
def test_a_name_that_is_not_safe_as_a_folder_is_refused(name):
    assert codes({**ONE, "name": name}) == ["T006"]


SPECS = sorted(shipped.specs().glob("*.yaml"))


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_a_resolved_spec_is_read_back_as_the_same_experiment(file):
    read, _ = source.read(file)
    found, _ = check(read)
    again = sound(resolved(found))
    assert again == found
    assert resolved(again) == resolved(found)


def test_the_resolved_spec_holds_the_defaults():
    assert resolved(sound(ONE))["train"]["global_batch"] == 128


# --- JSON Schema ----------------------------------------------------------------------------------------


of_a_spec = functools.cache(experiment.json_schema)


def problems(data, which=None):
    return list(jsonschema.Draft7Validator(which or of_a_spec()).iter_errors(data))


def test_the_schema_is_a_schema_of_draft_7():
    jsonschema.Draft7Validator.check_schema(experiment.json_schema())
    jsonschema.Draft7Validator.check_schema(schema.of_section(Profile))


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_shipped_specs_follow_the_schema(file):
    read, _ = source.read(file)
    assert not problems(read.data)
    assert not problems(resolved(check(read)[0]))


def test_shipped_profiles_follow_the_schema():
    from specc.spec import cluster

    for file in sorted(cluster.SHIPPED.glob("*.yaml")):
        assert not problems(source.read(file)[0].data, schema.of_section(Profile))


@pytest.mark.parametrize(
    "wrong", [{"trian": {}}, {"nodes": "2"}, {"train": {"schedule": "cosin"}}, {"stages": {}}]
)
def test_a_mistake_does_not_follow_the_schema(wrong):
    assert problems({**ONE, **wrong})


def test_the_schema_tells_the_sentence_and_the_tag_of_a_field():
    field = experiment.json_schema()["definitions"]["Train"]["properties"]["lr"]
    assert (field["tag"], field["description"]) == (
        "maths",
        "Highest learning rate, reached after the warm-up.",
    )


def test_the_schema_is_the_same_every_time():
    assert json.dumps(experiment.json_schema()) == json.dumps(experiment.json_schema())


def test_only_the_algorithms_of_a_spec_are_imported():
    folder = Path(experiment.algorithms.__file__).parent
    assert set(experiment.algorithms.names()) == {f.stem for f in folder.glob("[a-z]*.py")}
