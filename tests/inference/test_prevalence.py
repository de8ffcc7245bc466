"""Whole answers at another prevalence: records, decisions, lesions and the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.errors import ConfigurationError
from dermadeit.inference.decision import OWN_THRESHOLD, DecisionSettings, decide_with_settings
from dermadeit.inference.lesion import join_photos
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.prevalence import apply_settings, apply_settings_to_lesion, move_prediction
from dermadeit.inference.records import Prediction
from dermadeit.tasks import MALIGNANCY
from dermadeit.trust.calibration import OPERATING_POINTS, Calibration
from dermadeit.trust.prevalence import move_share

TASKS = ["diagnosis", "malignancy", "binary", "multiclass"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor(synthetic_data: Path) -> Predictor:
    return load_predictor("malignancy", root=eight_diagnoses_root(synthetic_data))


@pytest.fixture(scope="module")
def calibrations(predictor: Predictor) -> dict[str, Calibration]:
    assert predictor.checkpoint.trust is not None
    return dict(predictor.checkpoint.trust.calibrations)


@pytest.fixture(scope="module")
def answers(predictor: Predictor, lesion_files: list[Path]) -> list[Prediction]:
    records = predictor.predict(lesion_files[:4], VIEWS)
    return [replace(record, verdict="answer") for record in records if isinstance(record, Prediction)]


def test_a_record_says_which_prevalence_it_holds_at(
    answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    # Each of the eight diagnoses has as many calibration lesions.
    known = {"diagnosis": 1 / 8, "malignancy": 3 / 8, "binary": 7 / 8, "multiclass": 1 / 3}
    assert {key: fitted.prevalence for key, fitted in calibrations.items()} == pytest.approx(known)
    record = answers[0].to_dict()
    assert record["prevalence"] == pytest.approx(3 / 8)
    assert record["readings"] is not None
    assert {key: part["prevalence"] for key, part in record["readings"].items()} == pytest.approx(known)


def test_at_the_stored_prevalence_nothing_changes(
    answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    stored = calibrations["malignancy"].prevalence
    for answer in answers:
        assert move_prediction(answer, MALIGNANCY, calibrations, stored) is answer


def test_readings_of_a_moved_answer_are_still_sums_of_one_distribution(
    answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    for answer in answers:
        moved = move_prediction(answer, MALIGNANCY, calibrations, 0.02)
        share, read = moved.class_probabilities, moved.readings
        assert sum(share.values()) == pytest.approx(1)
        assert list(read) == TASKS
        malignant = sum(share[key] for key in ("mel", "bcc", "scc"))
        assert malignant == pytest.approx(move_share(answer.probabilities["malignant"], 3 / 8, 0.02))
        assert moved.probabilities == read["malignancy"].probabilities
        assert moved.probabilities["malignant"] == pytest.approx(malignant)
        assert read["binary"].probabilities["nevus"] == pytest.approx(share["nv"])
        assert read["diagnosis"].probabilities == pytest.approx(share)
        # Among malignant lesions nothing has changed.
        conditional = answer.readings["multiclass"]
        assert read["multiclass"].probabilities == pytest.approx(conditional.probabilities)
        assert read["multiclass"].prevalence == pytest.approx(1 / 3)
        # Of 1000 lesions 20 are malignant; as many of each diagnosis, and likewise of the 980 others.
        assert read["diagnosis"].prevalence == pytest.approx(0.02 / 3)
        assert read["binary"].prevalence == pytest.approx(1 - 0.98 / 5)
        assert (moved.label, moved.conformal_set) == (
            max(moved.probabilities, key=moved.probabilities.__getitem__), answer.conformal_set,
        )  # fmt: skip
        views = np.array(moved.view_probabilities)
        before = np.array(answer.view_probabilities)[:, 1]
        assert views[:, 1] == pytest.approx([move_share(value, 3 / 8, 0.02) for value in before])
        assert moved.stability is not None
        followed = views[:, list(moved.probabilities).index(moved.label)]
        assert moved.stability.spread == pytest.approx(np.ptp(followed))


@pytest.mark.parametrize("name", OPERATING_POINTS)
@pytest.mark.parametrize("prevalence", [0.0, 0.003, 0.5, 0.98, 1.0])
def test_a_decision_at_an_operating_point_is_the_same_at_every_prevalence(
    answers: list[Prediction], calibrations: dict[str, Calibration], name: str, prevalence: float
) -> None:
    for answer in answers:
        stored, plain = apply_settings(answer, MALIGNANCY, calibrations, DecisionSettings(name))
        moved, decision = apply_settings(
            answer, MALIGNANCY, calibrations, DecisionSettings(name, prevalence=prevalence)
        )
        assert plain is not None and decision is not None
        assert stored.operating_point is not None and moved.operating_point is not None
        assert decision.decision == plain.decision == moved.operating_point.decision
        assert (decision.sensitivity, decision.specificity) == (plain.sensitivity, plain.specificity)
        assert (decision.prevalence, decision.calibration_prevalence) == (prevalence, plain.prevalence)
        assert moved.operating_point.threshold == decision.threshold
        assert decision.threshold == pytest.approx(move_share(plain.threshold, 3 / 8, prevalence))


def test_a_threshold_of_ones_own_is_compared_with_the_probability_that_is_shown(
    answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    calibration = calibrations["malignancy"]
    for answer in answers:
        moved = move_prediction(answer, MALIGNANCY, calibrations, 0.02)
        shown = moved.probabilities["malignant"]
        for threshold, expected in ((shown - 1e-6, "malignant"), (shown + 1e-6, "benign")):
            settings = DecisionSettings(OWN_THRESHOLD, threshold, 0.02)
            decision = decide_with_settings(answer, calibration, settings)
            assert decision is not None
            assert (decision.decision, decision.threshold) == (expected, threshold)
            # The same rule has the same sensitivity wherever it is used.
            stored = DecisionSettings(OWN_THRESHOLD, move_share(threshold, 0.02, 3 / 8))
            alike = decide_with_settings(answer, calibration, stored)
            assert alike is not None
            assert (alike.sensitivity.low, alike.specificity.high) == pytest.approx(
                (decision.sensitivity.low, decision.specificity.high)
            )


def test_class_weights_move_too_so_that_the_answer_stays(
    answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    weighted = calibrations | {"multiclass": replace(calibrations["multiclass"], class_weights=(1, 1, 50))}
    for answer in answers:
        asked = replace(answer, task="multiclass", probabilities=answer.readings["multiclass"].probabilities)
        index = int(weighted["multiclass"].answers(np.array(list(asked.probabilities.values()))))
        label = list(asked.probabilities)[index]
        readings = {
            **answer.readings, "multiclass": replace(answer.readings["multiclass"], label=label),
        }  # fmt: skip
        asked = replace(asked, label=label, readings=readings, view_probabilities=(), stability=None)
        moved = move_prediction(asked, MALIGNANCY, weighted, 0.9)
        assert moved.label == label
        values = np.array(list(moved.probabilities.values())) * weighted["multiclass"].weights_at(0.9)
        assert int(values.argmax()) == index


def test_what_is_not_calibrated_is_not_moved(
    answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    with pytest.raises(ConfigurationError, match="not calibrated"):
        move_prediction(replace(answers[0], calibrated=False), MALIGNANCY, calibrations, 0.1)
    with pytest.raises(ConfigurationError, match="0 to 1"):
        move_prediction(answers[0], MALIGNANCY, calibrations, 1.1)


def test_several_photos_of_a_lesion_move_together(
    predictor: Predictor, answers: list[Prediction], calibrations: dict[str, Calibration]
) -> None:
    joint = join_photos(predictor, answers, VIEWS)
    moved, decision = apply_settings_to_lesion(
        joint, MALIGNANCY, calibrations, DecisionSettings(prevalence=0.02)
    )
    assert joint.probabilities is not None and moved.probabilities is not None and decision is not None
    expected = move_share(joint.probabilities["malignant"], 3 / 8, 0.02)
    assert moved.probabilities["malignant"] == pytest.approx(expected)
    assert (moved.prevalence, decision.prevalence) == (0.02, 0.02)
    [photo, *_] = moved.photos
    assert photo == apply_settings(answers[0], MALIGNANCY, calibrations, DecisionSettings(prevalence=0.02))[0]
    assert moved.label is not None
    shares = [item.probabilities[moved.label] for item in moved.photos if isinstance(item, Prediction)]
    assert moved.spread == pytest.approx(max(shares) - min(shares))


def test_the_command_line_moves_its_records(
    synthetic_data: Path, lesion_files: list[Path], answers: list[Prediction]
) -> None:
    folder = eight_diagnoses_root(synthetic_data) / "dermadeit"
    command = [
        "predict", str(lesion_files[0]), "--task", "malignancy", "--model", str(folder), "--views", str(VIEWS),
    ]  # fmt: skip
    options = ["--prevalence", "0.02", "--threshold", "0.3"]
    printed = CliRunner().invoke(app, [*command, *options, "--format", "jsonl"])
    assert printed.exit_code == 0, printed.output
    line = json.loads(printed.stdout)
    expected = move_share(answers[0].probabilities["malignant"], 3 / 8, 0.02)
    assert line["probabilities"]["malignant"] == pytest.approx(expected, abs=1e-5)
    assert (line["prevalence"], line["decision"]["prevalence"]) == (0.02, 0.02)
    assert line["operating_point"] == {
        "name": "own_threshold", "threshold": 0.3, "decision": "malignant" if expected >= 0.3 else "benign",
    }  # fmt: skip
    both = CliRunner().invoke(app, [*command, "--operating-point", "balanced", "--threshold", "0.3"])
    assert (both.exit_code, "not both" in both.output) == (2, True)
    uncalibrated = CliRunner().invoke(app, [*command[:-1], "3", "--prevalence", "0.02"])
    assert (uncalibrated.exit_code, "not calibrated" in uncalibrated.output) == (2, True)
