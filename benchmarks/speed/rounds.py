"""Ways to do the same work, timed in turn: another load on the machine then spoils a round, not a comparison."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dermadeit.metrics.classification import CONFIDENCE, RESAMPLES

Arms = Mapping[str, Callable[[], object]]
"""Name of each way to what does the work once."""


def take_turns(
    arms: Arms,
    *,
    seconds: float = 0.0,
    least: int = 3,
    most: int = 100,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Lets arms take turns until the time is over.

    Args:
        arms: Whoever begins a round is last in the next.
        seconds: How long to go on, once there are enough rounds.
        least: Rounds that are run in any case.
        most: Rounds after which it ends in any case.
        warm_up: Whether one round goes first and isn't counted.
        clock: Gives seconds.

    Returns:
        Name to seconds of each round.
    """
    if warm_up:
        for run in arms.values():
            run()
    measured: dict[str, list[float]] = {name: [] for name in arms}
    order, rounds = deque(arms), 0
    end = time.perf_counter() + seconds
    while rounds < least or (rounds < most and time.perf_counter() < end):
        for name in order:
            started = clock()
            arms[name]()
            measured[name].append(clock() - started)
        order.rotate(-1)
        rounds += 1
    return measured


def summarise(values: Sequence[float]) -> dict[str, float | list[float]]:
    """The median of some rounds and its 95 % interval, by a percentile bootstrap over the rounds."""
    rounds = np.asarray(values, dtype=float)
    draws = np.random.default_rng(0).choice(rounds, (RESAMPLES, len(rounds)))
    bounds = np.quantile(np.median(draws, axis=1), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return {"median": float(np.median(rounds)), "interval": bounds.tolist()}


def divide(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The quotient within each round."""
    return [one / other for one, other in zip(above, below, strict=True)]
