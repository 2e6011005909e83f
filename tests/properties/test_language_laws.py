"""Laws of the language: what is written is read back, and no text can bring the compiler down."""

import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specc import compose, source
from specc.algorithms.sft import Spec
from specc.compose import Composer
from specc.diagnostics import as_json, render
from specc.experiment import check, resolved
from specc.graph import lower
from specc.spec.reading import paths_of

SHORT = settings(
    max_examples=settings().max_examples * 3 // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

texts = st.text(max_size=12) | st.sampled_from(
    [
        "1e-6",
        "on",
        "null",
        "~",
        "12",
        "0x1f",
        ".inf",
        "a: b",
        "# no",
        "- x",
        "",
        " ",
        "true",
        "<<",
        "*a",
        "&a",
        "'",
        '"',
        "...",
        "---",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
data = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@SHORT
@given(st.dictionaries(texts, data, max_size=5))
def test_canonical_yaml_is_read_back_as_the_same_data(value):
    text = source.dump(value)
    read, said = source.parse(text, "x")
    if not value:
        return
    assert not said, (text, render(said, read))
    assert repr(read.data) == repr(value)


@SHORT
@given(st.text(max_size=200) | st.text(alphabet="ab:{}[]&*!|>'\"-?,# \n\t%@`\\<", max_size=60))
def test_no_text_brings_the_reader_down(text):
    read, said = source.parse(text, "x")
    check(read)
    assert render(said, read) == render(said, read)
    for one in as_json(said, read):
        assert one["line"] is None or one["line"] >= 1


@SHORT
@given(st.binary(max_size=60))
def test_no_bytes_bring_the_reader_down(tmp_path_factory, raw):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(raw)
    read, said = source.read(file)
    render([*said, *check(read)[1]], read)


@SHORT
@given(st.text(alphabet="ab:{}[]&*!|>'\"-?,# \n", max_size=60))
def test_both_parsers_of_yaml_agree_on_any_text(text):
    ours, pythons = Composer(text), Composer(text, compose._PythonParser)
    assert ours.document() == pythons.document() or (ours.diagnostics and pythons.diagnostics)
    assert bool(ours.diagnostics) == bool(pythons.diagnostics)


@SHORT
@given(st.text(max_size=30), st.text(max_size=30))
def test_no_set_brings_the_reader_down(path, value):
    read, _ = source.parse("name: x\ntrain: {lr: 1e-5, betas: [0.9, 0.95]}\n", "x")
    changed, said = source.with_overrides(read, [f"{path}={value}", path])
    render([*said, *check(changed)[1]], changed)


PATHS = [*sorted(paths_of(Spec)), "name", "seed", "cluster", "stages", "stages.a.model", "algorithm"]
BASE = {"name": "toy", "algorithm": "sft", "model": "tiny-llama", "data": {"train": "builtin:arithmetic"}}


def with_value(path, value):
    """The base spec with a value put at a path, whatever stands on the way."""
    spec = {**BASE, "data": dict(BASE["data"])}
    here, keys = spec, path.split(".")
    for key in keys[:-1]:
        if not isinstance(here.get(key), dict):
            here[key] = {}
        here = here[key]
    here[keys[-1]] = value
    return spec


@settings(SHORT, max_examples=4 * settings().max_examples)
@given(st.sampled_from(PATHS), data)
def test_any_value_at_any_key_is_taken_or_told(path, value):
    read, said = source.parse(source.dump(with_value(path, value)), "x")
    if said:
        return
    experiment, said = check(read)
    assert (experiment is None) == bool(said)
    text = render(said, read)
    assert "pydantic" not in text
    assert "nput should" not in text
    if experiment is None:
        return
    again, said = check(source.parse(source.dump(resolved(experiment)), "x")[0])
    assert not said
    assert again == experiment
    lower(experiment)


numbers = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(0, 1),
        "steps": st.integers(1, 10**6),
        "epochs": st.floats(0.1, 100),
        "global_batch": st.integers(1, 4096),
        "packing": st.booleans(),
        "schedule": st.sampled_from(["cosine", "linear", "constant"]),
        "warmup_steps": st.just(0),
        "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    },
)


@SHORT
@given(
    train=numbers,
    time=st.none() | st.integers(1, 366 * 86400).map(lambda s: f"{s}s"),
    name=st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20),
    env=st.dictionaries(
        st.text(string.ascii_uppercase, min_size=1),
        st.integers() | st.text(string.printable[:94]),
        max_size=2,
    ),
)
def test_what_show_prints_is_the_same_experiment(train, time, name, env):
    spec = {**BASE, "name": name, "train": train, "env": env} | ({"time": time} if time else {})
    experiment, said = check(source.parse(source.dump(spec), "x")[0])
    assert not said, render(said, None)
    again, said = check(source.parse(source.dump(resolved(experiment)), "x")[0])
    assert again == experiment
    assert not said
