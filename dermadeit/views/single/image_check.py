"""HTML of the image check: quality in words, likeness to known lesions, the file, and the decode ledger."""

from __future__ import annotations

from html import escape

from dermadeit.imaging.decode import LOW_RESOLUTION_SIDE
from dermadeit.inference.records import Prediction
from dermadeit.reporting.format import percent
from dermadeit.trust.gating import NOT_SKIN, OUT_OF_DISTRIBUTION
from dermadeit.views.single.reading import PhotoCheck, Reading

_JUST_ABOVE = 1.5
"""Sharpness below this many times its limit is not praised."""


def check_html(reading: Reading, task_key: str) -> str:
    """What was measured on the photo, what is known of its file, and what the decoder did to its pixels."""
    image, check = reading.preview, reading.photo_checks[task_key]
    width, height = reading.size
    side = reading.inputs[task_key].width
    steps = "".join(f"<li>{escape(step)}</li>" for step in image.ledger)
    ledger = f"<ul>{steps}</ul>" if steps else "<p>none</p>"
    measures = "".join(
        f'<div data-good="{str(good).lower()}"><dt>{name}</dt><dd>{escape(word)}'
        f'<span class="dd-figure-detail">{escape(detail)}</span></dd></div>'
        for name, word, detail, good in _measures(check, reading.predictions[task_key])
    )
    return f"""
<div class="dd-check">
  <h2>Image check</h2>
  <dl>
    <div><dt>File</dt><dd>{escape(image.name)}</dd></div>
    <div><dt>Format</dt><dd>{escape(image.format)}</dd></div>
    <div><dt>Size</dt><dd>{width:,} × {height:,} px</dd></div>
    <div><dt>SHA-256</dt><dd><code title="{escape(image.sha256)}">{escape(image.sha256[:16])}…</code></dd></div>
  </dl>
  <h3>Is the photo good enough?</h3>
  <dl class="dd-measures">{measures}</dl>
  <h3>Image conversion</h3>
  {ledger}
  <p class="dd-quiet">The model sees the whole photo, resized to {side} × {side} pixels.</p>
</div>"""


def _measures(check: PhotoCheck, answer: Prediction) -> list[tuple[str, str, str, bool]]:
    """Name, verdict in words, numbers behind it, and whether it is fine, for everything that is measured."""
    found, limits = check.quality.measures, check.limits
    sharp, contrast = found["sharpness"], found["contrast"]
    dark, bright = found["black_share"], found["overexposed_share"]
    side = round(found["short_side"])
    rows = [
        (
            "Sharpness",
            _word("blurred", "slightly blurred", "blurred", answer)
            if sharp < limits.least_sharpness
            else "just sharp enough"
            if sharp < _JUST_ABOVE * limits.least_sharpness
            else "sharp",
            f"{sharp:.1f}, at least {limits.least_sharpness:.1f}",
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
            "Uniformity",
            _word("uniform", "little contrast", "almost one shade", answer)
            if contrast < limits.least_contrast
            else "enough contrast",
            f"{contrast:.0f} grey levels, at least {limits.least_contrast:.0f}",
            contrast >= limits.least_contrast,
        ),
        (
            "Size",
            "low resolution" if side < LOW_RESOLUTION_SIDE else "large enough",
            f"short side {side:,} px",
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
    detail = f"distance {check.strangeness:.4f}, at most {check.strangest:.4f}"
    if NOT_SKIN in answer.abstain_codes:
        return name, "does not look like a skin lesion", detail, False
    # A withheld answer has no warnings, and may be far from the training photos all the same.
    if OUT_OF_DISTRIBUTION in (answer.warning_codes or ()) or check.strangeness > check.strangest:
        return name, "differs from the training photos", detail, False
    return name, "similar to the training photos", detail, True
