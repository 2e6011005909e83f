"""The `specc` command.

`parser` says which commands there are and what their help teaches; `verbs` holds one short function
for each; `tables` turns a plan into text. Data goes to stdout, talk to stderr. Nothing heavy is
imported here: a verb imports what it needs, so that `specc --help` costs no more than argparse.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence

FINE, PROBLEMS, USAGE, OUTSIDE, BUG, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 70, 130, 141


class Outside(Exception):
    """Something outside specc is missing or failed; the message says what and what to do."""


class Usage(Exception):
    """The command was called wrongly in a way the parser cannot see."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code.

    A command lives for a fifth of a second: what it makes need not be collected, and taking the interpreter
    apart at the end would cost as much again as planning.
    """
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else every installed package is looked at
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that lacks a letter still gets the rest
    code = run(sys.argv[1:] if arguments is None else arguments)
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; whatever happens, no traceback reaches the user."""
    from specc.cli.parser import parse

    try:
        options = parse(arguments)
        code = options.verb(options)
        if sys.stdout:  # None when it was closed: `>&-`
            sys.stdout.flush()
        return code
    except SystemExit as error:  # argparse: --help and usage errors
        sys.stdout.flush()
        return error.code if isinstance(error.code, int) else USAGE
    except Usage as error:
        return _say(str(error), USAGE)
    except Outside as error:
        return _say(str(error), OUTSIDE)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `specc plan x.yaml | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None and error.errno == errno.ENOSPC:  # what was printed found no room
            return _say("no space left for the output", OUTSIDE)
        return _bug(error)
    except Exception as error:
        return _bug(error)


def _say(message: str, code: int) -> int:
    print(f"specc: {message}", file=sys.stderr)
    return code


def _bug(error: Exception) -> int:
    if os.environ.get("SPECC_DEBUG"):
        raise error
    kind = type(error).__name__
    return _say(f"this is a bug in specc, not in your spec: {kind}: {error} (SPECC_DEBUG=1 shows where)", BUG)
