"""How responses are sampled, by the algorithms that generate."""

from __future__ import annotations

from specc.spec.section import Many, Section, maths


class Generate(Section):
    """One response per prompt unless an algorithm says otherwise."""

    max_tokens: int = maths(1024, ge=1, le=10**7)
    """Tokens of a response at most."""

    temperature: float = maths(1.0, ge=0, le=100)
    """Divisor of the logits before sampling; 0 takes the most likely token."""

    top_k: int = maths(0, ge=0, le=10**7)
    """Most likely tokens that are sampled from; 0 for all."""

    top_p: float = maths(1.0, gt=0, le=1)
    """Probability that the tokens sampled from add up to."""

    stop: Many[str] = maths(())
    """Texts that end a response."""
