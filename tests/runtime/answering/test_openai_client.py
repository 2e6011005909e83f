"""OpenAI's own client, unmodified, against a tiny model; many clients at once; and clients that leave."""

import asyncio
import threading
import time

import openai
import parrot
import pytest
import requests
import toy_answering

from specc.plan import Layout

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_answering.folder(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def server(world, folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("openai") / "run"
    with toy_answering.served(world, run, folder, chat_template="extra_id") as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


def chat(client, **more):
    own = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
    return client.chat.completions.create(**(own | more))


def test_the_models_are_listed_and_found(client):
    [model] = client.models.list().data
    assert model.id == "tiny" == client.models.retrieve("tiny").id


def test_a_completion_is_the_models_own_greedy_text(client, folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([list(b"hello")])
    out = model.generate(ids, do_sample=False, max_new_tokens=12, pad_token_id=258, eos_token_id=257)
    from runtime.tokenizer import load

    expected = load("builtin:bytes").decode(out[0, 5:].tolist()).removesuffix("<eos>")
    said = client.completions.create(model="tiny", prompt="hello", max_tokens=12, temperature=0)
    assert said.choices[0].text == expected
    assert said.usage.prompt_tokens == 5
    assert said.usage.total_tokens == 5 + said.usage.completion_tokens


def test_logprobs_are_those_of_transformers(client, folder):
    import torch
    from transformers import AutoModelForCausalLM

    said = client.completions.create(
        model="tiny", prompt="hello you", max_tokens=1, temperature=0, logprobs=3, echo=True
    ).choices[0]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = model(torch.tensor([list(b"hello you")])).logits[0].log_softmax(-1)
    for i, token in enumerate(b"hello you"[1:]):
        assert said.logprobs.token_logprobs[i + 1] == pytest.approx(rows[i, token].item(), abs=1e-4)
    assert said.logprobs.token_logprobs[0] is None
    assert said.logprobs.token_logprobs[9] == pytest.approx(rows[8].max().item(), abs=1e-4)
    assert max(said.logprobs.top_logprobs[9].values()) == pytest.approx(rows[8].max().item(), abs=1e-4)


def test_a_streamed_chat_says_what_the_whole_says(client):
    whole = chat(client, temperature=0.9, seed=7, logprobs=True, top_logprobs=2).choices[0]
    with chat(client, temperature=0.9, seed=7, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.finish_reason
    assert chunks[-1].usage.completion_tokens >= len(whole.logprobs.content)
    assert all(len(told.top_logprobs) == 2 for told in whole.logprobs.content)


def test_a_seed_gives_the_same_answer_and_n_gives_others(client):
    one, two = (chat(client, seed=3, n=3) for _ in range(2))
    texts = [choice.message.content for choice in one.choices]
    assert texts == [choice.message.content for choice in two.choices]
    assert len(set(texts)) == 3
    assert texts != [choice.message.content for choice in chat(client, seed=4, n=3).choices]


def test_attributes_steer_by_a_line_of_the_prompt(client):
    system = {"role": "system", "content": "Be good."}
    messages = [system, {"role": "user", "content": "hello"}]
    said = chat(
        client, messages=messages, temperature=0, extra_body={"attributes": {"quality": 4, "humor": 0}}
    )
    prompt = (
        "<extra_id_0>System\nBe good.\n<extra_id_1>User\nhello\n<extra_id_1>Assistant\n"
        "<extra_id_2>quality:4,humor:0\n"
    )
    by_hand = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=20, temperature=0, stop="<extra_id_1>"
    )
    assert said.choices[0].message.content == by_hand.choices[0].text
    assert said.usage.prompt_tokens == by_hand.usage.prompt_tokens == len(prompt)
    other = chat(client, messages=messages, temperature=0, extra_body={"attributes": "quality:0,humor:4"})
    assert other.choices[0].message.content != said.choices[0].message.content


def test_the_clients_errors_are_of_their_kinds(client):
    with pytest.raises(openai.BadRequestError, match="512 positions"):
        client.completions.create(model="tiny", prompt="x" * 512)
    with pytest.raises(openai.NotFoundError, match="`tiny`"):
        chat(client, model="gpt-4")
    with pytest.raises(openai.BadRequestError, match="tools"):
        chat(client, tools=[{"type": "function", "function": {"name": "f"}}])


def test_the_client_comes_again_by_itself_when_too_many_wait_but_not_after_a_bad_request():
    """A parrot for a model, and room for one answer at a time."""
    from runtime.answering.stream import Patient
    from runtime.serving.server import bound, serving

    with parrot.answering(most=1) as (answering, ranks):
        asked = {"model": "parrot", "prompt": "ab", "max_tokens": 4, "temperature": 0}
        with serving(answering.application(), bound("127.0.0.1", 0), Patient) as url:
            own = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=30)
            with pytest.raises(openai.BadRequestError, match="at most 1"):
                own.completions.create(**asked, n=2)
            ranks.mute.set()
            first = threading.Thread(target=own.completions.create, kwargs=asked)
            first.start()
            while not len(answering.exchange):
                time.sleep(0.01)
            with pytest.raises(openai.RateLimitError, match="1 is the limit") as refused:
                own.with_options(max_retries=0).completions.create(**asked)
            assert refused.value.response.headers["retry-after"] == "1"
            threading.Timer(0.5, ranks.mute.clear).start()
            said = own.with_options(max_retries=5).completions.create(**asked)
            first.join(20)
    assert said.choices[0].text == "abab"
    assert len(ranks.asked) == 2


def question(i):
    return f"{i} is a number, and {i * 37 % 64} is another {'!' * (i % 7)}"


def test_64_clients_at_once_lose_and_mix_up_nothing(client, server):
    def alone(i):
        said = client.completions.create(
            model="tiny", prompt=question(i), max_tokens=8 + i % 9, temperature=0
        )
        return said.choices[0].text

    async def together():
        own = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)

        async def one(i):
            settings = {"model": "tiny", "prompt": question(i), "max_tokens": 8 + i % 9, "temperature": 0}
            if i % 2:
                return (await own.completions.create(**settings)).choices[0].text
            stream = await own.completions.create(**settings, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

        async with own:
            return await asyncio.gather(*(one(i) for i in range(64)))

    answers = asyncio.run(together())
    assert answers == [alone(i) for i in range(64)]
    assert len(set(answers)) > 32


def test_a_client_that_leaves_makes_room(client, server):
    """16 rows are taken by answers of 450 tokens; who leaves them all lets others in at once."""
    streams = [
        client.completions.create(
            model="tiny", prompt=str(i), max_tokens=450, stream=True, extra_body={"min_tokens": 450}
        )
        for i in range(32)
    ]
    for stream in streams:
        next(iter(stream))
        stream.close()
    said = client.completions.create(model="tiny", prompt="a", max_tokens=2, temperature=0)
    assert said.usage.completion_tokens <= 2


LAYOUTS = [Layout(tp=2), Layout(pp=2), Layout(dp=2)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_answers_the_same(world, folder, tmp_path, client, layout):
    asked = {"model": "tiny", "max_tokens": 10, "temperature": 0, "logprobs": 2, "echo": True}
    alone = [client.completions.create(prompt=question(i), **asked).choices[0] for i in range(8)]
    wishes = {"tp": layout.tp, "pp": layout.pp, "gpus": layout.world_size}
    with toy_answering.served(world, tmp_path / "run", folder, layout.world_size, **wishes) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as own:
            found = own.completions.create(prompt=[question(i) for i in range(8)], **asked).choices
            refused = requests.post(f"{server.url}/v1/completions", json={"prompt": ""}, timeout=30)
            own.completions.create(prompt="a", model="tiny", max_tokens=400, stream=True).close()
        assert refused.status_code == 400
    for one, other in zip(alone, found, strict=True):
        assert one.text == other.text
        expected = [n for n in one.logprobs.token_logprobs if n is not None]
        assert [n for n in other.logprobs.token_logprobs if n is not None] == pytest.approx(
            expected, abs=1e-3
        )


def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun(world, folder, tmp_path):
    with toy_answering.served(world, tmp_path / "run", folder) as server:
        own = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)
        stream = own.completions.create(
            model="tiny", prompt="a", max_tokens=300, stream=True, extra_body={"min_tokens": 300}
        )
        pieces = iter(stream)
        first = next(pieces)
        server.stop()
        late = []

        def knock():
            while not late:
                try:
                    answer = requests.post(f"{server.url}/v1/completions", json={"prompt": "a"}, timeout=30)
                    late.extend([answer.status_code] if answer.status_code != 200 else [])
                except requests.ConnectionError:
                    late.append(503)
                time.sleep(0.05)

        knocking = threading.Thread(target=knock)
        knocking.start()
        last = [first, *pieces][-1]
        knocking.join(60)
        assert last.choices[0].finish_reason == "length"
        assert late == [503]
