"""Where the time of one reading goes: each of its steps alone, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.speed.photos import LARGE_SIZE, USUAL_SIZE, make_large_photo, make_photos
from benchmarks.speed.rounds import summarise, take_turns
from benchmarks.speed.single_photo import label
from dermadeit.imaging.decode import READING_SIDE, decode_image
from dermadeit.imaging.quality import assess_quality
from dermadeit.imaging.skin_tone import skin_angle
from dermadeit.inference.faithfulness import check_saliency
from dermadeit.inference.predictor import DEFAULT_VIEWS, Predictor
from dermadeit.inference.saliency import DEFAULT_OPACITY, SALIENCY_METHODS, default_method
from dermadeit.reporting.format import rounded
from dermadeit.reporting.markdown import markdown_table

_USUAL, _LARGE = (f"{width:,} × {height:,}" for width, height in (USUAL_SIZE, LARGE_SIZE))

_REST = "calibration, gates, the record, less what ran beside the network"
_WHOLE = "the whole answer, from bytes"


def measure_steps(predictor: Predictor, seconds: float, least: int) -> dict[str, Any]:
    """Step to milliseconds.

    Args:
        predictor: A transformer.
        seconds: How long it may take.
        least: Rounds in any case.
    """
    [photo], large = make_photos(1), make_large_photo()
    image = decode_image(photo, enough_side=READING_SIDE)
    squash = predictor.checkpoint.preprocessing.squash
    pixels = squash(image.pixels)[None]
    key = label(predictor, photo, DEFAULT_VIEWS).label
    explain = SALIENCY_METHODS[default_method(predictor)]
    drawn = explain(predictor, image, key)

    def check_photo() -> None:
        assess_quality(image)
        skin_angle(image.pixels)

    of_answer = {
        f"decoding a JPEG of {_USUAL}": lambda: decode_image(photo, enough_side=READING_SIDE),
        f"squashing it to {pixels.shape[-1]} × {pixels.shape[-1]}": lambda: squash(image.pixels),
        "quality and skin tone": check_photo,
        f"{DEFAULT_VIEWS} views through the network": lambda: predictor.runtime.run(pixels, [DEFAULT_VIEWS]),
    }
    beside = {
        f"decoding a JPEG of {_LARGE}": lambda: decode_image(large, enough_side=READING_SIDE),
        "one view through the network": lambda: predictor.runtime.run(pixels, [1]),
        "heatmap of a class": lambda: explain(predictor, image, key),
        "one heatmap over the photo": lambda: drawn.overlay(image, DEFAULT_OPACITY),
        "test of a heatmap": lambda: check_saliency(predictor, image, drawn),
    }
    whole = {_WHOLE: lambda: label(predictor, photo, DEFAULT_VIEWS)}
    measured = take_turns({**of_answer, **whole, **beside}, seconds=seconds, least=least)
    milliseconds = {name: np.array(rounds) * 1000 for name, rounds in measured.items()}
    rest = milliseconds[_WHOLE] - np.sum([milliseconds[name] for name in of_answer], axis=0)
    in_order = {
        **{name: milliseconds[name] for name in of_answer},
        _REST: rest,
        _WHOLE: milliseconds[_WHOLE],
        **{name: milliseconds[name] for name in beside},
    }
    return {
        "unit": "ms",
        "rounds": len(rest),
        "steps": {name: summarise(rounds.tolist()) for name, rounds in in_order.items()},
    }


def render_steps(report: Mapping[str, Any]) -> str:
    """The steps as a Markdown table."""
    rows = [[name, f"{rounded(found['median'])} ms"] for name, found in report["steps"].items()]
    return markdown_table(["step", "time"], rows)
