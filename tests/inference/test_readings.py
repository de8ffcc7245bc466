"""One network of eight diagnoses read as four tasks, which never contradict each other."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root, labelled_photos

from dermadeit.errors import CheckpointError, ConfigurationError, TableError
from dermadeit.evaluation.calibrate import fit_trust
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.faithfulness import check_saliency
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import Prediction
from dermadeit.inference.saliency import grad_cam
from dermadeit.models.checkpoints import find_checkpoint, load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import DIAGNOSIS

pytestmark = pytest.mark.slow

TASKS = ["diagnosis", "malignancy", "binary", "multiclass"]
MALIGNANT = ("mel", "bcc", "scc")


@pytest.fixture(scope="module")
def root(synthetic_data: Path) -> Path:
    return eight_diagnoses_root(synthetic_data)


@pytest.fixture(scope="module")
def records(root: Path, lesion_files: list[Path]) -> list[Prediction]:
    """What the calibrated network says of some photos when it is asked for all diagnoses."""
    records = load_predictor(root=root).predict(lesion_files, VIEWS)
    return [record for record in records if isinstance(record, Prediction)]


@pytest.mark.parametrize("calibrated", [True, False])
def test_readings_are_sums_of_one_distribution(
    synthetic_data: Path, lesion_files: list[Path], calibrated: bool
) -> None:
    predictor = load_predictor(root=eight_diagnoses_root(synthetic_data, calibrated=calibrated))
    for record in predictor.predict(lesion_files[:3], VIEWS):
        assert isinstance(record, Prediction)
        assert record.calibrated is calibrated
        share = record.class_probabilities
        assert tuple(share) == tuple(record.logits) == DIAGNOSIS.classes
        assert sum(share.values()) == pytest.approx(1)
        read = {key: reading.probabilities for key, reading in record.readings.items()}
        assert list(read) == TASKS
        malignant = sum(share[key] for key in MALIGNANT)
        assert read["diagnosis"] == share
        assert read["binary"]["nevus"] == pytest.approx(share["nv"])
        assert read["binary"]["others"] == pytest.approx(1 - share["nv"])
        assert read["malignancy"]["malignant"] == pytest.approx(malignant)
        assert read["multiclass"] == pytest.approx({key: share[key] / malignant for key in MALIGNANT})


@pytest.mark.parametrize("task", TASKS)
def test_what_is_asked_decides_the_fields_and_not_the_readings(
    root: Path, lesion_files: list[Path], records: list[Prediction], task: str
) -> None:
    answers = load_predictor(task, root=root).predict(lesion_files, VIEWS)
    for answer, record in zip(answers, records, strict=True):
        assert isinstance(answer, Prediction)
        assert answer.readings == record.readings
        assert answer.class_probabilities == record.class_probabilities
        reading = answer.readings[task]
        assert (answer.task, answer.label) == (task, reading.label)
        assert (answer.probabilities, answer.conformal_set) == (reading.probabilities, reading.conformal_set)
        assert answer.operating_point == reading.operating_point
        assert {len(shares) for shares in answer.view_probabilities} == {len(answer.probabilities)}
        # There is one gate for all of them.
        assert (answer.verdict, answer.warning_codes) == (record.verdict, record.warning_codes)


@pytest.fixture
def passes(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Predictor, list[int]]:
    """A predictor, and a list of the sizes of the batches that go through its network."""
    predictor = load_predictor("malignancy", root=root)
    backbone = predictor.checkpoint.classifier.backbone
    counted: list[int] = []
    forward_features = backbone.forward_features
    monkeypatch.setattr(
        backbone, "forward_features", lambda images: counted.append(len(images)) or forward_features(images)
    )
    return predictor, counted


def test_one_pass_answers_everything(
    passes: tuple[Predictor, list[int]], root: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    predictor, counted = passes
    (tmp_path / "notes.jpg").write_text("no image")
    files = [lesion_files[0], tmp_path / "notes.jpg", *lesion_files[1:3]]
    found = list(predictor.predict_tasks(files, VIEWS, operating_point="sensitivity_95"))
    assert counted == [3] * VIEWS
    for key in TASKS:
        asked = load_predictor(key, root=root).predict(files, VIEWS, operating_point="sensitivity_95")
        assert [records[key].to_dict() for records in found] == [record.to_dict() for record in asked]


def test_each_reading_has_decisions_and_sets_of_its_own(root: Path, records: list[Prediction]) -> None:
    fitted = json.loads((root / "dermadeit" / "calibration.json").read_text())["readings"]
    targets = {"diagnosis": "mel", "binary": "others", "malignancy": "malignant", "multiclass": "mel"}
    assert {key: reading["target"] for key, reading in fitted.items()} == targets
    for record in records:
        told = record.to_dict()["readings"]
        assert told is not None
        for key, reading in told.items():
            point = reading["operating_point"]
            assert point is not None and point["name"] == "balanced"
            chosen = fitted[key]["by_views"][str(VIEWS)]
            assert point["threshold"] == chosen["operating_points"]["balanced"]["threshold"]
            reached = reading["probabilities"][targets[key]] >= point["threshold"]
            assert (reading["decision"] == targets[key]) == reached
            bounds = zip(reading["probabilities"].items(), chosen["least_probabilities"], strict=True)
            expected = [name for (name, share), bound in bounds if share >= bound]
            assert reading["conformal_set"] == expected


def test_class_weights_decide_the_label_and_leave_the_probabilities(
    root: Path, lesion_files: list[Path], records: list[Prediction], tmp_path: Path
) -> None:
    folder = tmp_path / "dermadeit"
    folder.mkdir()
    for path in (root / "dermadeit").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "calibration.json").read_text())
    content["readings"]["multiclass"]["class_weights"] = [1.0, 1.0, 1000.0]
    (folder / "calibration.json").write_text(json.dumps(content))
    for answer, record in zip(
        load_predictor("multiclass", root=tmp_path).predict(lesion_files, VIEWS), records, strict=True
    ):
        assert isinstance(answer, Prediction)
        assert answer.label == "scc"
        assert answer.probabilities == record.readings["multiclass"].probabilities
        assert answer.readings["diagnosis"] == record.readings["diagnosis"]
        # Each view answers by the same weights, so that none disagrees.
        assert answer.stability is not None and answer.stability.flips == 0


def test_one_network_in_memory_answers_every_task(root: Path, lesion_files: list[Path]) -> None:
    predictor = load_predictor(root=root)
    other = predictor.for_task("malignancy")
    assert other.checkpoint.classifier is predictor.checkpoint.classifier
    assert other.lock is predictor.lock
    assert other.predict(lesion_files[:1], VIEWS)[0].task == "malignancy"


def test_a_network_says_which_tasks_it_can_answer(root: Path, checkpoint_root: Path) -> None:
    binary = checkpoint_root / "binary" / "dermadeit"
    with pytest.raises(CheckpointError, match="“binary”, not “diagnosis”") as refused:
        load_predictor("diagnosis", str(binary))
    assert refused.value.code == "wrong_task"
    with pytest.raises(CheckpointError, match="“diagnosis”, “malignancy”, “binary”, “multiclass”, not “own”"):
        load_checkpoint(root / "dermadeit", "own")


def test_a_model_with_one_network_is_found_before_one_for_each_task(
    root: Path, checkpoint_root: Path, tmp_path: Path
) -> None:
    assert find_checkpoint("binary", "dermadeit", root) == root / "dermadeit"
    assert find_checkpoint(None, "dermadeit", root) == root / "dermadeit"
    of_tasks = tmp_path / "of tasks"
    of_tasks.mkdir()
    for task in ("binary", "multiclass"):
        (of_tasks / task).symlink_to(checkpoint_root / task)
    with pytest.raises(ConfigurationError, match="binary or multiclass"):
        find_checkpoint(None, "dermadeit", of_tasks)
    # One of fewer classes leaves the other tasks to networks of their own.
    (tmp_path / "dermadeit").symlink_to(checkpoint_root / "binary" / "dermadeit")
    with pytest.raises(CheckpointError, match="“binary”, not “multiclass”"):
        find_checkpoint("multiclass", "dermadeit", tmp_path)
    (tmp_path / "multiclass").symlink_to(checkpoint_root / "multiclass")
    assert find_checkpoint("binary", "dermadeit", tmp_path) == tmp_path / "dermadeit"
    assert find_checkpoint("multiclass", "dermadeit", tmp_path) == tmp_path / "multiclass" / "dermadeit"


def test_a_class_without_calibration_lesions_is_named(synthetic_data: Path, root: Path) -> None:
    photos = labelled_photos(synthetic_data, root)
    # Enough lesions of every class with those of validation, which the thresholds don't see.
    rows = tuple(row if row.label != "df" else replace(row, split="validation") for row in photos.rows)
    photos = replace(photos, rows=rows)
    with pytest.raises(TableError, match="0 lesions of the class “df”"):
        fit_trust(
            photos.select("calibration"),
            None,
            load_predictor(root=root),
            validation=photos.select("validation"),
            views=1,
        )


def test_a_group_is_explained_by_the_sum_of_its_classes(root: Path, lesion_files: list[Path]) -> None:
    image = decode_image(lesion_files[0])
    asked = {key: load_predictor(key, root=root) for key in ("diagnosis", "binary", "malignancy")}
    nevus = grad_cam(asked["binary"], image, "nevus")
    np.testing.assert_allclose(nevus.values, grad_cam(asked["diagnosis"], image, "nv").values, atol=1e-6)
    others = grad_cam(asked["binary"], image, "others")
    assert np.abs(others.values - nevus.values).max() > 0.01
    assert check_saliency(asked["malignancy"], image, grad_cam(asked["malignancy"], image, "malignant"))


def test_a_plain_network_of_eight_is_read_like_a_distilled_one(
    synthetic_data: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    save_checkpoint(
        tmp_path, create_classifier("mobilenetv2", 8, image_size=64), DIAGNOSIS, Preprocessing(64)
    )
    predictor = Predictor(load_checkpoint(tmp_path, "malignancy"))
    [record] = predictor.predict(lesion_files[:1], 1)
    assert isinstance(record, Prediction)
    found = grad_cam(predictor, decode_image(lesion_files[0]))
    assert found.class_key == record.label
