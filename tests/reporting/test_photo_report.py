"""What a report holds, read from its HTML: all that an export must say, in words where something is missing."""

import base64
import io
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.evaluation.comparison import compare_with
from dermadeit.evaluation.predictions import PredictionSet, measure, measure_sources
from dermadeit.evaluation.slices import measure_slices
from dermadeit.metrics.shares import (
    abstention_figures,
    calibration_figures,
    conformal_figures,
    operating_point_figures,
    risk_coverage,
    stability_figures,
)
from dermadeit.reporting.evaluation_report import ComparedReport, evaluation_report
from dermadeit.reporting.figures import roc_curves
from dermadeit.reporting.names import EMPTY_SET, PREDICTION_SET, SIMILAR_CASES, WITHHELD, score_name
from dermadeit.reporting.photo_report import ReportFigure, single_image_report
from dermadeit.tasks import BINARY, DIAGNOSIS, get_task
from dermadeit.trust.calibration import OPERATING_POINTS

OTHERS = BINARY.display_names["others"]
SET_TITLE = " ".join(PREDICTION_SET.split())
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202egpj.exe'
CREATED = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
IMAGE_HASH, WEIGHTS_HASH = "ab" * 32, "cd" * 32


class _Page(HTMLParser):
    """The text of a page, its tags, and the attributes that fetch or run something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.words, self.sources, self.alts = [], [], [], []
        self.lang = self.title = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.lang = values.get("lang", self.lang)
        self.sources += [value for name, value in attrs if name in ("src", "srcset", "action", "data")]
        assert not [name for name in values if name.startswith("on")]
        if tag == "img":
            self.alts.append(values["alt"])

    def handle_data(self, data):
        if self.tags[-1:] == ["title"] and not self.title:
            self.title = data
        if "style" not in self.tags[-1:]:
            self.words.append(data)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 9), (200, 150, 140)).save(buffer, "PNG")
    return buffer.getvalue()


def _reading(**changes) -> dict:
    share = {"interval": None, "images": None}
    return {
        "file": "mole.jpg", "sha256": IMAGE_HASH, "task": "binary", "model": "dermadeit", "verdict": "answer",
        "abstain": None, "label": "nevus", "probabilities": {"nevus": 0.912, "others": 0.088}, "calibrated": True,
        "views": 8, "operating_point": {"name": "sensitivity_95", "threshold": 0.21, "decision": "others"},
        "conformal_set": ["nevus", "others"], "stability": {"agreeing_share": 0.75, "spread": 0.083, "flips": 2},
        "quality": {"measures": {"sharpness": 22.4, "black_share": 0.01}, "problems": ["The photo is blurred."]},
        "ood_score": 0.213, "neighbour_disagreement": True,
        "neighbour_votes": {"nevus": 1, "others": 19, "outside_task": 0},
        "neighbours": [
            {"image_id": "ISIC_0000013", "diagnosis": "NV", "distance": 0.113,
             "diagnosis_name": "melanocytic nevus",
             "isic_url": "https://api.isic-archive.com/images/ISIC_0000013/"},
        ],
        "saliency_check": {"faithful": False, "method": "Grad-CAM", "class": "nevus"},
        "ledger": [], "warnings": ["The photo is small."],
        "weights_sha256": WEIGHTS_HASH, "overridden": False, "caveat": "",
        "decision": {
            "operating_point": "sensitivity_95", "threshold": 0.21, "target": "others", "decision": "others",
            "sensitivity": {"low": 0.953, "high": 0.953, "interval": [0.93, 0.97], "images": 900},
            "specificity": {"low": 0.71, "high": 0.71, **share}, "prevalence": 0.2,
            "positive_predictive_value": {"low": 0.45, "high": 0.52, **share}, "negative_predictive_value": None,
        },
    } | changes  # fmt: skip


def _single(
    *readings: dict, file_ledger: tuple[str, ...] = ("EXIF orientation applied",), **changes
) -> _Page:
    exported = {
        "app": {"name": "DermaDeiT", "version": VERSION},
        "image": {
            "sha256": IMAGE_HASH, "format": "JPEG", "width": 1600, "height": 1200, "model_side": 160,
            "ledger": list(file_ledger), "warnings": [],
        },
        "task": "binary", "override": False, "readings": list(readings or [_reading()]),
    } | changes  # fmt: skip
    overlay = ReportFigure(
        "Grad-CAM for Nevus", _png(), "The photo under its heatmap", "Not shown to be right."
    )
    return _Page(single_image_report(exported, _png(), [overlay], created=CREATED))


def test_a_report_of_one_photo_says_how_it_came_about() -> None:
    page = _single()
    for said in (
        DISCLAIMER, VERSION, IMAGE_HASH, WEIGHTS_HASH, "binary", "8 views", "95\u00a0% sensitivity",
        "EXIF orientation applied", "2030-01-02T03:04:05+00:00", "1,600 × 1,200 px", "mole.jpg",
    ):  # fmt: skip
        assert " ".join(said.split()) in page.text
    assert page.lang == "en"
    assert page.title


def test_eight_diagnoses_are_marked_where_they_are_not_benign_and_summed_up_for_the_other_tasks() -> None:
    shares = dict.fromkeys(DIAGNOSIS.classes, 0.05) | {"mel": 0.65}
    summed = {"malignancy": {"benign": 0.25, "malignant": 0.75}, "binary": {"nevus": 0.05, "others": 0.95}}
    readings = {key: {"probabilities": value} for key, value in summed.items()}
    page = _single(
        _reading(
            task="diagnosis",
            label="mel",
            probabilities=shares,
            readings=readings,
            decision=None,
            neighbour_votes=None,
        )
    )
    for said in (
        "Melanoma malignant 65.0 %", "Basal cell carcinoma malignant 5.0 %", "Actinic keratosis precancer 5.0 %",
        "Benign keratosis 5.0 %", "Benign 25.0 %, Malignant 75.0 %", f"Nevus 5.0 %, {OTHERS} 95.0 %",
    ):  # fmt: skip
        assert said in page.text
    # Two classes need no sums.
    assert f"{OTHERS} 95.0 %" not in _single(_reading(readings=readings)).text


def test_several_photos_of_a_lesion_come_first_with_their_own_answers() -> None:
    photos = [
        _reading(error=None),
        _reading(file=HOSTILE, error=None, verdict="abstain"),
        _reading(file="c.jpg", error={"code": "image_refused", "message": "The file is empty."}),
    ]
    lesion = {
        "label": "nevus", "operating_point": {"decision": "others"}, "photos_used": 1, "photos": photos,
        "probabilities": {"nevus": 0.66, "others": 0.34},
    }  # fmt: skip
    page = _single(lesion=lesion)
    assert page.text.index("This lesion, from 1 of 3 photos") < page.text.index("91.2 %")
    for said in (
        "66.0 %",
        f"mole.jpg {OTHERS} 8.8 %",
        "answer withheld",
        "c.jpg not read The file is empty.",
    ):
        assert said in page.text
    assert "script" not in page.tags
    nothing = lesion | {"label": None, "operating_point": None, "photos_used": 0, "probabilities": None}
    assert WITHHELD in _single(lesion=nothing).text


def test_a_report_of_one_photo_holds_the_answer_and_the_doubts() -> None:
    page = _single()
    for said in (
        score_name(calibrated=True), "91.2 %", f"Decision {OTHERS}", "95.3 % (95 % interval 93.0 % to 97.0 %)",
        "between 45.0 % and 52.0 %, at a prevalence of 20.0 %", "Negative predictive value undefined",
        f"{SET_TITLE} Nevus, {OTHERS}", "6 of 8 agree on Nevus, the most probable class", "8.3 %",
        "melanocytic nevus", BINARY.contents["others"],
        f"{SIMILAR_CASES} 1 of the 20 most similar cases is {BINARY.nouns['nevus'][0]}",
        "Most probable class Nevus", "Test of the Grad-CAM heatmap for Nevus unreliable",
        "The photo is blurred.", "The photo is small.", "Not shown to be right.", "0.213",
    ):  # fmt: skip
        assert said in page.text
    assert page.alts == ["The photo that was read", "The photo under its heatmap"]
    assert base64.b64decode(page.sources[0].removeprefix("data:image/png;base64,")) == _png()


def test_what_is_missing_is_said_and_a_score_is_no_probability() -> None:
    bare = dict.fromkeys(
        ("operating_point", "conformal_set", "stability", "quality", "ood_score", "neighbour_disagreement",
         "neighbour_votes",
         "saliency_check", "decision", "weights_sha256")
    )  # fmt: skip
    page = _single(_reading(calibrated=False, neighbours=[], views=1, **bare), file_ledger=())
    assert score_name(calibrated=False) in page.text
    assert page.text.count("none: not calibrated") == 2
    for said in (
        "Image conversion none", "Quality of the photo not measured", "not looked up",
        "Test of the heatmap not tested", "not measured: one view only", "not recorded",
    ):  # fmt: skip
        assert said in page.text
    assert score_name(calibrated=True) not in page.text
    assert "None" not in page.text


def test_a_withheld_answer_is_shown_only_where_that_was_asked_for() -> None:
    withheld = _reading(
        verdict="abstain", abstain={"codes": ["blurred"], "reasons": ["The photo is blurred."]}
    )
    page = _single(withheld)
    assert f"{WITHHELD} Reasons The photo is blurred." in page.text
    assert "91.2 %" not in page.text
    assert "Answers withheld not shown" in page.text
    assert "Answers withheld none" in _single(_reading()).text
    page = _single(withheld | {"overridden": True}, override=True)
    assert "withheld and shown at your request" in page.text
    assert "91.2 %" in page.text
    assert "Answers withheld shown at your request" in page.text


def test_a_withheld_answer_is_not_given_away_by_its_warnings() -> None:
    withheld = _reading(
        verdict="abstain", abstain={"codes": ["blurred"], "reasons": ["The photo is blurred."]},
        warnings=["Among the 15, most speak against Nevus."],
    )  # fmt: skip
    assert "Nevus." not in _single(withheld).text
    assert "Nevus." in _single(withheld | {"overridden": True}).text


def test_similar_cases_mean_nothing_for_a_photo_that_is_unlike_all_lesions() -> None:
    abstain = {"codes": ["out_of_distribution"], "reasons": ["The photo does not look like a lesion."]}
    for disagrees in (True, False):
        page = _single(
            _reading(verdict="abstain", abstain=abstain, overridden=True, neighbour_disagreement=disagrees)
        )
        assert f"{SIMILAR_CASES} no vote" in page.text
        assert "most similar cases" not in page.text


def test_a_doubtful_answer_is_said_to_be_doubtful() -> None:
    caution = "So this answer is doubtful."
    assert "Uncertain" not in _single().text
    assert f"Uncertain {caution}" in _single(_reading(cautions=[caution])).text


def test_multiclass_is_a_reading_given_malignancy() -> None:
    caveat = get_task("multiclass").caveat
    multiclass = _reading(
        task="multiclass", label="mel", probabilities={"mel": 0.8, "bcc": 0.15, "scc": 0.05}, caveat=caveat,
        decision=None, operating_point=None, conformal_set=[],
        neighbour_votes={"mel": 3, "bcc": 1, "scc": 0, "outside_task": 16},
    )  # fmt: skip
    page = _single(_reading(), multiclass)
    assert "If malignant: Melanoma / BCC / SCC" in page.text
    assert caveat in page.text
    assert (
        "3 of the 20 most similar cases are melanomas, 1 is a basal cell carcinoma; 16 of the 20" in page.text
    )
    assert f"{SET_TITLE} {EMPTY_SET}" in page.text


def _evaluated(model: str = "dermadeit", *, trusted: bool = True) -> tuple[PredictionSet, dict]:
    task, rng = get_task("binary"), np.random.default_rng(len(model))
    labels = np.arange(80) % 2
    scores = np.clip(0.5 + 0.25 * (2 * labels - 1) + rng.normal(size=80) * 0.2, 0.01, 0.99)
    probabilities = np.stack([1 - scores, scores], axis=1)
    groups = tuple(f"lesion {index // 2}" for index in range(80))
    part = PredictionSet(
        task, model, 8, tuple(f"image {index}" for index in range(80)), labels, np.log(probabilities),
        probabilities, groups, ("ham10000",) * 70 + ("msk",) * 10, ("test",) * 80,
    )  # fmt: skip
    hits = probabilities.argmax(axis=1) == labels
    attributes = {
        image: {"source": source} for image, source in zip(part.image_ids, part.sources, strict=True)
    }
    trust = dict.fromkeys(("calibration", "operating_points", "conformal", "abstention"))
    if trusted:
        calibrated = calibration_figures(labels, probabilities, groups, task.classes)
        points = operating_point_figures(labels == 1, dict.fromkeys(OPERATING_POINTS, scores >= 0.5), groups)
        trust = {
            "calibration": {"scaling": "temperature", "before": calibrated, "after": calibrated},
            "operating_points": {
                "target": "others", "prevalence": 0.5,
                **{key: {"threshold": 0.5, **figures} for key, figures in points.items()},
            },
            "conformal": {
                "nominal_coverage": 0.9,
                **conformal_figures(probabilities > 0.2, labels, groups, task.classes, {}, 20),
            },
            "abstention": abstention_figures(scores > 0.9, hits, groups),
        }  # fmt: skip
    return part, {
        "model": model, "task": "binary", "views": 8, **measure(part).to_dict(),
        "sources": measure_sources(part), "slices": measure_slices(part, attributes) if trusted else None,
        "risk_coverage": risk_coverage(hits, probabilities.max(axis=1), groups),
        "stability": stability_figures(np.zeros(80), np.zeros(80), 8, groups) if trusted else None,
        "excluded": {"AK": 7}, "failed": 1, "weights_sha256": WEIGHTS_HASH, "dermadeit_version": "0.0.9", **trust,
    }  # fmt: skip


@pytest.fixture(scope="module")
def evaluated():
    ours, theirs = _evaluated(), _evaluated("deit", trusted=False)
    return [ours[0], theirs[0]], [ours[1], theirs[1]]


@pytest.mark.slow
def test_an_evaluation_holds_every_figure_with_its_interval_and_its_origin(evaluated) -> None:
    sets, metrics = evaluated
    page = _Page(
        evaluation_report(
            "Evaluation on <test>", metrics, [("One line a model", roc_curves(sets))],
            [{"file": "a.jpg", "model": "deit", "code": "image_refused", "message": "The file is empty."}],
            ["Read this first."], created=CREATED,
        )
    )  # fmt: skip
    for said in (
        "Evaluation on <test>", "Read this first.", DISCLAIMER, VERSION, "DermaDeiT 0.0.9", WEIGHTS_HASH,
        "2030-01-02T03:04:05+00:00", "80 images of 40 lesions", "AK: 7", "2000 resamples", "views: 8",
        "One line a model", "a.jpg", "The file is empty.",
        "fewer than 20 images): msk (10).",
        "Target: 90.0 % of the lesions", "by temperature scaling", f"about the class {OTHERS}", "50.0 %",
    ):  # fmt: skip
        assert said in page.text
    for part in metrics:
        low, high = part["intervals"]["accuracy"]
        assert f"{part['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in page.text
        first, second = part["confusion_matrix"]["counts"][0]
        assert f"Nevus 40 {first} {first / 40:.1%}".replace("%", " %") in page.text
        assert str(second) in page.text
    assert f"{metrics[0]['operating_points']['balanced']['sensitivity']['value']:.3f}" in page.text


@pytest.mark.slow
def test_models_on_the_same_images_are_compared_in_the_report(evaluated) -> None:
    sets, metrics = evaluated
    ours, theirs = (measure(part) for part in sets)
    paired = compare_with(ours, [theirs])
    found = paired[0].comparison.differences["accuracy"]
    compared = ComparedReport(paired, {("DermaDeiT", "DeiT"): 0.625}, 12, 80)
    page = _Page(evaluation_report("Title", metrics, compared=compared, created=CREATED))
    assert "Models compared" in page.text
    assert "different answers for 12 of 80 images" in page.text
    assert f"{found.difference:+.3f}" in page.text
    assert "0.62" in page.text
    unlabelled = ComparedReport((), {("DermaDeiT", "DeiT"): None}, 0, 80)
    page = _Page(evaluation_report("Title", metrics, compared=unlabelled, created=CREATED))
    assert "McNemar" not in page.text


def test_an_uncalibrated_model_and_missing_labels_are_put_in_words(evaluated) -> None:
    page = _Page(evaluation_report("Title", [evaluated[1][1]], created=CREATED))
    assert page.text.count("Not measured for DeiT (tiny)") == 3
    assert "operating points: none, not calibrated" in page.text
    assert "Images not read: 1" in page.text
    empty = {"model": "deit", "task": "binary", "views": 8, "n": 0, "failed": 0, "weights_sha256": None}
    page = _Page(evaluation_report("Title", [empty], created=CREATED))
    assert "no labelled image was read" in page.text
    assert "Every image was read." in page.text
    assert "None" not in page.text


def test_names_from_outside_stay_text(evaluated) -> None:
    metrics = [evaluated[1][0] | {"model": HOSTILE}]
    failures = [{"file": HOSTILE, "model": HOSTILE, "code": HOSTILE, "message": HOSTILE}]
    pages = [
        evaluation_report(HOSTILE, metrics, [(HOSTILE, roc_curves(evaluated[0]))], failures, [HOSTILE]),
        single_image_report(
            {
                "app": {}, "override": False,
                "image": {"sha256": HOSTILE, "format": HOSTILE, "width": 1, "height": 1, "ledger": [HOSTILE]},
                "readings": [
                    _reading(file=HOSTILE, model=HOSTILE, caveat=HOSTILE, warnings=[HOSTILE], title=HOSTILE,
                             class_names={"nevus": HOSTILE},
                             neighbours=[{"image_id": HOSTILE, "diagnosis": HOSTILE, "distance": 0.1,
                                          "isic_url": "javascript:alert(1)"}])
                ],
            },
            _png(), [ReportFigure(HOSTILE, _png(), HOSTILE, HOSTILE, HOSTILE)],
        ),
    ]  # fmt: skip
    for html in pages:
        page = _Page(html)
        assert "script" not in page.tags
        assert all(source.startswith("data:image/png;base64,") for source in page.sources)
        assert "\u202e" not in html
        assert "[U+202E]gpj.exe" in page.text
        assert "javascript:" not in html
