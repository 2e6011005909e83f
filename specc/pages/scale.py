"""Axes: from a range of numbers to pixels, and the round numbers to write along them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` on pixels from `start` to `end`, linear or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; one that lies outside is held at the edge."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def linear(highest: float, start: float, end: float) -> Scale:
    """From 0 to a round number at or above `highest`."""
    return Scale(0.0, rounded_up(highest), start, end)


def spanning(values: list[float], start: float, end: float) -> Scale:
    """By logarithms, with some room around the values, which are positive."""
    low, high = min(values) / 1.3, max(values) * 1.3
    return Scale(low, high, start, end, logarithmic=True)


def rounded_up(value: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, at or above `value`; 1 for 0."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10, 20) if step * power >= value)


def ticks(scale: Scale) -> list[float]:
    """Round numbers within the scale: about five on a linear one, 1-2-5 on a logarithmic one."""
    if scale.logarithmic:
        powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
        found = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        return [value for value in found if scale.low <= value <= scale.high]
    step = rounded_up(scale.high / 5)
    return [i * step for i in range(math.floor(scale.high / step + 1e-9) + 1)]


MINUTE, HOUR, DAY = 60, 3600, 86400
MOMENTS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE),
    *(30 * MINUTE, HOUR, 2 * HOUR, 5 * HOUR, 10 * HOUR, DAY, 2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY, 90 * DAY),
)


def moments(scale: Scale) -> list[float]:
    """Round lengths of time within the scale, in seconds."""
    return [value for value in MOMENTS if scale.low <= value <= scale.high]


def number(value: float) -> str:
    """`0.25`, `3`, `1,200`."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
