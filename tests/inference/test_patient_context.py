"""Answers with age and sex through every entrance but the page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root, labelled_photos
from fitted_with_age import fitted_with_age_root
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.data.manifest import read_source
from dermadeit.data.patient import Patient
from dermadeit.errors import CheckpointError
from dermadeit.evaluation.evaluate import evaluate
from dermadeit.inference.lesion import predict_lesion
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import Prediction
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.publishing.exports import describe
from dermadeit.tasks import DIAGNOSIS
from dermadeit.trust.files import read_trust, write_trust

pytestmark = pytest.mark.slow

OLD = Patient(70, "female")


@pytest.fixture(scope="module")
def root(synthetic_data: Path) -> Path:
    return fitted_with_age_root(synthetic_data)


@pytest.fixture(scope="module")
def predictor(root: Path) -> Predictor:
    return load_predictor("malignancy", root=root)


def _run(*arguments: object, exit_code: int = 0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == exit_code, result.output
    return result


def _answers(predictor: Predictor, files: list[Path], patients) -> list[Prediction]:
    records = predictor.predict(files, VIEWS, patients=patients)
    assert all(isinstance(record, Prediction) for record in records)
    return [record for record in records if isinstance(record, Prediction)]


def test_both_answers_are_given_and_all_readings_are_sums_of_each(
    predictor: Predictor, lesion_files: list[Path]
) -> None:
    [plain] = _answers(predictor, lesion_files[:1], None)
    [answer] = _answers(predictor, lesion_files[:1], OLD)
    assert plain.patient_context is None and answer.patient_context is not None
    # What the photo alone says stays as it was.
    assert replace(answer, patient_context=None) == plain
    told = answer.to_dict()["patient_context"]
    assert told is not None
    assert (told["age"], told["sex"], told["note"]) == (70, "female", None)
    share, readings = told["class_probabilities"], told["readings"]
    assert share is not None and readings is not None
    assert share != answer.class_probabilities
    assert sum(share.values()) == pytest.approx(1)
    assert readings["diagnosis"]["probabilities"] == share
    assert readings["malignancy"]["probabilities"]["malignant"] == pytest.approx(
        share["mel"] + share["bcc"] + share["scc"]
    )
    assert readings["binary"]["probabilities"]["nevus"] == pytest.approx(share["nv"])
    assert told["probabilities"] == readings["malignancy"]["probabilities"]
    assert told["label"] == readings["malignancy"]["label"]


def test_decisions_with_age_have_thresholds_of_their_own(
    root: Path, predictor: Predictor, lesion_files: list[Path]
) -> None:
    fitted = json.loads((root / "dermadeit" / "calibration.json").read_text())
    [answer] = _answers(predictor, lesion_files[:1], OLD)
    assert answer.patient_context is not None and answer.patient_context.asked is not None
    point = answer.patient_context.asked.operating_point
    own = fitted["patient_context"]["readings"]["malignancy"]["by_views"][str(VIEWS)]
    assert point is not None
    assert point.threshold == own["operating_points"]["balanced"]["threshold"]
    reached = answer.patient_context.asked.probabilities["malignant"] >= point.threshold
    assert point.decision == ("malignant" if reached else "benign")


def test_each_photo_may_have_its_patient_and_an_age_is_needed(
    predictor: Predictor, lesion_files: list[Path]
) -> None:
    patients = [OLD, None, Patient(sex="male"), Patient(119)]
    answers = [record.patient_context for record in _answers(predictor, lesion_files[:4], patients)]
    with_age, nothing, without_age, very_old = answers
    assert nothing is None
    assert with_age is not None and with_age.asked is not None and not with_age.note
    assert without_age is not None and without_age.asked is None and "age is not known" in without_age.note
    assert very_old is not None and very_old.asked is not None and "answer is that for age" in very_old.note


def test_a_model_that_was_not_fitted_so_says_it(synthetic_data: Path, lesion_files: list[Path]) -> None:
    for calibrated in (True, False):
        plain = load_predictor("binary", root=eight_diagnoses_root(synthetic_data, calibrated=calibrated))
        [answer] = _answers(plain, lesion_files[:1], OLD)
        told = answer.to_dict()["patient_context"]
        assert told is not None and told["probabilities"] is None and told["readings"] is None
        assert told["note"] == "This model was not fitted with age and sex."


def test_several_photos_of_a_lesion_are_answered_with_age_too(
    predictor: Predictor, lesion_files: list[Path]
) -> None:
    joint = predict_lesion(predictor, lesion_files[:2], VIEWS, patient=OLD)
    assert joint.patient_context is not None and joint.class_probabilities is not None
    context = predictor.checkpoint.patient_context
    assert context is not None
    [expected] = context.fusion(np.array([list(joint.class_probabilities.values())]), [OLD])
    np.testing.assert_allclose(list(joint.patient_context.class_probabilities.values()), expected)
    assert json.loads(json.dumps(joint.to_dict()))["patient_context"]["age"] == 70


def test_calibrate_says_what_age_and_sex_bring_or_why_they_are_not_used(
    root: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    printed = (root / "printed.txt").read_text()
    assert "age and sex: 80 images of 80 lesions" in printed
    stored = json.loads((root / "dermadeit" / "calibration.json").read_text())
    assert stored["patient_context"]["report"]["without_age"] == 8
    gain = stored["patient_context"]["readings"]["diagnosis"]["report"]["gain"]["nll"]
    assert gain["difference"] < 0 and gain["interval"][1] < 0
    plain = eight_diagnoses_root(synthetic_data)
    without = json.loads((plain / "dermadeit" / "calibration.json").read_text())
    assert "patient_context" not in without
    assert "no image has an age" in without["report"]["without_patient_context"]


@pytest.mark.parametrize(
    ("ages", "reason"),
    [
        (lambda index: str(40 + index % 7) if index % 8 else "", "0 lesions of the class “mel” have an age"),
        (lambda index: str(30 + index * 37 % 50), "don't make the answers clearly better"),
    ],
)
def test_too_few_or_useless_ages_are_left_out(
    root: Path, synthetic_data: Path, tmp_path: Path, ages, reason: str
) -> None:
    lines = (root / "table.csv").read_text().splitlines()
    changed = [
        ",".join([*line.split(",")[:-2], ages(index), "female"]) for index, line in enumerate(lines[1:])
    ]
    (tmp_path / "table.csv").write_text("\n".join([lines[0], *changed]) + "\n")
    folder = tmp_path / "dermadeit"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((root / "dermadeit" / name).read_bytes())
    arguments = [
        "calibrate",
        tmp_path / "table.csv",
        "--images",
        synthetic_data / "images",
        "--model",
        folder,
    ]
    printed = _run(*arguments, "--no-similar-cases", "--views", 1)
    assert reason in printed.stdout
    assert load_checkpoint(folder).patient_context is None


def test_what_was_fitted_comes_back_exactly(root: Path, lesion_files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "dermadeit"
    folder.mkdir()
    for path in (root / "dermadeit").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    checkpoint = load_checkpoint(folder)
    assert checkpoint.trust is not None
    write_trust(folder, checkpoint.trust)
    again = read_trust(folder, DIAGNOSIS, checkpoint.weights_sha256)
    assert again is not None and again.patient_context == checkpoint.trust.patient_context
    old, new = (root / "dermadeit" / "calibration.json"), folder / "calibration.json"
    assert json.loads(old.read_text()) == json.loads(new.read_text())


@pytest.mark.parametrize(
    "damage",
    [
        lambda context: context["coefficients"].pop(),
        lambda context: context["coefficients"][0].append(1.0),
        lambda context: context["intercepts"].append(1.0),
        lambda context: context["age"].pop("mean"),
        lambda context: context["age"].update(deviation=0),
        lambda context: context["age"].update(mean=None),
        lambda context: context.update(inputs=["site"]),
        lambda context: context["readings"].pop("binary"),
        lambda context: context.pop("report"),
    ],
)
def test_damaged_values_are_refused(root: Path, tmp_path: Path, damage) -> None:
    folder = tmp_path / "dermadeit"
    folder.mkdir()
    for path in (root / "dermadeit").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "calibration.json").read_text())
    damage(content["patient_context"])
    (folder / "calibration.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(folder)


def test_predict_takes_age_and_sex(root: Path, lesion_files: list[Path], tmp_path: Path) -> None:
    arguments = ["predict", *lesion_files[:2], "--model", root / "dermadeit", "--views", VIEWS]
    given = _run(*arguments, "--age", "63", "--sex", "F", "--task", "binary", "--format", "jsonl")
    for line in map(json.loads, given.stdout.splitlines()):
        assert (line["patient_context"]["age"], line["patient_context"]["sex"]) == (63, "female")
        assert line["patient_context"]["probabilities"].keys() == {"nevus", "others"}
    table = tmp_path / "patients.csv"
    table.write_text(f"image,age,sex\n{lesion_files[1].name},30,male\n")
    lines = _run(*arguments, "--patients", table, "--format", "jsonl", "--lesion").stdout.splitlines()
    first, second, joint = (json.loads(line)["patient_context"] for line in lines)
    assert first is None and second["age"] == joint["age"] == 30
    printed = _run(*arguments, "--age", 63, "--task", "binary").stdout
    assert printed.count("with age and sex: ") == 2
    assert "age is not known" in _run(*arguments, "--sex", "male").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--age", "-3"], "“-3” is not an age"),
        (["--age", "400"], "“400” is not an age"),
        (["--age", "abc"], "“abc” is not an age"),
        (["--age", "50", "--sex", "x"], "“x” is not a known sex"),
        (["--age", "50", "--patients", "patients.csv"], "not both"),
    ],
)
def test_wrong_ages_end_with_a_sentence(
    root: Path, lesion_files: list[Path], options: list[str], message: str
) -> None:
    result = _run("predict", lesion_files[0], "--model", root / "dermadeit", *options, exit_code=2)
    assert message in result.stderr


def test_evaluate_gives_figures_with_and_without_age(
    root: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", root / "table.csv", "--images", synthetic_data / "images", "--no-slices"]
    printed = _run(
        *arguments,
        "--model",
        root / "dermadeit",
        "--views",
        VIEWS,
        "--task",
        "diagnosis",
        "--output",
        tmp_path,
    ).stdout
    assert "with age and sex, 80 images:" in printed
    figures = json.loads((tmp_path / "metrics.json").read_text())["dermadeit"]
    context = figures["patient_context"]
    assert figures["n"] == 88 and context["photo"]["n"] == context["with_context"]["n"] == 80
    gained = context["with_context"]["accuracy"] - context["photo"]["accuracy"]
    told = context["comparison"]["differences"]["accuracy"]
    assert told["difference"] == pytest.approx(gained) and gained > 0
    assert told["interval"][0] <= gained <= told["interval"][1]
    header, *rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert "context_label" in header and "context_p_mel" in header
    assert sum(",," in row for row in rows) >= 8


def test_photos_without_ages_are_evaluated_as_before(
    root: Path, synthetic_data: Path, predictor: Predictor
) -> None:
    plain = labelled_photos(synthetic_data, eight_diagnoses_root(synthetic_data))
    few = replace(plain, rows=plain.rows[:16])
    evaluation = evaluate(few, load_predictor(root=root), 1)
    assert "patient_context" not in evaluation.metrics
    aged = read_source(root / "table.csv", DIAGNOSIS, synthetic_data / "images")
    without = load_predictor(root=eight_diagnoses_root(synthetic_data))
    evaluation = evaluate(replace(aged, rows=aged.rows[:16]), without, 1)
    assert "patient_context" not in evaluation.metrics
    assert all(item.prediction.patient_context is None for item in evaluation.predictions)


def test_a_program_without_this_library_gets_the_answer_from_what_an_export_says(
    predictor: Predictor, lesion_files: list[Path]
) -> None:
    [answer] = _answers(predictor, lesion_files[:1], OLD)
    told = describe(predictor.checkpoint, VIEWS)["not_in_the_graph"]["age_and_sex"]
    age = told["age"]
    inputs = [(np.clip(70, age["least"], age["greatest"]) - age["mean"]) / age["deviation"], 1]
    logits = np.log(list(answer.class_probabilities.values())) + np.array(told["coefficients"]) @ inputs
    weights = np.exp(logits + told["intercepts"])
    assert answer.patient_context is not None
    np.testing.assert_allclose(
        weights / weights.sum(), list(answer.patient_context.class_probabilities.values()), atol=1e-6
    )
