"""Rows of the table: one photo, from the bytes of its file to what is shown of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.speed.peer import Peer
from benchmarks.speed.photos import LARGE_SIZE, USUAL_SIZE, make_large_photo, make_photos
from benchmarks.speed.rounds import take_turns
from benchmarks.speed.row import CEILING, FLOOR, OURS, PEER, Ratio, make_row, times_the_peer
from dermadeit.imaging.decode import READING_SIDE, decode_image
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor
from dermadeit.inference.records import Prediction
from dermadeit.inference.saliency import DEFAULT_OPACITY, SALIENCY_METHODS, default_method

_USUAL, _LARGE = (f"{width:,} × {height:,}" for width, height in (USUAL_SIZE, LARGE_SIZE))


def measure_single_photo(
    predictor: Predictor, peer: Peer, seconds: float, least: int
) -> list[dict[str, Any]]:
    """Label, label with heatmap, the answer of eight views, and a photo of a telephone.

    Args:
        predictor: Ours.
        peer: The same weights in transformers.
        seconds: How long each row may take.
        least: Rounds of each row in any case.
    """
    [photo], large = make_photos(1), make_large_photo()
    pixels = predictor.checkpoint.preprocessing.squash(decode_image(photo).pixels)[None]
    batch = predictor.checkpoint.preprocessing.normalise(torch.from_numpy(pixels))
    classifier = predictor.checkpoint.classifier

    def run_eagerly() -> None:
        with torch.inference_mode():
            classifier(batch)

    is_fast = predictor.runtime.name.endswith("bf16")
    rows = (
        (
            f"One photo ({_USUAL}), from bytes to label",
            {
                PEER: lambda: peer.label(photo),
                OURS: lambda: label(predictor, photo, 1),
                FLOOR: run_eagerly,
                CEILING: lambda: predictor.runtime.run(pixels, [1]),
            },
            [times_the_peer("at least 1.4" if is_fast else "at least 1.1")],
        ),
        (
            "The same with a heatmap over the photo",
            {PEER: lambda: peer.overlay(photo), OURS: lambda: draw_overlay(predictor, photo)},
            [times_the_peer("at least 4")],
        ),
        (
            f"The answer of {DEFAULT_VIEWS} views; the peer: one view",
            {
                PEER: lambda: peer.label(photo),
                OURS: lambda: label(predictor, photo, DEFAULT_VIEWS),
                CEILING: lambda: predictor.runtime.run(pixels, [DEFAULT_VIEWS]),
            },
            [Ratio(OURS, PEER, "times what the peer takes for one view", "at most 3")],
        ),
        (
            f"A photo of 12 megapixels ({_LARGE}), from bytes to label",
            {PEER: lambda: peer.label(large), OURS: lambda: label(predictor, large, 1)},
            [times_the_peer("at least 2")],
        ),
    )
    return [
        make_row(title, "ms", take_turns(arms, seconds=seconds, least=least), ratios)
        for title, arms, ratios in rows
    ]


def label(predictor: Predictor, photo: bytes, views: int) -> Prediction:
    """The whole answer of a photo: label, calibrated probabilities, gates."""
    [record] = predictor.predict([photo], views)
    assert isinstance(record, Prediction), "the examples can be read"
    return record


def draw_overlay(predictor: Predictor, photo: bytes) -> np.ndarray:
    """The answer of one view, and the heatmap of its label over the photo: uint8 [H, W, 3]."""
    image = decode_image(photo, enough_side=READING_SIDE)
    [record] = predictor.predict([image], 1)
    assert isinstance(record, Prediction), "the examples can be read"
    explain = SALIENCY_METHODS[default_method(predictor)]
    return explain(predictor, image, record.label).overlay(image, DEFAULT_OPACITY)
