"""What `specc serve` and `specc chat` take, and the help that teaches both."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from specc.cli import verbs

FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
FOLDER = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Both commands."""
    serve = command(
        "serve",
        verbs.serve,
        "answer over HTTP with a checkpoint\n\n"
        "CHECKPOINT is a step (RUN/STAGE/checkpoint/step-N), a stage (RUN/STAGE: its best step, else its\n"
        "last) or a folder in Hugging Face's form. Two protocols at one address: the tutorials'\n"
        "PUT /generate, and OpenAI's /v1/completions, /v1/chat/completions, /v1/models. When it can be\n"
        "asked its address is printed. A model that was tuned to be steered takes `attributes` beside the\n"
        'messages: {"quality": 4, "verbosity": 0}. Ctrl-C and SIGTERM finish what is being answered first.\n'
        "Clients have to know the key in SPECC_API_KEY or --api-key-file, where there is one.",
        "specc serve runs/sft-tiny/sft",
        "specc serve runs/steerlm/sft/checkpoint/step-800 --tp 8",
        "curl -X PUT localhost:1427/generate -H 'Content-Type: application/json' "
        '-d \'{"sentences": ["1+1="]}\'',
    )
    _takes_model(serve)
    serve.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="default: 127.0.0.1, this machine only"
    )
    serve.add_argument("--port", metavar="N", type=_port, default=1427, help="default: 1427; 0: any free one")
    key = serve.add_argument("--api-key-file", metavar="FILE", help="the key that clients have to know")
    key.complete = FILE  # type: ignore[attr-defined]  # where shtab looks
    serve.add_argument(
        "--max-requests",
        metavar="N",
        type=_count,
        default=512,
        help="answers that wait or are made (default: 512)",
    )

    chat = command(
        "chat",
        verbs.chat,
        "talk with a checkpoint in the terminal\n\n"
        "CHECKPOINT is what `specc serve` takes, or the address of a server. Through a pipe each line is a\n"
        "question, and the answers go to stdout. /help tells what else can be typed.",
        "specc chat runs/sft-tiny/sft",
        "specc chat runs/steerlm/sft --attributes quality=4,verbosity=0",
        "specc chat http://localhost:1427 --system 'Be brief.'",
        "echo 'What is 1+1?' | specc chat runs/sft-tiny/sft --temperature 0",
    )
    _takes_model(chat)
    chat.add_argument(
        "--attributes", metavar="A=N,B=N", help="marks that a steered model's answers are to have"
    )
    chat.add_argument("--system", metavar="TEXT", help="the system prompt")
    chat.add_argument("--max-tokens", metavar="N", type=_count, help="of an answer, at most")
    chat.add_argument(
        "--temperature", metavar="T", type=_number(100), help="0: the most likely words (default: 1)"
    )
    chat.add_argument(
        "--top-p", metavar="P", type=_number(1), help="share of the likeliest words (default: 1)"
    )
    chat.add_argument("--seed", metavar="N", type=_any_count, help="the same again with the same seed")


def _takes_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a step, a stage, or an HF folder")
    model.complete = FOLDER  # type: ignore[attr-defined]
    parser.add_argument(
        "--name", metavar="NAME", help="what clients call the model (default: from its folder)"
    )
    parser.add_argument(
        "--tp", metavar="N", type=_count, help="tensor-parallel ranks (default: as few as fit)"
    )
    parser.add_argument("--pp", metavar="N", type=_count, help="pipeline stages (default: 1)")
    parser.add_argument("--gpus", metavar="N", type=_count, help="in all; more than TP x PP make copies")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="default: the model's; fp32 on a CPU")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="instead of the checkpoint's own")
    parser.add_argument("--chat-template", metavar="NAME|FILE", help="`extra_id`, or a jinja file")
    parser.add_argument("--max-length", metavar="N", type=_count, help="tokens of prompt and answer, at most")
    parser.add_argument(
        "--rows", metavar="N", type=_count, help="answers made at once (default: by the memory)"
    )


def _any_count(said: str) -> int:
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise argparse.ArgumentTypeError(f"{said[:40]!r} is not a whole number from 0 on")
    return int(said)


def _count(said: str) -> int:
    value = _any_count(said)
    if not 1 <= value <= 1 << 24:
        raise argparse.ArgumentTypeError(f"{said[:40]!r} is not a whole number from 1 to {1 << 24}")
    return value


def _port(said: str) -> int:
    value = _any_count(said)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{said} is no port; the largest is 65535")
    return value


def _number(most: float) -> Callable[[str], float]:
    def number(said: str) -> float:
        try:
            value = float(said)
        except ValueError:
            value = -1.0
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{said[:40]!r} is not a number from 0 to {most:g}")
        return value

    return number
