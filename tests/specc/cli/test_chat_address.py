"""What `specc chat` says of an address or a key that is none, and of a server of another kind."""

import http.server
import threading

import pytest

from specc.cli import OUTSIDE, USAGE, run


@pytest.mark.parametrize(
    "url", ["http://localhost:abc", "http://[::1", "http://localhost:99999999", "http://", "http://x:0"]
)
def test_an_address_that_is_none_is_a_usage_error(url, capsys):
    assert run(["chat", url]) == USAGE
    assert "http://HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["two\nlines", "with space", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_a_usage_error(key, capsys, monkeypatch):
    monkeypatch.setenv("SPECC_API_KEY", key)
    assert run(["chat", "http://127.0.0.1:9"]) == USAGE
    said = capsys.readouterr().err
    assert "SPECC_API_KEY" in said
    assert key not in said


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"data": []}', b'{"data": [3]}', b"\xff"])
def test_a_server_of_another_kind_is_said_to_be_one(body, capsys):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = run(["chat", f"http://127.0.0.1:{server.server_port}"])
        server.shutdown()
    assert code == OUTSIDE
    assert "does not speak OpenAI's protocol" in capsys.readouterr().err
