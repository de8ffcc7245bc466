"""What a network of eight diagnoses has answered, filed once and measured for every task."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root, labelled_photos
from sklearn.metrics import f1_score

from dermadeit.data.manifest import Manifest, ManifestRow, read_source
from dermadeit.evaluation.comparison import gather_models
from dermadeit.evaluation.evaluate import evaluate, write_evaluations
from dermadeit.evaluation.predictions import PredictionSet, measure, read_predictions
from dermadeit.inference.lesion import join_photos
from dermadeit.inference.predictor import load_predictor
from dermadeit.inference.records import Evaluation
from dermadeit.tasks import BINARY, DIAGNOSIS, MALIGNANCY, MULTICLASS, TASKS, Task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(synthetic_data: Path) -> Path:
    return eight_diagnoses_root(synthetic_data)


@pytest.fixture(scope="module")
def photos(synthetic_data: Path, root: Path) -> Manifest:
    return labelled_photos(synthetic_data, root).select("validation")


@pytest.fixture(scope="module")
def evaluation(root: Path, photos: Manifest) -> Evaluation:
    return evaluate(photos, load_predictor("diagnosis", root=root), VIEWS)


@pytest.fixture(scope="module")
def filed(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> PredictionSet:
    """The predictions of the network, asked for all diagnoses, from their file."""
    folder = tmp_path_factory.mktemp("filed")
    write_evaluations([evaluation], folder)
    [predictions] = read_predictions(folder / "predictions.csv")
    return predictions


def _asked(task: Task, root: Path, synthetic_data: Path) -> PredictionSet:
    manifest = read_source(root / "table.csv", task, synthetic_data / "images").select("validation")
    found = evaluate(manifest, load_predictor(task.key, root=root), VIEWS).predictions
    return PredictionSet.of_records(task, "dermadeit", VIEWS, found, [item.prediction for item in found])


@pytest.mark.parametrize("task", [BINARY, MALIGNANCY, MULTICLASS], ids=lambda task: task.key)
def test_one_file_gives_the_figures_of_every_task(
    filed: PredictionSet, root: Path, synthetic_data: Path, task: Task
) -> None:
    asked, read = _asked(task, root, synthetic_data), filed.read_as(task)
    assert read is not None
    assert read.image_ids == asked.image_ids
    np.testing.assert_array_equal(read.labels, asked.labels)
    np.testing.assert_array_equal(read.answers, asked.answers)
    np.testing.assert_allclose(read.probabilities, asked.probabilities)
    assert read.network == asked.network == DIAGNOSIS.classes
    np.testing.assert_allclose(read.logits, asked.logits)
    figures, expected = (dict(measure(part).figures) for part in (read, asked))
    assert figures.pop("confusion_matrix") == expected.pop("confusion_matrix")
    assert figures == pytest.approx(expected)


def test_a_file_of_one_task_comes_back_with_the_logits_of_the_network(
    root: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    manifest = read_source(root / "table.csv", MULTICLASS, synthetic_data / "images").select("validation")
    found = evaluate(manifest, load_predictor("multiclass", root=root), VIEWS)
    write_evaluations([found], tmp_path)
    [predictions] = read_predictions(tmp_path / "predictions.csv")
    assert (predictions.task, predictions.network) == (MULTICLASS, DIAGNOSIS.classes)
    asked = _asked(MULTICLASS, root, synthetic_data)
    np.testing.assert_allclose(predictions.probabilities, asked.probabilities)
    np.testing.assert_array_equal(predictions.answers, asked.answers)
    assert predictions.read_as(BINARY) is None


def test_networks_of_eight_and_of_two_classes_share_a_file(
    root: Path, checkpoint_root: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    manifest = read_source(root / "table.csv", BINARY, synthetic_data / "images").select("validation")
    evaluations = [
        evaluate(manifest, load_predictor("binary", "dermadeit", root=root), VIEWS),
        evaluate(manifest, load_predictor("binary", "mobilenetv2", root=checkpoint_root / "binary"), VIEWS),
    ]
    write_evaluations(evaluations, tmp_path)
    eight, two = read_predictions(tmp_path / "predictions.csv")
    assert (eight.network, two.network) == (DIAGNOSIS.classes, ())
    for found, read in zip(evaluations, (eight, two), strict=True):
        served = [list(item.prediction.probabilities.values()) for item in found.predictions]
        np.testing.assert_allclose(read.probabilities, served)


def test_models_of_eight_and_of_two_classes_are_compared(
    filed: PredictionSet, root: Path, checkpoint_root: Path, synthetic_data: Path
) -> None:
    manifest = read_source(root / "table.csv", BINARY, synthetic_data / "images").select("validation")
    found = evaluate(
        manifest, load_predictor("binary", "mobilenetv2", root=checkpoint_root / "binary"), VIEWS
    ).predictions
    other = PredictionSet.of_records(BINARY, "mobilenetv2", VIEWS, found, [item.prediction for item in found])
    compared = gather_models([("mine", [filed]), ("theirs", [other])], BINARY)
    assert [model.name for model in compared] == ["dermadeit", "mobilenetv2"]
    assert [model.predictions.task for model in compared] == [BINARY, BINARY]
    assert len(compared[0].predictions) == len(found)


def test_right_and_wrong_are_those_of_the_answers_and_areas_those_of_the_probabilities(
    filed: PredictionSet,
) -> None:
    read = filed.read_as(MULTICLASS)
    assert read is not None
    rolled = (read.probabilities.argmax(axis=1) + 1) % 3
    changed = replace(read, decided=rolled)
    figures, plain = measure(changed).figures, measure(replace(read, decided=None)).figures
    assert figures["f1_macro"] == pytest.approx(f1_score(read.labels, rolled, average="macro"))
    assert figures["accuracy"] == pytest.approx((read.labels == rolled).mean())
    for name in ("roc_auc", "nll", "brier", "ece"):
        assert figures[name] == plain[name]
    assert changed.take([2, 0]).answers.tolist() == [rolled[2], rolled[0]]


def test_the_evaluation_measures_what_was_fitted_for_its_task(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    assert metrics["task"] == "diagnosis"
    assert metrics["operating_points"]["target"] == "mel"
    assert list(metrics["conformal"]["classes"]) == ["all", *DIAGNOSIS.classes]
    assert metrics["calibration"]["after"]["nll"]["value"] == pytest.approx(metrics["nll"])


def test_every_task_is_one_that_the_file_can_be_read_as(filed: PredictionSet) -> None:
    assert all(filed.read_as(task) is not None for task in TASKS.values())


def _in_pairs(manifest: Manifest) -> Manifest:
    """The same photos, every two of one diagnosis showing one lesion."""
    rows = sorted(manifest.rows, key=lambda row: row.label)
    seen: dict[str, int] = {}
    paired = []
    for row in rows:
        number = seen[row.label] = seen.get(row.label, -1) + 1
        paired.append(replace(row, lesion_group=f"{row.label} {number // 2}"))
    return replace(manifest, rows=tuple(paired))


@pytest.mark.parametrize("calibrated", [True, False])
def test_photos_of_one_lesion_are_answered_together(
    synthetic_data: Path, photos: Manifest, calibrated: bool
) -> None:
    predictor = load_predictor("malignancy", root=eight_diagnoses_root(synthetic_data, calibrated=calibrated))
    malignant = {"mel", "bcc", "scc"}
    paired = _in_pairs(photos)
    rows = [replace(row, label="malignant" if row.label in malignant else "benign") for row in paired.rows]
    found = evaluate(replace(paired, task=MALIGNANCY, rows=tuple(rows)), predictor, VIEWS)
    joined = {
        group: join_photos(
            predictor,
            [
                replace(item.prediction, verdict="answer")
                for item in found.predictions
                if item.lesion_group == group
            ],
            VIEWS,
        ).label
        for group in dict.fromkeys(row.lesion_group for row in rows)
    }
    truth = {row.lesion_group: row.label for row in rows}
    lesions = found.metrics["lesions"]
    assert lesions["n"] == len(joined)
    assert lesions["several_photos"] == sum(len(rows) > 1 for rows in _groups(rows).values())
    assert lesions["accuracy"] == pytest.approx(
        sum(joined[group] == truth[group] for group in joined) / len(joined)
    )


def test_lesions_with_one_photo_each_are_not_measured_twice(evaluation: Evaluation) -> None:
    assert evaluation.metrics["lesions"] is None


def _groups(rows: list[ManifestRow]) -> dict[str, list[ManifestRow]]:
    return {
        group: [row for row in rows if row.lesion_group == group] for group in {r.lesion_group for r in rows}
    }
