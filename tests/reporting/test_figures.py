"""What figures show, read from the figures themselves: against scikit-learn, counts, and the files behind them."""

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.special import softmax
from sklearn import metrics as sk

from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.evaluation.slices import measure_slices
from dermadeit.metrics.shares import risk_coverage
from dermadeit.metrics.weighted import calibration_errors, reliability_bins
from dermadeit.models.checkpoints import CHECKPOINT_ROOT
from dermadeit.reporting.drawing import line_styles
from dermadeit.reporting.figures import (
    ModelPoint,
    accuracy_latency_figure,
    alt_text,
    confusion_figure,
    decision_curves,
    encode_figure,
    inline_svg,
    precision_recall_curves,
    reliability_diagram,
    risk_coverage_curves,
    roc_curves,
    score_histograms,
    slice_figure,
    training_curves,
)
from dermadeit.tasks import BINARY, get_task

HOSTILE = '<script>alert("$x^2$")</script>\u202e\x07'


def _prediction_set(model: str = "dermadeit", *, task: str = "multiclass", images: int = 90) -> PredictionSet:
    rng, classes = np.random.default_rng(len(model)), len(get_task(task).classes)
    labels = np.arange(images) % classes
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[labels]
    return PredictionSet(
        get_task(task), model, 8,
        image_ids=tuple(f"image {index}" for index in range(images)),
        labels=labels,
        logits=logits,
        probabilities=softmax(logits, axis=1),
        lesion_groups=tuple(f"lesion {index // 3}" for index in range(images)),
        sources=("ham10000",) * images,
        splits=("test",) * images,
    )  # fmt: skip


SETS = [_prediction_set("dermadeit"), _prediction_set("deit")]
MANY = [_prediction_set("dermadeit", images=180), _prediction_set("deit", images=180)]


def _line(figure: Figure, beginning: str) -> tuple[np.ndarray, np.ndarray]:
    [line] = [one for one in figure.axes[0].lines if str(one.get_label()).startswith(beginning)]
    return line.get_data()


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_curves_are_those_of_melanoma_against_the_rest() -> None:
    roc, recall_curve = roc_curves(SETS), precision_recall_curves(SETS)
    for part, title in zip(SETS, ("DermaDeiT", "DeiT"), strict=True):
        positive, scores = part.labels == 0, part.probabilities[:, 0]
        false_alarms, hits, _ = sk.roc_curve(positive, scores)
        np.testing.assert_array_equal(_line(roc, title), (false_alarms, hits))
        assert f"{title} (tiny), AUROC {sk.roc_auc_score(positive, scores):.3f}" in alt_text(roc)
        precision, recall, _ = sk.precision_recall_curve(positive, scores)
        [drawn] = [line for line in recall_curve.axes[0].lines if str(line.get_label()).startswith(title)]
        # As it is drawn, so that the area that is seen is the number in the legend.
        x, y = STEP_LOOKUP_MAP[drawn.get_drawstyle()](*drawn.get_data())
        assert -np.trapezoid(y, x) == pytest.approx(sk.average_precision_score(positive, scores))
        np.testing.assert_array_equal(_line(recall_curve, title), (recall, precision))
    assert "ROC: melanoma against the rest" in _texts(roc)
    nevus, others = (BINARY.display_names[key].lower() for key in BINARY.classes)
    assert f"ROC: {others} against {nevus}" in _texts(roc_curves([_prediction_set(task="binary")]))


def test_the_roc_has_a_band_around_it_and_a_mark_where_the_answers_lie() -> None:
    [band, mark, *_] = roc_curves(SETS).axes[0].collections
    part = SETS[0]
    positive, answered = part.labels == 0, part.answers == 0
    [[false_alarms, hits]] = mark.get_offsets()
    assert (false_alarms, hits) == (answered[~positive].mean(), answered[positive].mean())
    edge = band.get_paths()[0].vertices
    inside = edge[np.isclose(edge[:, 0], 0.3), 1]
    exact = np.interp(0.3, *_line(roc_curves(SETS), "DermaDeiT"))
    assert inside.min() < exact < inside.max()


def test_the_decision_curve_weighs_hits_against_false_alarms() -> None:
    figure, part = decision_curves(SETS), SETS[0]
    thresholds, benefit = _line(figure, "DermaDeiT")
    positive, acted = part.labels == 0, part.probabilities[:, 0] >= 0.25
    place = list(thresholds).index(0.25)
    expected = (acted & positive).sum() / len(part) - (acted & ~positive).sum() / len(part) / 3
    assert benefit[place] == pytest.approx(expected)
    _, everybody = _line(figure, "Everybody")
    assert everybody[place] == pytest.approx(positive.mean() - (1 - positive.mean()) / 3)


def test_the_scores_stand_apart_by_truth_in_a_panel_for_each_model() -> None:
    figure = score_histograms(SETS)
    assert len(figure.axes) == len(SETS)
    for axes, part in zip(figure.axes, SETS, strict=True):
        others, hits = (steps.get_data().values.sum() for steps in axes.patches)
        assert (others, hits) == ((part.labels != 0).sum(), (part.labels == 0).sum())


def test_reliability_bins_hold_the_calibration_error() -> None:
    confidences, hits = MANY[0].probabilities.max(axis=1), MANY[0].hits
    for scores in (confidences, confidences.round(1)):
        stated, right, sizes = reliability_bins(scores, hits)
        assert sizes.sum() == len(hits)
        error = calibration_errors(scores, hits, np.ones((1, len(hits))))[0]
        assert (np.abs(right - stated) * sizes).sum() / len(hits) == pytest.approx(error)
    stated, right, _ = reliability_bins(confidences, hits)
    figure = reliability_diagram(MANY)
    np.testing.assert_allclose(_line(figure, "DermaDeiT"), (stated, right))
    [counts, _] = figure.axes[1].patches
    assert counts.get_data().values.sum() == len(hits)


def test_risk_falls_with_coverage_as_the_measurement_says() -> None:
    part = SETS[0]
    hits, confidences = part.probabilities.argmax(axis=1) == part.labels, part.probabilities.max(axis=1)
    curve = risk_coverage(hits, confidences, part.lesion_groups, resamples=1)["curve"]
    coverage, risk = _line(risk_coverage_curves(SETS), "DermaDeiT")
    assert list(coverage) == [point["coverage"] for point in curve]
    assert list(risk) == [point["risk"] for point in curve]


def test_confusion_matrix_shows_counts_or_shares_of_the_truth() -> None:
    counts = sk.confusion_matrix(SETS[0].labels, SETS[0].probabilities.argmax(axis=1))
    shown = [text.get_text() for text in confusion_figure(SETS[0]).axes[0].texts]
    assert shown == [str(count) for count in counts.ravel()]
    shares = [text.get_text() for text in confusion_figure(SETS[0], normalised=True).axes[0].texts]
    assert shares == [
        f"{share:.1f}\u00a0%" for share in (100 * counts / counts.sum(axis=1, keepdims=True)).ravel()
    ]
    assert "Melanoma: " in alt_text(confusion_figure(SETS[0]))


def test_training_curves_are_those_of_the_shipped_checkpoints() -> None:
    for path in sorted(Path(CHECKPOINT_ROOT).rglob("training.json")):
        training = json.loads(path.read_text())
        figure = training_curves(training)
        epochs, losses = _line(figure, "loss")
        stages = [*training.get("earlier_stages", []), training]
        assert list(losses) == [point["loss"] for stage in stages for point in stage["curves"]]
        assert list(epochs) == list(range(1, len(losses) + 1))
        kept = len(losses) - len(training["curves"]) + training["best_epoch"]
        assert f"Epoch {kept} of {len(epochs)} was kept" in alt_text(figure)
    assert "no record" in alt_text(training_curves({}))


def test_the_curves_of_earlier_stages_come_first() -> None:
    first, second = ([{"epoch": epoch, "loss": epoch + stage} for epoch in (1, 2)] for stage in (0.5, 0.25))
    figure = training_curves({"curves": second, "best_epoch": 2, "earlier_stages": [{"curves": first}]})
    epochs, losses = _line(figure, "loss")
    assert list(epochs) == [1, 2, 3, 4]
    assert list(losses) == [1.5, 2.5, 1.25, 2.25]
    assert "began with epoch 3. Epoch 4 of 4" in alt_text(figure)


def test_slices_are_dots_with_their_intervals_and_small_ones_are_left_out() -> None:
    part = SETS[0]
    sexes = ["female"] * 60 + ["male"] * 25 + ["other"] * 5
    attributes = {image: {"sex": sex} for image, sex in zip(part.image_ids, sexes, strict=True)}
    slices = {"sex": measure_slices(part, attributes)["sex"]}
    figure = slice_figure(slices)
    female = slices["sex"]["slices"]["female"]
    interval, dot = figure.axes[0].lines[:2]
    assert list(interval.get_xdata()) == female["intervals"]["accuracy"]
    assert list(dot.get_xdata()) == [female["accuracy"]]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["female (n = 60)", "male (n = 25)"]
    assert "enough" in alt_text(slice_figure(None))


def test_accuracy_is_drawn_against_time() -> None:
    points = [
        ModelPoint("DermaDeiT (tiny)", 0.88, (0.85, 0.91), 28, 5_500_000),
        ModelPoint("x", 0.8, None, 9, 1),
    ]
    figure = accuracy_latency_figure(points)
    assert [float(value[0]) for value in _line(figure, "DermaDeiT")] == [28, 0.88]
    assert "88.0\u00a0% in 28 ms" in alt_text(figure)
    assert "No time" in alt_text(accuracy_latency_figure([]))


@pytest.mark.parametrize(("times", "ticks"), [((179.601,), ["180"]), ((179.601, 183.2), ["180"]),
                                              ((145.31, 178.2), ["145", "178"])])  # fmt: skip
def test_times_are_labelled_to_three_digits_and_never_on_each_other(
    times: tuple[float, ...], ticks: list[str]
) -> None:
    figure = accuracy_latency_figure([ModelPoint("x", 0.8, None, time, 1) for time in times])
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ticks


@pytest.mark.parametrize(
    "draw",
    [
        roc_curves, precision_recall_curves, reliability_diagram, risk_coverage_curves, decision_curves,
        score_histograms,
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(draw) -> None:
    for sets in ([], [SETS[0].take([])]):
        figure = draw(sets)
        assert "no labelled images" in " ".join(alt_text(figure).split())
        assert "<text" in inline_svg(figure)


def test_one_class_or_few_images_are_said() -> None:
    only_melanoma = SETS[0].take([index for index in range(90) if SETS[0].labels[index] == 0])
    assert "Every image is labelled melanoma" in alt_text(roc_curves([only_melanoma]))
    enough = _prediction_set(images=150)
    assert "ECE" in alt_text(reliability_diagram([enough]))
    few = " ".join(alt_text(reliability_diagram([enough, enough.take(range(149))])).split())
    assert "It needs 150 images or more: 10 for each of its 15 bins." in few
    assert "AURC" in alt_text(risk_coverage_curves([SETS[0].take([0])]))
    assert "no labelled images" in alt_text(confusion_figure(SETS[0].take([])))
    assert encode_figure(confusion_figure(only_melanoma, normalised=True), "svg")


def test_a_model_keeps_its_look_in_any_company() -> None:
    alone, together = line_styles(["deit"]), line_styles(["dermadeit", "mine", "deit", "deit"])
    assert together[2] == alone[0]
    assert len({style.colour for style in together}) == len({style.dash for style in together}) == 4


def test_inline_svg_is_well_formed_follows_the_page_and_can_stand_beside_others() -> None:
    figures = [roc_curves(SETS), reliability_diagram(MANY), confusion_figure(SETS[0])]
    drawings = [inline_svg(figure) for figure in figures]
    assert drawings == [inline_svg(figure) for figure in figures]
    ids = []
    for figure, drawing in zip(figures, drawings, strict=True):
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.find("{http://www.w3.org/2000/svg}title").text == alt_text(figure)
        assert "currentColor" in drawing
        assert not any(word in drawing for word in ("<style", "<metadata", "<!DOCTYPE", "#16242a", "DejaVu"))
        own = [element.get("id") for element in root.iter() if element.get("id")]
        uses = [value for element in root.iter() for key, value in element.items() if key.endswith("href")]
        assert {value.removeprefix("#") for value in uses} <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_hostile_names_stay_text() -> None:
    named = [replace(SETS[0], model=HOSTILE)]
    for figure in (roc_curves(named), confusion_figure(named[0]), accuracy_latency_figure([
        ModelPoint(HOSTILE, 0.5, None, 5, 5)
    ])):  # fmt: skip
        for drawing in (inline_svg(figure), encode_figure(figure, "svg").decode()):
            assert "<script" not in drawing
            assert "\u202e" not in drawing
            assert 'alert("$x^2$")' in "".join(ElementTree.fromstring(drawing).itertext())
    figure = roc_curves(SETS)
    figure.set_label('"><b>')
    assert "<b>" not in inline_svg(figure)


def _ground(drawing: str) -> str:
    """The style of the first path of a drawing, its ground."""
    first = next(part for part in ElementTree.fromstring(drawing).iter() if part.tag.endswith("path"))
    return first.get("style", "")


def test_files_are_white_and_hold_no_metadata() -> None:
    figure = confusion_figure(SETS[0])
    png, svg = encode_figure(figure, "png"), encode_figure(figure, "svg")
    assert png.startswith(b"\x89PNG")
    assert b"matplotlib.org" not in png
    assert b"<metadata" not in svg
    assert svg == encode_figure(figure, "svg")
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)
    assert "fill: #ffffff" in _ground(svg.decode())
    # On a page the ground is the page's own.
    assert "fill: #ffffff" not in _ground(inline_svg(figure))
