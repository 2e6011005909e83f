"""The serving side of the stand-in: a server that knows its attempt's token, and how to ask it."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 20.0


def peers() -> list[tuple[str, str]]:
    """(name, HOST:PORT) of every server, for those who are none."""
    if "SPECC_LISTEN" in os.environ:
        return []
    return [tuple(pair.split("=")) for pair in os.environ.get("SPECC_PEERS", "").split(",") if pair]


def ask(attempt: Path, name: str, address: str, path: str) -> None:
    """Get an answer; wait for a server that starts, fail when it is another run's or does not answer."""
    end = time.monotonic() + (2.0 if path != "/step/1" and (attempt / "answered").exists() else PATIENCE)
    while True:
        try:
            token = (attempt / f"token-{name}").read_text()
            request = urllib.request.Request(f"http://{address}{path}", headers={"Authorization": token})
            urllib.request.urlopen(request, timeout=5).read()
            (attempt / "answered").touch()
            return
        except urllib.error.HTTPError as error:
            print(f"error[R901]: {name} at {address} answers {error.code}", file=sys.stderr)
            sys.exit(9)
        except OSError:
            if time.monotonic() > end:
                print(f"error[R902]: {name} at {address} does not answer", file=sys.stderr)
                sys.exit(8)
            time.sleep(0.1)


def serve(attempt: Path, name: str, folder: Path, settings: dict, rank: int) -> None:
    """Answer until the attempt is over."""
    if rank == 0:
        _listen(attempt, name, folder, settings)
    while settings.get("deaf") or not (attempt / "over").exists():
        time.sleep(0.1)
    print(f"rank {rank} of {name} leaves", flush=True)


def _listen(attempt: Path, name: str, folder: Path, settings: dict) -> None:
    token = secrets.token_hex(8)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != token:
                self.send_error(401)
                return
            verb, step = self.path.strip("/").split("/")
            if verb == "step" and int(step) == settings.get("crash_serving"):
                print(f"error[R903]: {name} was told to fail", file=sys.stderr, flush=True)
                os._exit(6)
            if verb == "save":
                manifest = folder / "checkpoint" / f"step-{step}" / "MANIFEST.json"
                manifest.parent.mkdir(parents=True, exist_ok=True)
                manifest.write_text(json.dumps({"step": int(step)}))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    host, port = os.environ["SPECC_LISTEN"].rsplit(":", 1)
    server = ThreadingHTTPServer((host, int(port)), Handler)
    (attempt / f"token-{name}").write_text(token)
    threading.Thread(target=server.serve_forever, daemon=True).start()
