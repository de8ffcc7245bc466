"""Rows of the table: a batch of photos, and many visitors at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks.speed.peer import BATCH, Peer
from benchmarks.speed.photos import make_photos
from benchmarks.speed.rounds import take_turns
from benchmarks.speed.row import (
    CEILING,
    FLOOR,
    OURS,
    PEER,
    SHARE_OF_CEILING,
    Ratio,
    make_row,
    times_the_peer,
)
from benchmarks.speed.single_photo import label
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor
from dermadeit.inference.records import Prediction
from dermadeit.reporting.format import counted

_IN_TURN = "in_turn"
_DIFFERENT = 64
"""Photos that are made; a batch repeats them."""


def measure_batch(
    predictor: Predictor, peer: Peer, count: int, seconds: float, least: int
) -> list[dict[str, Any]]:
    """Many photos, one view each: from bytes to labels.

    Args:
        predictor: Ours.
        peer: The same weights in transformers, in batches of `BATCH`.
        count: How many photos.
        seconds: How long it may take.
        least: Rounds in any case.
    """
    photos = [make_photos(_DIFFERENT)[index % _DIFFERENT] for index in range(count)]
    pixels = _squash_all(predictor, photos)
    normalised = predictor.checkpoint.preprocessing.normalise(torch.from_numpy(pixels))
    classifier = predictor.checkpoint.classifier

    def run_eagerly() -> None:
        with torch.inference_mode():
            for batch in normalised.split(BATCH):
                classifier(batch)

    arms = {
        PEER: lambda: peer.label_all(photos),
        OURS: lambda: predictor.predict(photos, 1),
        FLOOR: run_eagerly,
        CEILING: lambda: _run_alone(predictor, pixels, 1),
    }
    ratios = [times_the_peer("at least 2.2"), Ratio(CEILING, OURS, SHARE_OF_CEILING, "at least 0.8")]
    measured = take_turns(arms, seconds=seconds, least=least)
    return [make_row(f"{counted(count, 'photo')}, one view", "photos/s", measured, ratios, amount=count)]


def measure_visitors(predictor: Predictor, count: int, seconds: float, least: int) -> list[dict[str, Any]]:
    """Many visitors who each send another photo at the same moment and get the answer of eight views.

    Args:
        predictor: Ours.
        count: How many visitors.
        seconds: How long it may take.
        least: Rounds in any case.
    """
    photos = make_photos(count)
    pixels = _squash_all(predictor, photos)
    waits: list[float] = []
    wrong = 0

    def answer_in_turn() -> list[Prediction]:
        return [label(predictor, photo, DEFAULT_VIEWS) for photo in photos]

    expected = answer_in_turn()

    def answer_at_once() -> None:
        nonlocal wrong
        answers, taken = _ask_at_once(predictor, photos)
        wrong += _count_wrong(answers, expected)
        waits.extend(taken)

    arms = {
        OURS: answer_at_once,
        _IN_TURN: answer_in_turn,
        CEILING: lambda: _run_alone(predictor, pixels, DEFAULT_VIEWS),
    }
    measured = take_turns(arms, seconds=seconds, least=least, warm_up=False)
    ratios = [
        Ratio(CEILING, OURS, SHARE_OF_CEILING, "at least 0.6"),
        Ratio(_IN_TURN, OURS, "times as fast as one visitor after the other", "at least 1.5"),
    ]
    amount = count * DEFAULT_VIEWS
    others = {
        "answers": len(waits),
        "answers_of_another_photo": wrong,
        "seconds_of_95_percent": float(np.quantile(waits, 0.95)),
    }
    title = f"{counted(count, 'visitor')} at once, {DEFAULT_VIEWS} views each"
    return [
        make_row(title, "views/s", measured, ratios, amount=amount, **others),
        make_row(
            f"{counted(count, 'visitor')}, one after the other",
            "views/s",
            {OURS: measured[_IN_TURN]},
            amount=amount,
        ),
    ]


def _ask_at_once(predictor: Predictor, photos: Sequence[bytes]) -> tuple[list[Prediction], list[float]]:
    """The answers in the order of the photos, and how many seconds each waited for its own."""
    ready = threading.Barrier(len(photos))

    def ask(photo: bytes) -> tuple[Prediction, float]:
        ready.wait()
        started = time.perf_counter()
        return label(predictor, photo, DEFAULT_VIEWS), time.perf_counter() - started

    with ThreadPoolExecutor(len(photos)) as pool:
        answers, waits = zip(*pool.map(ask, photos), strict=True)
    return list(answers), list(waits)


def _count_wrong(answers: Sequence[Prediction], expected: Sequence[Prediction]) -> int:
    """Answers that are nearer to those of another photo than to those that their own has got alone."""
    found, own = (np.array([list(record.logits.values()) for record in part]) for part in (answers, expected))
    nearest = np.abs(found[:, None] - own[None]).max(axis=2).argmin(axis=1)
    hashes = [one.sha256 != other.sha256 for one, other in zip(answers, expected, strict=True)]
    return int(((nearest != np.arange(len(own))) | hashes).sum())


def _squash_all(predictor: Predictor, photos: Sequence[bytes]) -> np.ndarray:
    squash = predictor.checkpoint.preprocessing.squash
    return np.stack([squash(decode_image(photo).pixels) for photo in photos])


def _run_alone(predictor: Predictor, pixels: np.ndarray, views: int) -> None:
    """The runtime without anything around it, as many views at once as it takes."""
    step = max(1, predictor.runtime.views_at_once // views)
    for start in range(0, len(pixels), step):
        batch = pixels[start : start + step]
        predictor.runtime.run(batch, [views] * len(batch))
