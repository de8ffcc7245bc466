"""The image check: quality in words, likeness to known lesions, the file, and the decode ledger."""

from __future__ import annotations

from dermadeit.imaging.decode import LOW_RESOLUTION_SIDE
from dermadeit.inference.records import Prediction
from dermadeit.reporting.format import count, decimal, percent
from dermadeit.reporting.names import PHOTO_MEASURES
from dermadeit.reporting.templates import render
from dermadeit.trust.gating import NOT_SKIN, OUT_OF_DISTRIBUTION
from dermadeit.views.single.reading import PhotoCheck, Reading

_JUST_ABOVE = 1.5
"""Sharpness below this many times its limit is not praised."""


def check_html(reading: Reading, task_key: str) -> str:
    """What was measured on the photo, what is known of its file, and what the decoder did to its pixels."""
    image, check = reading.preview, reading.photo_checks[task_key]
    width, height = reading.size
    return render(
        "views/single/image_check.html",
        image=image,
        width=width,
        height=height,
        side=reading.inputs[task_key].width,
        measures=_measures(check, reading.predictions[task_key]),
    )


def no_check_html() -> str:
    """What stands in its place while there is no photo."""
    return render("views/single/no_image_check.html")


def _measures(check: PhotoCheck, answer: Prediction) -> list[tuple[str, str, str, bool]]:
    """Name, verdict in words, numbers behind it, and whether it is fine, for everything that is measured."""
    found, limits = check.quality.measures, check.limits
    sharp, contrast = found["sharpness"], found["contrast"]
    dark, bright = found["black_share"], found["overexposed_share"]
    side = round(found["short_side"])
    rows = [
        (
            PHOTO_MEASURES["sharpness"],
            _word("blurred", "slightly blurred", "blurred", answer)
            if sharp < limits.least_sharpness
            else "just sharp enough"
            if sharp < _JUST_ABOVE * limits.least_sharpness
            else "sharp",
            f"{decimal(sharp, 1)}, at least {decimal(limits.least_sharpness, 1)}",
            sharp >= limits.least_sharpness,
        ),
        (
            "Exposure",
            _word("too_dark", "dark", "too dark", answer)
            if dark > limits.most_black_share
            else _word("overexposed", "partly overexposed", "overexposed", answer)
            if bright > limits.most_overexposed_share
            else "good",
            f"{percent(dark)} black, {percent(bright)} overexposed",
            dark <= limits.most_black_share and bright <= limits.most_overexposed_share,
        ),
        (
            PHOTO_MEASURES["contrast"],
            _word("uniform", "little contrast", "almost one shade", answer)
            if contrast < limits.least_contrast
            else "enough contrast",
            f"{decimal(contrast, 0)} grey levels, at least {decimal(limits.least_contrast, 0)}",
            contrast >= limits.least_contrast,
        ),
        (
            PHOTO_MEASURES["short_side"],
            "low resolution" if side < LOW_RESOLUTION_SIDE else "large enough",
            f"{count(side)} px",
            side >= LOW_RESOLUTION_SIDE,
        ),
    ]
    return [*rows, _likeness(check, answer)]


def _word(code: str, moderate: str, severe: str, answer: Prediction) -> str:
    """What is said of a problem: severe where the answer is withheld for it."""
    return severe if code in answer.abstain_codes else moderate


def _likeness(check: PhotoCheck, answer: Prediction) -> tuple[str, str, str, bool]:
    name = "Likeness to known lesions"
    if check.strangeness is None or check.strangest is None:
        return name, "not measured", "the checkpoint is not calibrated, so no answer is withheld", True
    detail = f"distance {decimal(check.strangeness, 4)}, at most {decimal(check.strangest, 4)}"
    if NOT_SKIN in answer.abstain_codes:
        return name, "does not look like a skin lesion", detail, False
    # A withheld answer has no warnings, and may be far from the training photos all the same.
    if OUT_OF_DISTRIBUTION in (answer.warning_codes or ()) or check.strangeness > check.strangest:
        return name, "differs from the training photos", detail, False
    return name, "similar to the training photos", detail, True
