"""Generation against transformers' own, and against the forward pass that trains."""

import llamas
import pytest
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch

NEW = 16


def prompts(count, longest=60, vocab=270):
    import torch

    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama, written by transformers."""
    return llamas.saved(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def theirs(folder):
    """What transformers generates greedily, and the gap between the two largest logits of each token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for prompt in prompts(200):
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        two = torch.cat(out.logits).topk(2).values
        found.append((out.sequences[0, len(prompt) :].tolist(), (two[:, 0] - two[:, 1]).tolist()))
    return found


def engine_of(folder, layout):
    from runtime import cpu, parallel
    from runtime.engine import Engine
    from runtime.hf import import_weights

    cpu.install()
    role = llamas.role(folder, layout)
    here = parallel.start(layout, "gloo", "cpu", timeout_seconds=60)
    engine = Engine(role, here)
    import_weights(engine, role, str(folder), here)
    return engine


def greedy(folder, layout):
    from runtime.generate import generate
    from runtime.sampling import Sampling

    return generate(
        engine_of(folder, layout), prompts(200), Sampling(temperature=0.0, max_tokens=NEW), slots=48
    )


LAYOUTS = [
    Layout(),
    Layout(tp=2),
    Layout(tp=2, sequence_parallel=True),
    Layout(pp=2),
    Layout(pp=2, vp=2),
    Layout(pp=2, stage_layers=(1, 3)),
    Layout(dp=2),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_greedy_tokens_are_those_of_transformers(world, folder, theirs, layout):
    answers = world(layout.world_size, greedy, folder, layout, timeout=40)
    assert all(answer == answers[0] for answer in answers)
    different = 0
    for ours, (expected, gaps) in zip(answers[0].tokens, theirs, strict=True):
        assert len(ours) == NEW
        first = next((i for i in range(NEW) if ours[i] != expected[i]), None)
        if first is not None:
            assert gaps[first] < 1e-4
            different += 1
    assert different <= 2


DRAWN = {"temperature": 0.9, "top_k": 60, "top_p": 0.95, "repetition_penalty": 1.1, "stop_token_ids": (5, 77)}


def drawn(role, *orders):
    """100 requests in each order, with so many rows at a time; and how far log-probabilities are off."""
    from runtime import cpu, parallel
    from runtime.engine import Engine
    from runtime.generate import generate
    from runtime.sampling import Sampling

    cpu.install()
    engine = Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    for chunk in engine.chunks:
        for name, parameter in chunk.named_parameters():
            if name.endswith("bias"):  # they begin with 0, which nobody would miss
                parameter.data.fill_(0.05)
    asked, sampling = prompts(100, vocab=250), Sampling(max_tokens=24, min_tokens=2, **DRAWN)
    answers = []
    for slots, order in orders:
        found = generate(engine, [asked[i] for i in order], sampling, order, slots=slots)
        answers.append([tokens for _, tokens in sorted(zip(order, found.tokens, strict=True))])
    return answers, off_by(engine, found), state_of(engine)


def off_by(engine, found):
    """The largest difference of a log-probability to the training forward pass, on this rank's share."""
    from runtime.batch import Sample, dealt

    layout = engine.parallel.layout
    samples = [
        Sample(i, [*prompt, *tokens], [0] * len(prompt) + [1] * len(tokens))
        for i, (prompt, tokens) in enumerate(zip(found.prompts, found.tokens, strict=True))
    ]
    bins, multiple = [[sample] for sample in samples], 2 * layout.tp
    batches = dealt(bins, engine.parallel.dp_rank, layout.dp, 4, multiple=multiple, rounds_multiple=layout.pp)
    largest = 0.0
    for batch, logprobs_BT in zip(batches, engine.forward(batches), strict=True):
        for line, i in enumerate(batch.rows):
            start, end = len(found.prompts[i]) - 1, samples[i].columns
            pairs = zip(logprobs_BT[line, start:end].tolist(), found.logprobs[i], strict=True)
            largest = max(largest, *(abs(a - b) for a, b in pairs))
    return largest


def state_of(engine):
    """What generating switches off and must switch on again."""
    from runtime.cache import CachedAttention

    modules = [module for chunk in engine.chunks for module in chunk.modules()]
    parallel_modules = sum(getattr(module, "sequence_parallel", False) is True for module in modules)
    replaced = sum(isinstance(module, CachedAttention) or "forward" in vars(module) for module in modules)
    return engine.config.sequence_parallel, parallel_modules > 0, replaced, engine.chunks[0].training


KINDS = {
    "dense": {},
    "window": {"sliding_window": 9, "qk_norm": True},
    "learned": {"position": "learned", "norm": "layernorm", "activation": "gelu", "linear_bias": True},
    "tied": {"tied": True},
    "experts": {"experts": 4, "experts_per_token": 2},
    "shared": {"experts": 4, "experts_per_token": 2, "shared_expert_ffn": 48, "norm": "rmsnorm_1p"},
    "partial": {"rope_percent": 0.5, "norm": "layernorm_1p", "activation": "squared_relu", "qkv_bias": True},
    "scaled": {"embedding_scale": 8.0, "activation": "geglu", "norm": "rmsnorm_1p", "tied": True},
}
DRAWN_LAYOUTS = [
    ("dense", Layout(tp=2, sequence_parallel=True)),
    ("dense", Layout(tp=2, pp=2)),
    ("dense", Layout(pp=4)),
    ("window", Layout(pp=2, vp=2)),
    ("learned", Layout(tp=2)),
    ("tied", Layout(pp=2)),
    ("experts", Layout(dp=2, ep=2)),
    ("experts", Layout(tp=2, sequence_parallel=True, ep=2)),
    ("experts", Layout(pp=2, dp=2, ep=2)),
    ("shared", Layout(tp=2, sequence_parallel=True, ep=2)),
    ("partial", Layout(tp=2)),
]
SHUFFLED = [(i * 37) % 100 for i in range(100)]


@pytest.fixture(scope="module")
def alone(world):
    """What one process draws, by kind of model: in order, and in another order with few rows at a time."""
    found = {}

    def of(kind):
        if kind not in found:
            role = toys.role(shape=toys.shape(**KINDS[kind]))
            [found[kind]] = world(1, drawn, role, (100, list(range(100))), (7, SHUFFLED))
        return found[kind]

    return of


def differing(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_is_the_same_whatever_batch_it_is_in(alone, kind):
    (all_at_once, few_at_a_time), off, _ = alone(kind)
    assert differing(all_at_once, few_at_a_time) <= 1
    assert off < 1e-4
    assert differing(all_at_once, all_at_once[1:] + all_at_once[:1]) > 90


@pytest.mark.parametrize(("kind", "layout"), DRAWN_LAYOUTS, ids=str)
def test_a_response_is_the_same_under_every_layout_and_its_logprobs_are_those_of_training(
    world, alone, kind, layout
):
    role = toys.role(layout, toys.shape(**KINDS[kind]))
    answers = world(layout.world_size, drawn, role, (32, list(range(100))), timeout=90)
    for [tokens], off, state in answers:
        assert tokens == answers[0][0][0]
        assert differing(tokens, alone(kind)[0][0]) <= 1
        assert off < 1e-4
        assert state == (layout.sequence_parallel, layout.sequence_parallel, 0, True)


def test_responses_end_by_a_stop_token_after_the_least_length_or_by_the_most(alone):
    (tokens, _), _, _ = alone("dense")
    ends = [row[-1] in (5, 77) for row in tokens]
    assert 5 < sum(ends) < 95
    for row, ended in zip(tokens, ends, strict=True):
        assert not {5, 77} & set(row[:-1])
        assert 3 <= len(row) <= 24
        assert ended or len(row) == 24


def on_one(role, case):
    from runtime import cpu, parallel
    from runtime.engine import Engine

    cpu.install()
    engine = Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    return case(engine)


def with_loud_padding(engine):
    from runtime.generate import generate
    from runtime.sampling import Sampling

    [chunk] = engine.chunks
    chunk.output_layer.weight.data[250:] = 100 * chunk.output_layer.weight.data[:6].abs().sum()
    found = [
        generate(engine, prompts(20, vocab=250), Sampling(max_tokens=12, temperature=t)) for t in (0.0, 50.0)
    ]
    return [token for rollouts in found for row in rollouts.tokens for token in row]


def test_the_padding_of_the_vocabulary_is_never_sampled(world):
    [tokens] = world(1, on_one, toys.role(), with_loud_padding)
    assert max(tokens) < 250
    assert len(set(tokens)) > 100


def stepped(engine):
    """Requests that come while others are generated; one is streamed, one taken back, one waits."""
    from runtime.generate import Generator, Request, generate
    from runtime.sampling import Sampling

    asked, sampling = prompts(6, vocab=250), Sampling(max_tokens=10, stop=("zz",))
    requests = [Request(i, prompt, sampling, i, stream=i == 1) for i, prompt in enumerate(asked)]
    events = []
    with Generator(engine, slots=2, decode=lambda ids: "".join(chr(97 + i % 26) for i in ids)) as generator:
        generator.add(requests[0])
        events += generator.step()
        for request in requests[1:]:
            generator.add(request)
        events += generator.step()
        events += [*generator.abort(1), *generator.abort(5)]
        while not generator.is_idle:
            events += generator.step()
    calm = generate(engine, asked, sampling, decode=lambda ids: "".join(chr(97 + i % 26) for i in ids))
    return events, calm


@pytest.mark.parametrize("layout", [Layout(), Layout(pp=2)], ids=str)
def test_requests_come_and_go_between_steps(world, layout):
    from runtime.rows import Response, Token

    for events, calm in world(layout.world_size, on_one, toys.role(layout), stepped):
        responses = {event.id: event for event in events if isinstance(event, Response)}
        assert sorted(responses) == list(range(6))
        assert responses[5].finish == "abort"
        assert responses[5].tokens == []
        aborted = responses[1]
        assert aborted.finish == "abort"
        assert 1 <= len(aborted.tokens) < 10
        assert (
            [e.token for e in events if isinstance(e, Token)]
            == aborted.tokens
            == calm.tokens[1][: len(aborted.tokens)]
        )
        for i in (0, 2, 3, 4):
            assert responses[i].tokens == calm.tokens[i]
            assert responses[i].finish == calm.finish[i]


def told_beside(engine):
    """The most likely tokens and the prompts' log-probabilities, and the whole distribution in training."""
    from runtime.batch import Sample, dealt
    from runtime.generate import Generator, Request
    from runtime.rows import Heard, Response
    from runtime.sampling import Sampling

    asked = prompts(9, longest=20, vocab=250)
    heard, responses = {}, {}
    with Generator(engine, slots=4) as generator:
        for i, prompt in enumerate(asked):
            sampling = Sampling(temperature=0.7, max_tokens=3 + i)
            generator.add(Request(i, prompt, sampling, i, top=(0, 3, 1)[i % 3], heard=i % 2 == 0))
        while not generator.is_idle:
            for event in generator.step():
                if isinstance(event, Heard):
                    assert event.id not in heard
                    heard[event.id] = event.tokens
                if isinstance(event, Response):
                    responses[event.id] = event
    texts = [[*prompt, *responses[i].tokens] for i, prompt in enumerate(asked)]
    samples = [Sample(i, text, [1] * len(text)) for i, text in enumerate(texts)]
    layout = engine.parallel.layout
    batches = dealt([[s] for s in samples], 0, 1, 4, multiple=2 * layout.tp, rounds_multiple=layout.pp)
    whole = {}
    for batch, logits_BTV in zip(batches, engine.forward(batches, "logits"), strict=True):
        for line, i in enumerate(batch.rows):
            whole[i] = logits_BTV[line].log_softmax(-1)
    return asked, texts, heard, responses, whole


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2, pp=2)], ids=str)
def test_what_is_told_beside_tokens_is_the_distribution_of_the_training_pass(world, layout):
    asked, texts, heard, responses, whole = world(layout.world_size, on_one, toys.role(layout), told_beside)[
        0
    ]
    assert sorted(heard) == [i for i, prompt in enumerate(asked) if i % 2 == 0 and len(prompt) > 1]
    for i, prompt in enumerate(asked):
        top, row = (0, 3, 1)[i % 3], whole[i].double()
        told = [(len(prompt) - 1 + k, t) for k, t in enumerate(responses[i].tops)]
        assert len(told) == (len(responses[i].tokens) if top else 0)
        for place, token in enumerate(heard.get(i, ())):
            assert token.token == texts[i][place + 1]
            assert token.logprob == pytest.approx(row[place, token.token].item(), abs=1e-4)
            told += [(place, token.top)] if top else []
        for place, best in told:
            values, ids = row[place].topk(top)
            assert [t for t, _ in best] == ids.tolist()
            assert [v for _, v in best] == pytest.approx(values.tolist(), abs=1e-4)


def refused(engine):
    from runtime.generate import GenerateError, generate
    from runtime.sampling import Sampling

    cases = [
        ([], {}),
        ([1] * 128, {}),
        ([250], {}),
        ([-1], {}),
        ([1], {"stop": ("a",)}),
        ([1], {"stop_token_ids": (250,)}),
    ]
    said = []
    for prompt, fields in cases:
        try:
            generate(engine, [[1], prompt], Sampling(**fields))
        except GenerateError as error:
            said.append(str(error))
    longest = generate(engine, [[1] * 120], Sampling(max_tokens=50))
    return said, len(longest.tokens[0]), longest.finish, generate(engine, [], Sampling()).tokens


def test_prompts_that_cannot_be_continued_are_refused_by_number(world):
    [(said, length, finish, nothing)] = world(1, on_one, toys.role(), refused)
    assert len(said) == 6
    for message, word in zip(
        said, ("empty", "128 positions", "250", "250", "tokenizer", "stop token"), strict=True
    ):
        assert message.startswith("prompt ")
        assert word in message
    assert (length, finish, nothing) == (8, ["length"], [])


def test_prompts_are_dealt_so_that_all_replicas_have_as_much_to_do():
    from runtime.generate import dealt
    from runtime.rows import Request
    from runtime.sampling import Sampling

    requests = [Request(i, prompt, Sampling(max_tokens=8)) for i, prompt in enumerate(prompts(50))]
    shares = [dealt(requests, rank, 4) for rank in range(4)]
    assert sorted(r.id for share in shares for r in share) == list(range(50))
    work = [sum(len(r.prompt) + 8 for r in share) for share in shares]
    assert max(work) < 1.15 * min(work)
