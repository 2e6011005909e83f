"""How responses are sampled, and what makes them: the training weights, or a second engine.

What learns from a response scores it by the training forward pass, at temperature 1 over all tokens: old
log-probabilities, so that the first ratio of a step is 1, the new ones, and the reference's. Temperature,
top-k, top-p and the repetition penalty decide what is drawn and are in none of them. A stop token that
`min_tokens` put out of reach has no probability in any of them, so the KL is that of what could be drawn.

The names are those of `runtime/sampling.py`. What decides which tokens may come out is maths; what decides
where and how fast they are made is placement.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from specc.spec.section import Many, Section, maths, placement
from specc.spec.units import Ending, conflict


class Generate(Section):
    """One response per prompt unless an algorithm says otherwise."""

    max_tokens: int = maths(1024, ge=1, le=10**7)
    """Tokens of a response at most."""

    min_tokens: int = maths(0, ge=0, le=10**7)
    """Tokens before which no response ends: stop tokens have no probability there, neither where responses
    are drawn nor in the log-probabilities, entropies and KL that are learnt from."""

    max_prompt_tokens: int | None = maths(None, ge=1, le=10**7)
    """Tokens of a prompt at most; longer ones are left out and counted. Left out, what `train.seq_length`
    leaves beside `max_tokens`."""

    add_bos: bool = maths(False)
    """Put the begin token before each prompt."""

    temperature: float = maths(1.0, ge=0, le=100)
    """Divisor of the logits before sampling; 0 takes the most likely token. Log-probabilities that are learnt
    from stay those at 1."""

    top_k: int = maths(0, ge=0, le=10**7)
    """Most likely tokens that are sampled from; 0 for all."""

    top_p: float = maths(1.0, gt=0, le=1)
    """Probability that the tokens sampled from add up to."""

    repetition_penalty: float = maths(1.0, gt=0, le=100)
    """Divides the logits of tokens that were seen, above 1; 1 for none."""

    stop: Many[Ending] = maths(())
    """Texts that end a response, besides the model's own end of text or turn; they stay in it. The chat
    template `extra_id` ends a turn with such a text: `<extra_id_1>`."""

    stop_token_ids: Many[int] = maths(())
    """Tokens that end a response, besides the model's own."""

    engine: Literal["megatron", "vllm", "trtllm"] = placement("megatron")
    """What generates: the training weights themselves, or a second engine that is given them each step."""

    rows: int | None = placement(None, ge=1, le=10**6)
    """Responses that each replica generates at once; left out, as many as fit."""

    reshard: bool = placement(False)
    """Generate without pipeline stages: each becomes a replica more, where the weights fit so."""

    unload: bool = placement(False)
    """Let a second engine leave the GPU while the actor trains: more memory, and time to load it again."""

    family: Literal["llama", "gptj", "gptnext", "gemma", "falcon"] | None = placement(None)
    """TensorRT-LLM's name for the kind of model, for people: the engine reads it off the weights."""

    expected_tokens: int | None = placement(None, ge=1, le=10**7)
    """Tokens of a response on average, for predicted times only; left out, half of `max_tokens`."""

    expected_prompt_tokens: int | None = placement(None, ge=1, le=10**7)
    """Tokens of a prompt on average, for predicted times only; left out, a quarter of the most."""

    @model_validator(mode="after")
    def _ends_and_engine_agree(self) -> Generate:
        if self.min_tokens > self.max_tokens:
            message = f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}"
            raise conflict(message, "min_tokens", f"use min_tokens: {self.max_tokens} or less")
        negative = next((token for token in self.stop_token_ids if token < 0), None)
        if negative is not None:
            raise conflict(f"{negative} is no token's id", "stop_token_ids", "ids begin at 0")
        if self.expected_tokens and self.expected_tokens > self.max_tokens:
            message = f"expected_tokens {self.expected_tokens} is above max_tokens {self.max_tokens}"
            raise conflict(message, "expected_tokens", f"use expected_tokens: {self.max_tokens} or less")
        if self.unload and self.engine == "megatron":
            message = "the training weights themselves generate, so there is no engine to unload"
            raise conflict(message, "unload", "remove `unload`, or use engine: vllm or trtllm")
        if self.family and self.engine != "trtllm":
            message = f"`family` is TensorRT-LLM's, and the engine is {self.engine}"
            raise conflict(message, "family", "remove `family`, or use engine: trtllm")
        return self

    def check_room(self, seq_length: int) -> None:
        """Raise where the longest response leaves no prompt in a row of that length, or not the longest."""
        room = seq_length - self.max_tokens
        if room < 1:
            message = f"responses of max_tokens {self.max_tokens} leave no prompt in seq_length {seq_length}"
            raise conflict(message, "generate.max_tokens", f"use max_tokens: {max(1, seq_length // 2)}")
        if (self.max_prompt_tokens or 0) > room:
            both = f"max_prompt_tokens {self.max_prompt_tokens} + max_tokens {self.max_tokens}"
            help = f"use max_prompt_tokens: {room} or less"
            raise conflict(f"{both} exceed seq_length {seq_length}", "generate.max_prompt_tokens", help)

    def prompt_tokens(self, seq_length: int) -> int:
        """Tokens of a prompt at most, said or not; 0 or less where responses leave no room."""
        return self.max_prompt_tokens or seq_length - self.max_tokens
