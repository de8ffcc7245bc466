"""The report of a cross-validation: its figures are those of scikit-learn, its differences are paired."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from dermadeit.files import read_json
from dermadeit.tasks import DIAGNOSIS
from train.answers import EXTERNAL, Answers, Images
from train.cross_validation_report import main

CLASSES = DIAGNOSIS.classes
FOLDS, SOURCES = 2, ("east", "west")


@pytest.fixture
def images() -> Images:
    """240 photos of 120 lesions in two folds and two sources, and 40 of other cameras."""
    rng = np.random.default_rng(0)
    lesions, others = np.repeat(np.arange(120), 2), np.arange(40)
    labels = [CLASSES[lesion % 8] for lesion in lesions] + [("mel", "benign")[index % 2] for index in others]
    return Images(
        np.array([f"photo{index}" for index in range(240)] + [f"other{index}" for index in others]),
        np.array([f"lesion{lesion}" for lesion in lesions] + [f"other{index}" for index in others]),
        np.array([SOURCES[bit] for bit in rng.integers(0, 2, 120)[lesions]] + ["external"] * 40),
        np.array(labels),
        np.array([*(lesions // 8 % FOLDS), *[EXTERNAL] * 40], dtype=np.int8),
    )


def _write(
    folder: Path,
    images: Images,
    arm: str,
    fold: int,
    *,
    skill: float = 1.0,
    noise: int = 0,
    without: str = "",
) -> Answers:
    """Answers that lean to the truth by `skill`."""
    asked = (images.folds == fold) | (images.folds == EXTERNAL) | (images.sources == without)
    truth = np.array([CLASSES.index("nv" if label == "benign" else label) for label in images.labels[asked]])
    logits = np.random.default_rng(noise).normal(size=(len(truth), 8)) + skill * np.eye(8)[truth]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    named = np.where(images.folds[asked] == fold, "east", "")
    about = {
        "classes": list(CLASSES), "arm": arm, "fold": fold, "seed": 0, "without": without,
        "arguments": ["--epochs", "1"], "curves": [{"seconds": 60.0}],
    }  # fmt: skip
    answers = Answers(images.image_ids[asked], log_probabilities.astype(np.float16), named, about)
    suffix = f"-without-{without}" if without else ""
    answers.write(folder / arm / f"fold{fold}-seed0{suffix}.npz")
    return answers


def _report(folder: Path) -> dict:
    plan = folder / "search.yaml"
    plan.write_text(yaml.safe_dump({"reference": "base", "arms": {"base": "", "better": "", "same": ""}}))
    assert main(["--runs", str(folder), "--search", str(plan), "--resamples", "200"]) == 0
    assert (folder / "report.md").read_text().count("| better |") == 2
    return read_json(folder / "report.json")["arms"]


def test_figures_are_those_of_scikit_learn(images: Images, tmp_path: Path) -> None:
    images.keep(tmp_path)
    both = [_write(tmp_path, images, "better", fold, noise=fold) for fold in range(FOLDS)]
    _write(tmp_path, images, "base", 0)
    figures = {name: found["value"] for name, found in _report(tmp_path)["better"]["figures"].items()}

    truth = dict(zip(images.image_ids.tolist(), images.labels.tolist(), strict=True))
    held_out = [answers.image_ids.astype(str).tolist() for answers in both]
    rows = [
        (truth[name], np.exp(logs.astype(float)))
        for answers, names in zip(both, held_out, strict=True)
        for name, logs in zip(names, answers.log_probabilities, strict=True)
        if name.startswith("photo")
    ]
    labels, p = [label for label, _ in rows], np.stack([row for _, row in rows])
    p /= p.sum(axis=1, keepdims=True)
    index = [CLASSES.index(label) for label in labels]
    assert figures["diagnosis_nll"] == pytest.approx(log_loss(index, p))
    assert figures["diagnosis_roc_auc"] == pytest.approx(roc_auc_score(index, p, multi_class="ovr"))
    assert figures["diagnosis_accuracy"] == pytest.approx(accuracy_score(index, p.argmax(axis=1)))
    assert figures["binary_roc_auc"] == pytest.approx(
        roc_auc_score([label != "nv" for label in labels], 1 - p[:, 1])
    )
    malignant = p[:, [CLASSES.index(key) for key in ("mel", "bcc", "scc")]]
    positive = np.isin(labels, ["mel", "bcc", "scc"])
    assert figures["malignancy_roc_auc"] == pytest.approx(roc_auc_score(positive, malignant.sum(axis=1)))
    of_three = malignant[positive] / malignant[positive].sum(axis=1, keepdims=True)
    which = [("mel", "bcc", "scc").index(label) for label in np.array(labels)[positive]]
    assert figures["multiclass_nll"] == pytest.approx(log_loss(which, of_three))

    sources = dict(zip(images.image_ids.tolist(), images.sources.tolist(), strict=True))
    of_rows = np.array([sources[name] for names in held_out for name in names if name.startswith("photo")])
    areas = [
        roc_auc_score(positive[of_rows == source], malignant.sum(axis=1)[of_rows == source])
        for source in SOURCES
    ]
    assert figures["sources_malignancy_roc_auc"] == pytest.approx(np.mean(areas))
    assert figures["source_named"] == pytest.approx((of_rows == "east").mean())

    # Each fold's network has answered about other cameras: the mean of both.
    external = []
    for answers in both:
        other = np.char.startswith(answers.image_ids.astype(str), "other")
        scores = np.exp(answers.log_probabilities[other].astype(float))
        scores /= scores.sum(axis=1, keepdims=True)
        malignant = scores[:, [CLASSES.index(key) for key in ("mel", "bcc", "scc")]].sum(axis=1)
        external.append(
            roc_auc_score([truth[name] == "mel" for name in answers.image_ids[other].tolist()], malignant)
        )
    assert figures["external_malignancy_roc_auc"] == pytest.approx(np.mean(external))
    assert "left_out_malignancy_roc_auc" not in figures


def test_arms_are_compared_on_the_trainings_that_both_have(images: Images, tmp_path: Path) -> None:
    images.keep(tmp_path)
    _write(tmp_path, images, "base", 0)
    for fold in range(FOLDS):
        _write(tmp_path, images, "same", fold)
        _write(tmp_path, images, "better", fold, skill=4, noise=5)
    arms = _report(tmp_path)
    assert list(arms) == ["base", "better", "same"]
    assert "differences" not in arms["base"]
    same = arms["same"]["differences"]
    assert {tuple(found["interval"]) for found in same.values()} == {(0.0, 0.0)}
    better = arms["better"]["differences"]
    assert better["diagnosis_roc_auc"]["interval"][0] > 0 > better["diagnosis_nll"]["interval"][1]
    assert better["external_malignancy_roc_auc"]["interval"][0] > 0


def test_left_out_sources_are_shown_once_all_are_done(images: Images, tmp_path: Path) -> None:
    images.keep(tmp_path)
    _write(tmp_path, images, "base", 0)
    _write(tmp_path, images, "better", 0)
    _write(tmp_path, images, "better", 0, without="east")
    name = "left_out_malignancy_roc_auc"
    assert name not in _report(tmp_path)["better"]["figures"]
    _write(tmp_path, images, "better", 0, without="west")
    assert 0 < _report(tmp_path)["better"]["figures"][name]["value"] <= 1


def test_a_folder_without_answers_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--runs", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 2
    assert "cross_validation" in caplog.text
