"""`specc chat`: a conversation in the terminal, or line by line through a pipe.

The model is served by a `specc serve` of its own on a free port, with a key that nobody else knows; it ends
with the conversation, however that ends. Answers are data and go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import json
import os
import secrets
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from specc import launch
from specc.cli import FINE, INTERRUPTED, OUTSIDE, Outside, Usage, verbs

HELP = """\
/reset                           begin a new conversation
/attributes quality:4,humor:0    what the next answers are to be like; without a list: as the model likes
/system TEXT                     the system prompt of the conversation
/help  /exit (or Ctrl-D)         Ctrl-C ends an answer"""

END_SECONDS = 20.0


@dataclass
class Conversation:
    """What was said, and how the next answer is to be."""

    url: str
    key: str
    model: str = ""
    system: str = ""
    attributes: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, str]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """The request for the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        steered = {"attributes": self.attributes} if self.attributes else {}
        own = {"model": self.model, "messages": [*system, *self.turns], "stream": True}
        return own | self.settings | steered

    def answer(self) -> Iterator[str]:
        """The next answer, piece by piece. Refusal when the server does not give one."""
        with self._asked("POST", "/v1/chat/completions", self.body()) as response:
            for line in response:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                with self._read():
                    chunk = json.loads(line[len(b"data: ") :])
                    error = chunk["error"]["message"] if "error" in chunk else ""
                    pieces = [c["delta"].get("content") or "" for c in chunk.get("choices", ())]
                if error:
                    raise Refusal(error)
                yield from pieces

    def meet(self) -> None:
        """Learn the model's name."""
        with self._asked("GET", "/v1/models") as response, self._read():
            self.model = str(json.loads(response.read())["data"][0]["id"])

    @contextlib.contextmanager
    def _read(self) -> Iterator[None]:
        """What is not of the protocol comes from no server that can be talked with."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Lost(f"what answers at {self.url} does not speak OpenAI's protocol") from None

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        where = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        connection = kind(where.hostname or "", where.port, timeout=600)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        try:
            text = None if body is None else json.dumps(body).encode()
            connection.request(method, where.path.rstrip("/") + path, text, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise Refusal(_reason(response))
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"the server at {self.url} is gone ({str(error) or type(error).__name__})") from None
        finally:
            connection.close()


class Refusal(Exception):
    """The server does not answer this; the conversation may go on."""


class Lost(Exception):
    """The server is gone."""


def _reason(response: http.client.HTTPResponse) -> str:
    said = response.read(65536)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(said)["error"]["message"])
    return f"the server answered {response.status}"


def chat(options: argparse.Namespace) -> int:
    """Talk until the end of the input; the exit code says how it ended."""
    gc.enable()  # unlike most commands, this one may live for days
    with contextlib.ExitStack() as stack:
        key = os.environ.get("SPECC_API_KEY", "").strip()
        url = options.checkpoint
        if not url.startswith(("http://", "https://")):
            key = secrets.token_urlsafe(24)
            url = stack.enter_context(served(options, key))
            if isinstance(url, int):
                return url
        _check(url, key)
        talk = Conversation(url, key, "", options.system or "", marks(options.attributes), _settings(options))
        try:
            talk.meet()
            return _talk(talk)
        except Lost as lost:
            raise Outside(str(lost)) from None
        except Refusal as refusal:
            raise Outside(str(refusal)) from None


def _check(url: str, key: str) -> None:
    """Usage where an address is none, or a key cannot be sent."""
    try:
        where = urllib.parse.urlsplit(url)
        good = bool(where.hostname) and where.port != 0  # a port that is none raises
    except ValueError:
        good = False
    if not good:
        raise Usage(f"`{url}` is no address of a server; write http://HOST:PORT")
    if not all("!" <= letter <= "~" for letter in key):
        raise Usage("SPECC_API_KEY holds what cannot be sent: a space, a line end or a letter beyond ASCII")


def marks(said: str | None) -> str:
    """`quality=4, humor=0` or `quality:4,humor:0` as the model reads it. Usage."""
    parts = [part.strip().replace("=", ":", 1) for part in (said or "").split(",") if part.strip()]
    for part in parts:
        name, colon, value = part.partition(":")
        if not colon or not name.strip() or not value.strip().lstrip("-").isdigit():
            raise Usage(f"`{part}` is no attribute; write quality=4,humor=0")
    return ",".join(f"{n.strip()}:{v.strip()}" for n, _, v in (part.partition(":") for part in parts))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("max_tokens", "temperature", "top_p", "seed")
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


@contextlib.contextmanager
def served(options: argparse.Namespace, key: str) -> Iterator[str | int]:
    """The address of a `specc serve` of our own, or the exit code with which it did not come up."""
    words = [sys.executable, "-m", "specc", "serve", "--host=127.0.0.1", "--port=0"]
    for name in ("name", "tp", "pp", "gpus", "precision", "tokenizer", "chat_template", "max_length", "rows"):
        if (value := getattr(options, name)) is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    words += ["--", options.checkpoint]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPECC_API_KEY": key},
        start_new_session=True,  # Ctrl-C is for this process alone
        preexec_fn=launch.die_with(os.getpid()),  # no threads run in this process
    )
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        yield url or _code(process)
    finally:
        _end(process)


def _code(process: subprocess.Popen[str]) -> int:
    """Of a server that closed its output without a word; what is wrong it has said itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(END_SECONDS) or OUTSIDE
    return OUTSIDE


def _end(process: subprocess.Popen[str]) -> None:
    """A second Ctrl-C may come; the server goes first."""
    for ask in (process.terminate, process.terminate, process.kill):
        if process.poll() is None:
            ask()
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(END_SECONDS)
    if process.stdout:
        process.stdout.close()


# --- the terminal


def _talk(talk: Conversation) -> int:
    by_hand = sys.stdin.isatty()
    if by_hand:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - editing and history of what is typed
        verbs.talk(f"{talk.model}; /help tells what else can be typed, Ctrl-D ends")
    while True:
        try:
            line = input("you> " if by_hand and sys.stdout.isatty() else "")
        except EOFError:
            if by_hand:
                verbs.talk("")
            return FINE
        except KeyboardInterrupt:
            verbs.talk("")
            return INTERRUPTED
        except UnicodeDecodeError:
            verbs.talk("that line is not UTF-8 text")
            continue
        if line.strip() in ("/exit", "/quit"):
            return FINE
        if line.startswith("/"):
            _command(talk, line.strip())
        elif line.strip():
            _say(talk, line)


def _command(talk: Conversation, line: str) -> None:
    name, _, rest = line.partition(" ")
    if name == "/reset":
        talk.turns = []
        verbs.talk("a new conversation")
    elif name == "/attributes":
        try:
            talk.attributes = marks(rest)
        except Usage as wrong:
            verbs.talk(str(wrong))
            return
        verbs.talk(f"attributes: {talk.attributes or 'none'}")
    elif name == "/system":
        talk.system, talk.turns = rest.strip(), []
        verbs.talk("a new conversation with this system prompt")
    else:
        verbs.talk(HELP if name == "/help" else f"there is no {name}\n{HELP}")


def _say(talk: Conversation, line: str) -> None:
    """Ask, print the answer as it comes, and remember both; an answer that was ended counts as said."""
    talk.turns.append({"role": "user", "content": line})
    said = ""
    try:
        with contextlib.closing(talk.answer()) as pieces:  # type: ignore[type-var]
            for piece in pieces:
                said += piece
                print(piece, end="", flush=True)
        print(flush=True)
    except KeyboardInterrupt:
        print(flush=True)
        verbs.talk("(ended)")
    except Refusal as refusal:
        if said:
            print(flush=True)
        verbs.talk(f"not answered: {refusal}")
        talk.turns.pop()
        return
    talk.turns.append({"role": "assistant", "content": said})
