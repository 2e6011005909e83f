"""`PUT /generate` as the tutorials use it, and what it says to a body that cannot be served."""

import pytest
import requests
import toy_answering

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]


def get_answer(question, max_tokens, values, eval_port=1427):
    """The tutorials' own function, as it stands there."""
    prompt = (
          "<extra_id_0>System\nA chat between a curious user and an artificial intelligence assistant. "
          "The assistant gives helpful, detailed, and polite answers to the user's questions.\n"
          "<extra_id_1>User\n{question}\n<extra_id_1>Assistant\n<extra_id_2>{values}\n"
    )  # fmt: skip
    prompts = [prompt.format(question=question, values=values)]
    data = {
        "sentences": prompts,
        "tokens_to_generate": max_tokens,
        "top_k": 1,
        "greedy": True,
        "end_strings": ["<extra_id_1>"],
    }
    url = f"http://localhost:{eval_port}/generate"
    response = requests.put(url, json=data)
    json_response = response.json()
    response_sentence = json_response["sentences"][0][len(prompt):]  # fmt: skip
    return response_sentence  # noqa: RET504


@pytest.fixture(scope="module")
def server(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    with toy_answering.served(world, folder / "run", toy_answering.folder(folder / "tiny")) as found:
        yield found


def put(server, **body):
    return requests.put(f"{server.url}/generate", json=body, timeout=60)


def test_the_tutorials_function_gets_an_answer(server):
    port = server.url.rsplit(":", 1)[1]
    said = get_answer("Write a poem", 12, "quality:4,toxicity:0,humor:0", port)
    assert get_answer("Write a poem", 12, "quality:4,toxicity:0,humor:0", port) == said
    assert get_answer("Write a poem", 12, "quality:0,toxicity:0,humor:0", port) != said


def test_the_reply_holds_the_prompt_and_its_continuation_token_by_token(server):
    body = {"sentences": ["1+1=", "Grüße"], "tokens_to_generate": 6, "greedy": True, "compute_logprob": True}
    reply = put(server, **body).json()
    assert list(reply) == ["sentences", "tokens", "logprob", "token_ids", "offsets"]
    for i, sentence in enumerate(body["sentences"]):
        prompt = len(sentence.encode())
        assert reply["sentences"][i].startswith(sentence)
        ids = reply["token_ids"][i]
        assert ids[:prompt] == list(sentence.encode())
        assert prompt < len(ids) <= prompt + 6
        assert len(reply["tokens"][i]) == len(reply["offsets"][i]) == len(ids)
        assert len(reply["logprob"][i]) == len(ids) - 1
        assert all(number < 0 for number in reply["logprob"][i])
        assert reply["offsets"][i][:2] == [0, 1]
        assert reply["offsets"][i] == sorted(reply["offsets"][i])
        assert reply["offsets"][i][prompt] == len(sentence)


def test_the_defaults_draw_64_tokens_and_tell_no_logprobs(server):
    reply = put(server, sentences=["abc"]).json()
    assert reply["logprob"] is None
    assert "full_logprob" not in reply
    assert len(reply["token_ids"][0]) <= 3 + 64
    again = put(server, sentences=["abc"], random_seed=5).json()["token_ids"]
    assert again == put(server, sentences=["abc"], random_seed=5).json()["token_ids"]
    assert again != put(server, sentences=["abc"], random_seed=6).json()["token_ids"]


def test_an_end_string_stays_in_the_sentence(server):
    whole = put(server, sentences=["abc"], tokens_to_generate=30, greedy=True).json()["sentences"][0][3:]
    end = whole[4:6]
    cut = put(server, sentences=["abc"], tokens_to_generate=30, greedy=True, end_strings=[end]).json()
    assert cut["sentences"][0] == "abc" + whole[: whole.index(end) + 2]


def test_all_probabilities_add_up_to_one(server):
    import math

    reply = put(server, sentences=["abc"], tokens_to_generate=2, all_probs=True, add_BOS=True).json()
    assert reply["token_ids"][0][0] == 256
    for row in reply["full_logprob"][0]:
        assert sum(map(math.exp, row)) == pytest.approx(1, abs=1e-4)
    assert len(reply["full_logprob"][0]) == len(reply["token_ids"][0]) - 1


BAD = {
    "no sentences": ({}, 422, "sentences"),
    "a text": ({"sentences": "abc"}, 422, "sentences"),
    "an empty list": ({"sentences": []}, 422, "sentences"),
    "an empty text": ({"sentences": ["a", ""]}, 400, "sentences[1]"),
    "too many": ({"sentences": ["a"] * 129}, 400, "129"),
    "too long": ({"sentences": ["a" * 600]}, 400, "600 tokens"),
    "no tokens": ({"sentences": ["a"], "tokens_to_generate": 0}, 422, "tokens_to_generate"),
    "true tokens": ({"sentences": ["a"], "tokens_to_generate": True}, 422, "tokens_to_generate"),
    "cold": ({"sentences": ["a"], "temperature": 0}, 422, "temperature"),
    "hot": ({"sentences": ["a"], "temperature": 101}, 422, "temperature"),
    "top_p": ({"sentences": ["a"], "top_p": 1.5}, 422, "top_p"),
    "penalty": ({"sentences": ["a"], "repetition_penalty": 0.5}, 422, "repetition_penalty"),
    "least": ({"sentences": ["a"], "min_tokens_to_generate": 65}, 422, "min_tokens_to_generate"),
    "ends": ({"sentences": ["a"], "end_strings": "x"}, 422, "end_strings"),
    "seed": ({"sentences": ["a"], "random_seed": "x"}, 422, "random_seed"),
    "half a letter": ({"sentences": ["\ud800"]}, 400, "surrogate"),
}


@pytest.mark.parametrize(("body", "status", "word"), BAD.values(), ids=BAD)
def test_a_bad_body_is_told_with_its_status_and_the_field(server, body, status, word):
    response = put(server, **body)
    assert response.status_code == status
    assert word in response.json()["error"]["message"]


def test_a_key_that_nobody_knows_is_passed_over(server):
    assert put(server, sentences=["a"], tokens_to_generate=1, task_ids=[0], zebra=1).status_code == 200
