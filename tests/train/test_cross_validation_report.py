"""The report of a cross-validation: its figures are those of scikit-learn, its differences are paired."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from dermadeit.files import read_json
from dermadeit.tasks import DIAGNOSIS
from train.answers import EXTERNAL, Answers, Images
from train.cross_validation_report import main
from train.data.splitting import fold_of

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
    seed: int = 0,
    teacher: str = "",
) -> Answers:
    """Answers that lean to the truth by `skill`."""
    asked = (images.folds == fold) | (images.folds == EXTERNAL) | (images.sources == without)
    truth = np.array([CLASSES.index("nv" if label == "benign" else label) for label in images.labels[asked]])
    logits = np.random.default_rng(noise).normal(size=(len(truth), 8)) + skill * np.eye(8)[truth]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    named = np.where(images.folds[asked] == fold, "east", "")
    about = {
        "classes": list(CLASSES), "arm": arm, "fold": fold, "seed": seed, "without": without,
        "arguments": ["--epochs", "1", *([teacher] if teacher else [])], "curves": [{"seconds": 60.0}],
    }  # fmt: skip
    answers = Answers(images.image_ids[asked], log_probabilities.astype(np.float16), named, about)
    suffix = f"-without-{without}" if without else ""
    answers.write(folder / arm / f"fold{fold}-seed{seed}{suffix}.npz")
    return answers


def _calibrated(answers: Answers, images: Images, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photos, probabilities as answered, and calibrated: each half of the fold's lesions on the other half."""
    place = {name: index for index, name in enumerate(images.image_ids.tolist())}
    rows = np.array([place[name] for name in answers.image_ids.tolist()])
    logs = log_softmax(answers.log_probabilities.astype(float), axis=1)
    held_out = images.folds[rows] == fold
    halves = np.where(held_out, [fold_of(lesion, 2) for lesion in images.lesions[rows].tolist()], -1)
    truth = np.array([CLASSES.index("nv" if label == "benign" else label) for label in images.labels[rows]])

    def scores(parameters: np.ndarray) -> np.ndarray:
        return parameters[0] * logs + np.append(0, parameters[1:])

    calibrated = np.empty_like(logs)
    for measured, fitted in ((-1, held_out), (0, halves == 1), (1, halves == 0)):
        found = minimize(
            lambda parameters, fitted=fitted: log_loss(
                truth[fitted], softmax(scores(parameters)[fitted], axis=1), labels=range(8)
            ),
            np.array([1.0] + [0.0] * 7),
        )
        calibrated[halves == measured] = softmax(scores(found.x), axis=1)[halves == measured]
    return rows, np.exp(logs), calibrated


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

    parts = [_calibrated(answers, images, fold) for fold, answers in enumerate(both)]
    rows, raw, p = (
        np.concatenate([part[index][images.folds[part[0]] == fold] for fold, part in enumerate(parts)])
        for index in range(3)
    )
    labels = images.labels[rows].tolist()
    index = [CLASSES.index(label) for label in labels]
    assert figures["uncalibrated_diagnosis_nll"] == pytest.approx(log_loss(index, raw))
    assert figures["diagnosis_nll"] == pytest.approx(log_loss(index, p), abs=1e-4)
    assert figures["diagnosis_roc_auc"] == pytest.approx(roc_auc_score(index, p, multi_class="ovr"), abs=1e-3)
    assert figures["diagnosis_accuracy"] == pytest.approx(accuracy_score(index, p.argmax(axis=1)))
    not_nevus = [label != "nv" for label in labels]
    assert figures["binary_roc_auc"] == pytest.approx(roc_auc_score(not_nevus, 1 - p[:, 1]), abs=1e-3)
    malignant = p[:, [CLASSES.index(key) for key in ("mel", "bcc", "scc")]]
    positive = np.isin(labels, ["mel", "bcc", "scc"])
    score = malignant.sum(axis=1)
    assert figures["malignancy_roc_auc"] == pytest.approx(roc_auc_score(positive, score), abs=1e-3)
    of_three = malignant[positive] / malignant[positive].sum(axis=1, keepdims=True)
    which = [("mel", "bcc", "scc").index(label) for label in np.array(labels)[positive]]
    assert figures["multiclass_nll"] == pytest.approx(log_loss(which, of_three), abs=1e-4)
    of_rows = images.sources[rows]
    areas = [roc_auc_score(positive[of_rows == source], score[of_rows == source]) for source in SOURCES]
    assert figures["sources_malignancy_roc_auc"] == pytest.approx(np.mean(areas), abs=1e-3)
    assert figures["source_named"] == pytest.approx((of_rows == "east").mean())

    # Each fold's network has answered about other cameras: the mean of both.
    external = []
    for own, _, calibrated in parts:
        other = images.folds[own] == EXTERNAL
        score = calibrated[other][:, [CLASSES.index(key) for key in ("mel", "bcc", "scc")]].sum(axis=1)
        external.append(roc_auc_score(images.labels[own][other] == "mel", score))
    assert figures["external_malignancy_roc_auc"] == pytest.approx(np.mean(external), abs=1e-3)
    assert "left_out_malignancy_roc_auc" not in figures


def test_a_prior_or_a_temperature_alone_makes_no_arm_better(images: Images, tmp_path: Path) -> None:
    images.keep(tmp_path)
    base = _write(tmp_path, images, "base", 0, skill=2)
    shifted = log_softmax(0.5 * base.log_probabilities.astype(float) + np.linspace(-1, 1, 8), axis=1)
    about = dict(base.about) | {"arm": "better"}
    Answers(base.image_ids, shifted.astype(np.float16), base.named_sources, about).write(
        tmp_path / "better" / "fold0-seed0.npz"
    )
    differences = {
        name: found["difference"] for name, found in _report(tmp_path)["better"]["differences"].items()
    }
    assert differences.pop("uncalibrated_diagnosis_nll") > 0.1
    assert max(map(abs, differences.values())) < 5e-3


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


def test_seeds_are_averaged_and_resampled_too(images: Images, tmp_path: Path) -> None:
    images.keep(tmp_path)
    for seed in range(3):
        _write(tmp_path, images, "base", 0, seed=seed, noise=seed)
        # Of all seeds alike, then better with one of them.
        _write(tmp_path, images, "same", 0, seed=seed, noise=seed, skill=1.3)
        _write(tmp_path, images, "better", 0, seed=seed, noise=seed, skill=(1, 1, 2.5)[seed])
    arms = _report(tmp_path)
    widths = {}
    for name in ("same", "better"):
        entry = arms[name]["differences"]["binary_roc_auc"]
        widths[name] = np.diff(entry["interval"])[0]
        figures = [arms[arm]["figures"]["binary_roc_auc"]["value"] for arm in (name, "base")]
        assert entry["difference"] == pytest.approx(figures[0] - figures[1])
    assert widths["better"] > 2 * widths["same"]
    assert "seeds" in read_json(tmp_path / "report.json")["method"]


def test_what_other_arms_teach_is_measured_as_one_answer(images: Images, tmp_path: Path) -> None:
    images.keep(tmp_path)
    base = _write(tmp_path, images, "base", 0, noise=1)
    same = _write(tmp_path, images, "same", 0, noise=2)
    _write(tmp_path, images, "better", 0, noise=3, teacher="{base,same}")
    mean = (base.log_probabilities.astype(float) + same.log_probabilities.astype(float)) / 2
    place = {name: index for index, name in enumerate(images.image_ids.tolist())}
    labels = images.labels[[place[name] for name in base.image_ids.tolist()]]
    held_out = images.folds[[place[name] for name in base.image_ids.tolist()]] == 0
    expected = log_loss(
        [CLASSES.index(label) for label in labels[held_out]], softmax(mean, axis=1)[held_out], labels=range(8)
    )
    teacher = _report(tmp_path)["better, teacher"]
    assert teacher["figures"]["uncalibrated_diagnosis_nll"]["value"] == pytest.approx(expected, abs=1e-3)
    assert teacher["compared_with"] == "base"
