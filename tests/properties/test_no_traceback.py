"""A spec can never cause a traceback: whatever stands in it and in its profile is compiled or told."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specc import emit, plan, source
from specc.algorithms.sft import Spec
from specc.compile import compile_spec
from specc.diagnostics import render
from specc.spec.cluster import Profile
from specc.spec.reading import paths_of

BASE = {
    "name": "toy",
    "cluster": "mine",
    "algorithm": "sft",
    "model": "tiny-llama",
    "data": {"train": "builtin:arithmetic"},
}

numbers = st.sampled_from([-1, 0, 1, 2, 3, 7, 8, 16, 100, 10**6, 10**9, 10**30, 0.5, 1e-6, 1e300])
words = st.sampled_from(
    [
        *("", "a", "auto", "full", "none", "te", "local", "slurm", "gres", "pyxis", "fp32", "cpu", "4h"),
        *("h100", "rtx4090", "llama3-70b", "mixtral-8x7b", "tiny-llama", "builtin:bytes", "example-h100"),
        *(
            "../x",
            "~nobody",
            "/dev/null",
            "/etc/passwd",
            "a\0b",
            "\u202e",
            "x" * 3000,
            "file:///etc",
            "s3://b/c",
        ),
    ]
)
shapes = st.fixed_dictionaries(
    {"layers": numbers, "hidden": st.sampled_from([48, 64, 1e9, "x"]), "heads": numbers},
    optional={
        "kv_groups": numbers,
        "experts": numbers,
        "vocab": numbers,
        "rope_scaling": st.just({"a": [1]}),
    },
)
plain = st.none() | st.booleans() | numbers | words
values = (
    plain
    | shapes
    | st.lists(plain, max_size=3)
    | st.dictionaries(st.sampled_from(["path", "name", "stage", "run", "from"]), plain, max_size=2)
)


def changes(section):
    return st.lists(st.tuples(st.sampled_from(sorted(paths_of(section))), values), max_size=4)


def changed(data, path, value):
    key, _, rest = path.partition(".")
    inner = data.get(key) if isinstance(data.get(key), dict) else {}
    return {**data, key: changed(inner, rest, value) if rest else value}


@settings(
    max_examples=settings().max_examples * 3 // 2, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(spec=changes(Spec), profile=changes(Profile), tiny=st.booleans(), here=st.booleans())
def test_no_spec_brings_the_compiler_down(tmp_path, spec, profile, tiny, here):
    written = BASE
    for path, value in spec:
        written = changed(written, path, value)
    cluster = {"gpus": {"type": "h100-80gb", "per_node": 8}}
    for path, value in profile:
        cluster = changed(cluster, path, value)
    (tmp_path / "clusters").mkdir(exist_ok=True)
    (tmp_path / "clusters/mine.yaml").write_text(source.dump(cluster))
    (tmp_path / "spec.yaml").write_text(source.dump(written))
    done = compile_spec(tmp_path / "spec.yaml", tiny=tiny, here=here)
    text = render(done.diagnostics, done.source)
    assert "pydantic" not in text
    assert "nput should" not in text
    if done.plan is None or not done.fine:
        assert "error[" in text
        return
    assert plan.from_json(plan.to_json(done.plan)) == done.plan
    for target in emit.TARGETS:
        emit.bundle(done.plan, target)
