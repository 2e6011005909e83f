"""Requests that a server puts to itself when it is ready: over HTTP, as a client would, one after the other.

They show in its log that it answers, before the first person asks.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit, urlunsplit

SECONDS = 120.0
"""Within which each is answered."""


def begin(url: str, key: str, count: int) -> threading.Thread | None:
    """Ask that often, in a thread beside the server."""
    if not count:
        return None
    thread = threading.Thread(target=rehearse, args=(url, key, count), name="rehearsal", daemon=True)
    thread.start()
    return thread


def rehearse(url: str, key: str, count: int) -> None:
    """Ask for some tokens, and say what came of it."""
    done = tokens = 0
    try:
        for number in range(count):
            tokens += asked(url, key, f"{number} + {number} =")
            done += 1
    except (OSError, HTTPException, ValueError, KeyError) as error:  # no such status, no JSON
        print(f"warning: the rehearsal ended at request {done + 1} of {count}: {error}", flush=True)
        return
    print(f"rehearsed: {done} requests answered with {tokens} tokens", flush=True)


def asked(url: str, key: str, prompt: str) -> int:
    """Tokens of one answer. OSError, HTTPException, ValueError, KeyError."""
    head = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    body = json.dumps({"prompt": prompt, "max_tokens": 8, "seed": 0}).encode()
    request = urllib.request.Request(f"{reachable(url)}/v1/completions", body, head)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=SECONDS) as answer:
        return int(json.loads(answer.read())["usage"]["completion_tokens"])


def reachable(url: str) -> str:
    """The address as this machine reaches itself, where the server listens at all that there are."""
    parts = urlsplit(url)
    place = parts.netloc.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
    return urlunsplit(parts._replace(netloc=place))
