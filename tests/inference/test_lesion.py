"""Several photos of one lesion: one answer of their mean, and each photo's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root
from scipy.special import softmax
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.errors import ConfigurationError
from dermadeit.inference.lesion import join_photos, predict_lesion
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import ABSTAIN, Prediction

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor(synthetic_data: Path) -> Predictor:
    return load_predictor("malignancy", root=eight_diagnoses_root(synthetic_data))


@pytest.fixture(scope="module")
def photos(predictor: Predictor, lesion_files: list[Path]) -> list[Prediction]:
    records = predictor.predict(lesion_files[:3], VIEWS)
    # Whether synthetic photos pass the gates is no matter here.
    return [replace(record, verdict="answer") for record in records if isinstance(record, Prediction)]


def test_the_answer_for_a_lesion_is_that_of_the_mean_logit(
    predictor: Predictor, photos: list[Prediction]
) -> None:
    joint = join_photos(predictor, photos, VIEWS)
    logits = np.mean([list(photo.logits.values()) for photo in photos], axis=0)
    calibration = predictor.checkpoint.calibration
    assert calibration is not None and joint.probabilities is not None and joint.readings is not None
    expected = calibration.probabilities(logits, VIEWS)
    np.testing.assert_allclose(list(joint.probabilities.values()), expected)
    assert joint.readings["malignancy"].probabilities == joint.probabilities
    assert list(joint.readings) == ["diagnosis", "malignancy", "binary", "multiclass"]
    shares = [photo.probabilities[joint.label or ""] for photo in photos]
    assert joint.spread == pytest.approx(max(shares) - min(shares))
    assert joint.agreeing == sum(photo.label == joint.label for photo in photos)
    assert joint.photos == tuple(photos)


def test_one_photo_is_answered_like_itself(predictor: Predictor, photos: list[Prediction]) -> None:
    joint, [photo] = join_photos(predictor, photos[:1], VIEWS), photos[:1]
    assert (joint.label, joint.readings) == (photo.label, photo.readings)
    assert (joint.spread, joint.used, joint.agreeing) == (0, 1, 1)


def test_photos_that_are_withheld_or_unreadable_do_not_count(
    predictor: Predictor, photos: list[Prediction]
) -> None:
    [broken] = predictor.predict([b"no photo"], VIEWS)
    withheld = replace(photos[2], verdict=ABSTAIN)
    joint = join_photos(predictor, [photos[0], photos[1], withheld, broken], VIEWS)
    assert joint.readings == join_photos(predictor, photos[:2], VIEWS).readings
    assert (joint.used, len(joint.photos)) == (2, 4)
    nothing = join_photos(predictor, [withheld, broken], VIEWS)
    assert (nothing.verdict, nothing.label, nothing.spread) == (ABSTAIN, None, None)
    with pytest.raises(ConfigurationError, match="at least one photo"):
        join_photos(predictor, [], VIEWS)


def test_an_uncalibrated_network_gives_the_softmax_of_the_mean(
    synthetic_data: Path, lesion_files: list[Path]
) -> None:
    predictor = load_predictor("diagnosis", root=eight_diagnoses_root(synthetic_data, calibrated=False))
    joint = predict_lesion(predictor, lesion_files[:2], VIEWS)
    logits = [list(photo.logits.values()) for photo in joint.photos if isinstance(photo, Prediction)]
    assert joint.class_probabilities is not None and not joint.calibrated
    np.testing.assert_allclose(list(joint.class_probabilities.values()), softmax(np.mean(logits, axis=0)))
    assert json.loads(json.dumps(joint.to_dict()))["photos"][1]["label"] == joint.photos[1].to_dict()["label"]


def test_the_command_line_adds_a_record_of_the_lesion(synthetic_data: Path, lesion_files: list[Path]) -> None:
    folder = eight_diagnoses_root(synthetic_data, calibrated=False) / "dermadeit"
    arguments = ["predict", *map(str, lesion_files[:2]), "--model", str(folder), "--views", "1", "--lesion"]
    printed = CliRunner().invoke(app, [*arguments, "--format", "jsonl"])
    assert printed.exit_code == 0, printed.output
    *photos, joint = map(json.loads, printed.stdout.splitlines())
    assert [photo["task"] for photo in photos] == ["diagnosis"] * 2
    assert joint["lesion"] == [photo["file"] for photo in photos]
    assert (joint["photos"], joint["photos_used"]) == (2, 2)
    mean = np.mean([list(photo["logits"].values()) for photo in photos], axis=0)
    np.testing.assert_allclose(list(joint["class_probabilities"].values()), softmax(mean))
    table = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert table[-1].startswith(f"lesion, 2 of 2 photos\t{joint['label']}\t")
