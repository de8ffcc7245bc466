"""Image quality: what is found wrong with a photo, and thresholds that spare real ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dermadeit.errors import ConfigurationError
from dermadeit.imaging.decode import READING_SIDE, decode_image
from dermadeit.imaging.quality import (
    PROBLEMS,
    QualityReport,
    QualityThresholds,
    assess_quality,
    fit_quality_thresholds,
)
from dermadeit.imaging.rendering import LesionRecipe, render_lesion

RECIPE = LesionRecipe(0, (228, 184, 164), ((142, 92, 62),), network=0.6, dots=20, vignette=0.2)


@pytest.fixture(scope="module")
def lesion() -> Image.Image:
    return render_lesion(RECIPE, (400, 300))


def _assess(picture: Image.Image | np.ndarray) -> QualityReport:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    return assess_quality(decode_image(picture))


def _report(**measures: float) -> QualityReport:
    good = {"sharpness": 30.0, "contrast": 90.0, "black_share": 0.0, "overexposed_share": 0.0}
    return QualityReport({**good, "short_side": 150.0, **measures}, (), ())


@pytest.mark.parametrize("size", [(64, 64), (84, 84), (200, 150), (1600, 1200)])
def test_a_good_photo_of_any_size_has_no_problem(lesion: Image.Image, size: tuple[int, int]) -> None:
    report = _assess(lesion.resize(size, Image.Resampling.LANCZOS))
    assert (report.codes, report.problems) == ((), ())
    assert report.measures["short_side"] == min(size)


def test_a_photo_of_dark_skin_is_not_too_dark() -> None:
    recipe = LesionRecipe(1, (104, 70, 54), ((52, 34, 28),), network=0.6, dots=20, vignette=0.2)
    assert _assess(render_lesion(recipe, (400, 300))).codes == ()


@pytest.mark.parametrize("scale", [0.3, 1, 4])
def test_blur_is_found_whatever_the_size_of_the_photo(lesion: Image.Image, scale: float) -> None:
    picture = lesion.resize((round(400 * scale), round(300 * scale)), Image.Resampling.LANCZOS)
    blurred = picture.filter(ImageFilter.GaussianBlur(0.05 * picture.height))
    assert _assess(blurred).codes == ("blurred",)
    assert _assess(blurred).problems[0].startswith("The photo is blurred. ")


def test_noise_of_the_sensor_does_not_hide_blur_in_a_large_photo(lesion: Image.Image) -> None:
    blurred = lesion.resize((1600, 1200)).filter(ImageFilter.GaussianBlur(60))
    noise = np.random.default_rng(0).normal(0, 6, (1200, 1600, 3))
    assert _assess(np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)).codes == ("blurred",)


@pytest.mark.parametrize(
    ("shade", "code"), [(0, "too_dark"), (8, "too_dark"), (255, "overexposed"), (128, "uniform")]
)
def test_one_shade_is_refused_for_one_reason(shade: int, code: str) -> None:
    report = _assess(np.full((200, 200, 3), shade, dtype=np.uint8))
    assert report.codes == (code,)
    assert report.problems == (PROBLEMS[code],)


def test_a_skin_coloured_wall_is_uniform() -> None:
    noise = np.random.default_rng(0).normal((210, 170, 150), 3, (300, 300, 3))
    assert _assess(noise.astype(np.uint8)).codes == ("uniform",)


def test_the_dark_ring_of_a_dermatoscope_is_not_darkness(lesion: Image.Image) -> None:
    pixels = np.asarray(lesion.resize((300, 300))).copy()
    rows, columns = np.mgrid[:300, :300] - 150
    pixels[rows**2 + columns**2 > 110**2] = 0
    report = _assess(pixels)
    # Of the square, pi * 110² / 300² lies in the lit circle.
    assert report.measures["black_share"] == pytest.approx(1 - np.pi * 110**2 / 300**2, abs=0.02)
    assert report.codes == ()


def test_measures_of_a_chequerboard_are_as_worked_out_by_hand() -> None:
    board = np.indices((80, 80)).sum(axis=0) % 2 * 200
    measures = _assess(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)).measures
    assert measures == pytest.approx(
        # Each pixel differs from each of its four neighbours by 200.
        {
            "sharpness": 800,
            "contrast": 200,
            "black_share": 0.5,
            "overexposed_share": 0,
            "short_side": 80,
        },
        abs=1e-3,
    )


def test_thresholds_refuse_at_most_the_share_that_they_were_fitted_for() -> None:
    rng = np.random.default_rng(0)
    reports = [
        _report(
            sharpness=rng.uniform(5, 60),
            contrast=rng.uniform(2, 200),
            black_share=rng.uniform(0, 1),
            overexposed_share=rng.uniform(0, 1),
        )
        for _ in range(1000)
    ]
    thresholds = fit_quality_thresholds(reports, 0.04)
    refused = [thresholds.find_problems(report.measures) for report in reports]
    assert 0.03 < np.mean([bool(codes) for codes in refused]) <= 0.04
    assert {code for codes in refused for code in codes} == set(PROBLEMS)
    nothing = fit_quality_thresholds(reports, 0)
    assert not any(nothing.find_problems(report.measures) for report in reports)


def test_what_is_plainly_usable_is_not_refused_for_being_rare() -> None:
    reports = [_report(sharpness=20 + index, contrast=80 + index) for index in range(100)]
    thresholds = fit_quality_thresholds(reports, 0.05)
    assert (
        thresholds.find_problems(_report(contrast=40, black_share=0.4, overexposed_share=0.1).measures) == ()
    )
    assert thresholds.least_sharpness == 25
    assert thresholds.find_problems(_report(sharpness=24.9).measures) == ("blurred",)


def test_thresholds_survive_json() -> None:
    thresholds = QualityThresholds(12.5, 14.0, 0.7, 0.3)
    assert QualityThresholds.from_dict(json.loads(json.dumps(thresholds.to_dict()))) == thresholds
    with pytest.raises(TypeError):
        QualityThresholds.from_dict({"most_blur": 1})


@pytest.mark.parametrize(("reports", "share"), [([], 0.01), ([_report()], 1.0), ([_report()], -0.1)])
def test_thresholds_from_nothing_are_refused(reports: list[QualityReport], share: float) -> None:
    with pytest.raises(ConfigurationError, match="at least one calibration image"):
        fit_quality_thresholds(reports, share)


@pytest.mark.parametrize("blur", [0, 12, 40])
def test_a_large_photo_read_smaller_gets_the_same_verdict(blur: int) -> None:
    # Noise as of a sensor, over shapes of all sizes.
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(60, 200, (24, 32, 3), dtype=np.uint8)).resize((2600, 1950))
    noisy = np.asarray(shapes.filter(ImageFilter.GaussianBlur(blur))) + rng.normal(0, 12, (1950, 2600, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    whole = decode_image(buffer.getvalue())
    smaller = decode_image(buffer.getvalue(), enough_side=READING_SIDE)
    assert (smaller.width, smaller.height) == (1300, 975)
    ours, theirs = assess_quality(smaller), assess_quality(whole)
    assert ours.codes == theirs.codes
    assert ours.measures["short_side"] == 1950
    for name, value in theirs.measures.items():
        # Less of the noise is left, which counts as sharpness where there is nothing else.
        assert ours.measures[name] == pytest.approx(value, rel=0.1, abs=0.01)
