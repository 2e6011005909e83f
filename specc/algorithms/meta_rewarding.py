"""Meta-rewarding: self-rewarding whose judgements are judged and learnt from too (arXiv:2407.19594).

The same program, section and stages as `specc.algorithms.self_rewarding`; only what is left out differs:
judgements take the place of at most 15 % of the good pairs, as NeMo-Aligner's guide recommends.
"""

from __future__ import annotations

from typing import Literal

from specc.algorithms import self_rewarding
from specc.algorithms.self_rewarding import smaller
from specc.graph import Stage
from specc.spec import judging
from specc.spec.section import maths

__all__ = ["Spec", "lower", "smaller"]


class Meta(judging.Meta):
    """Judgements that are judged, and learnt from like responses."""

    fraction: float = maths(0.15, ge=0, le=1)
    """Part of the good pairs of responses that pairs of judgements take the place of, at most; bad ones are
    replaced in any case. 0 for none: plain self-rewarding. More than 0.15 tends to make all scores equal."""


class MetaRewarding(self_rewarding.SelfRewarding):
    """Iterations, responses, judgements, and the loss on pairs of both."""

    meta: Meta = maths(Meta())  # type: ignore[assignment]  # with another default
    """Judgements that are judged and learnt from too."""


class Spec(self_rewarding.Spec):
    """Meta-rewarding of one model."""

    algorithm: Literal["meta_rewarding"] = maths()  # type: ignore[assignment]  # it is another one
    """`meta_rewarding`."""

    self_rewarding: MetaRewarding = maths(MetaRewarding())  # type: ignore[assignment]
    """Iterations, responses, judgements and the loss."""


def lower(spec: Spec, name: str) -> list[Stage]:
    """One stage for each iteration."""
    return self_rewarding.lower(spec, name)
