"""A problem the user can mend: one sentence, and no traceback.

The runtime raises `Problem` for whatever is wrong with the plan, the data, the weights or the
machine. Its text begins with the code, so that `error[R031]: …` can be looked up with
`specc explain R031`. Anything else that is raised is a bug of ours.
"""

from __future__ import annotations


class Problem(Exception):
    """`code` is R and three digits; `message` says what clashes, then what to change.

    `outside` tells that something beyond the plan is missing or failed (exit code 3), rather than
    the plan, the spec or the data being wrong (exit code 1).
    """

    def __init__(self, code: str, message: str, *, outside: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.outside = outside
