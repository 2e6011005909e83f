"""An engine in a process of its own that speaks the workers' frames and is plain transformers.

SPECC_TEST_WORKER says what it does wrong: `stale` keeps its first weights, `dies` falls at the third request
for tokens, `processed` gives log-probabilities after temperature. What it was asked goes to its log.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "runtime/engines/workers"))

from serve import serve  # pyright: ignore[reportMissingImports]

FAULT = os.environ.get("SPECC_TEST_WORKER", "")


class Program:
    def __init__(self, folder, settings):
        import torch

        torch.set_num_threads(1)
        print("start", settings, flush=True)
        self.asked = 0
        self.take(folder)

    def take(self, folder):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder).float().eval()

    def generate(self, prompts, seeds, sampling, aborted):
        print("generate", len(prompts), sampling["temperature"], *seeds, flush=True)
        self.asked += 1
        if FAULT == "dies" and self.asked == 3:
            os._exit(9)
        return [self.row(prompt, seed, sampling) for prompt, seed in zip(prompts, seeds, strict=True)]

    def row(self, prompt, seed, sampling):
        import torch

        generator = torch.Generator().manual_seed(seed)
        tokens, logprobs = [], []
        while len(tokens) < sampling["max_tokens"]:
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + tokens])).logits[0, -1]
            drawn = (logits / sampling["temperature"]).softmax(-1)
            token = int(torch.multinomial(drawn, 1, generator=generator))
            said = drawn.log() if FAULT == "processed" else logits.log_softmax(-1)
            tokens.append(token)
            logprobs.append(float(said[token]))
            if token in sampling["stop_token_ids"]:
                return [tokens, logprobs, "stop"]
        return [tokens, logprobs, "length"]

    def update(self, folder):
        print("update", flush=True)
        if FAULT != "stale":
            self.take(folder)

    def sleep(self):
        print("sleep", flush=True)

    def wake(self):
        print("wake", flush=True)


if __name__ == "__main__":
    serve(Program)
