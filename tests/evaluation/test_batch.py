"""Batches: what is kept of each image, what cancelling leaves, and decisions at any threshold."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest
from calibrated_checkpoint import calibrated_predictor
from PIL import Image
from sklearn import metrics as sk

from dermadeit.data.collection import CollectedImage, Collection, UploadedFile, opened_collection
from dermadeit.data.manifest import read_source
from dermadeit.data.tabular import read_csv
from dermadeit.errors import ResultFileError
from dermadeit.evaluation.batch import THUMBNAIL_SIDE, Batch, mixed_order, read_prediction_table
from dermadeit.evaluation.evaluate import evaluate, write_evaluations
from dermadeit.evaluation.plain_tables import NO_LESION_GROUPS
from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.evaluation.slices import SLICED_BY, describe_images
from dermadeit.evaluation.thresholds import Decisions
from dermadeit.imaging.decode import LesionImage
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import ABSTAIN, ANSWER
from dermadeit.tasks import get_task
from dermadeit.trust.calibration import Calibration

BINARY, MULTICLASS = get_task("binary"), get_task("multiclass")


def _synthetic(count: int, label: str = "") -> Collection:
    def encode(seed: int) -> bytes:
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    images = [
        CollectedImage(f"{seed}", f"{seed}.png", label, f"{seed}", "", "", {}, lambda seed=seed: encode(seed))
        for seed in range(count)
    ]
    return Collection(BINARY, tuple(images), ())


@pytest.fixture
def labelled(synthetic_data: Path) -> Iterator[Collection]:
    """The synthetic images as loose files beside their table."""
    files = sorted((synthetic_data / "images").iterdir())
    handed = [UploadedFile(path, path.name) for path in (*files, synthetic_data / "manifest.csv")]
    with opened_collection(handed, MULTICLASS) as collection:
        yield collection


@pytest.mark.slow
def test_a_batch_gives_the_figures_of_an_evaluation(
    labelled: Collection, synthetic_data: Path, predictors: dict[str, Predictor], tmp_path: Path
) -> None:
    predictor = predictors["multiclass"]
    batch = Batch(labelled, {"dermadeit": predictor}, 2)
    progress = list(batch.run())
    assert progress[0].done == 0
    assert progress[-1].done == progress[-1].total == len(labelled.images)
    assert progress[-1].images_per_second > 0
    result = batch.result()
    manifest = read_source(synthetic_data / "manifest.csv", MULTICLASS)
    expected = evaluate(manifest, predictor, 2, attributes=describe_images(manifest.rows)).metrics
    metrics = result.evaluation("dermadeit").metrics
    assert metrics | {"excluded": None} == expected | {"excluded": None}
    assert sum(result.excluded.values()) == sum(manifest.excluded.values())
    write_evaluations([result.evaluation("dermadeit")], tmp_path, with_origin=True)
    first = read_csv(tmp_path / "predictions.csv").rows[0]
    assert first["sha256"] == result.items[0].records[0].sha256
    assert first["weights_sha256"] == predictor.checkpoint.weights_sha256
    assert "Not a medical device" in first["disclaimer"]


@pytest.mark.slow
def test_an_evaluation_can_be_had_as_far_as_it_is_measured(
    labelled: Collection, predictors: dict[str, Predictor]
) -> None:
    batch = Batch(labelled, {"dermadeit": predictors["multiclass"]}, 2)
    list(batch.run())
    whole = batch.result().evaluation("dermadeit")
    first, *between, last = batch.result().evaluation_in_steps("dermadeit")
    assert last == whole
    assert first.metrics["confusion_matrix"] == whole.metrics["confusion_matrix"]
    assert "intervals" not in first.metrics
    known = first.metrics
    for step in (*between, last):
        assert step.predictions == whole.predictions
        gone = [name for name, value in known.items() if value and not step.metrics[name]]
        assert gone == []
        known = step.metrics
    assert whole.metrics["slices"].keys() == SLICED_BY.keys()
    assert list(whole.metrics["slices"]) == list(SLICED_BY)


@pytest.mark.slow
def test_a_predictions_table_is_evaluated_without_weights(
    labelled: Collection, predictors: dict[str, Predictor], tmp_path: Path
) -> None:
    batch = Batch(labelled, {"dermadeit": predictors["multiclass"]}, 1)
    list(batch.run())
    before = batch.result().evaluation("dermadeit")
    write_evaluations([before], tmp_path)
    result = read_prediction_table(tmp_path / "predictions.csv", MULTICLASS)
    after = result.evaluation("dermadeit").metrics
    assert after["confusion_matrix"] == before.metrics["confusion_matrix"]
    assert after["intervals"] == before.metrics["intervals"]
    assert (after["weights_sha256"], after["slices"]) == (None, None)
    with pytest.raises(ResultFileError, match="no predictions for the task “binary”"):
        read_prediction_table(tmp_path / "predictions.csv", BINARY)


def _write_table(path: Path, rows: list[tuple[str, str, str, str]], more: str = "") -> Path:
    """Answers as image id, model, views and truth; each says nevus, the surer the fewer its views."""
    header = "image_id,task,model,views,label_true,logit_nevus,logit_others"
    lines = [
        f"{image},binary,{model},{views},{label},{4 / int(views)},0" for image, model, views, label in rows
    ]
    path.write_text("\n".join([header, *lines]) + "\n" + more)
    return path


def test_models_that_were_given_other_truths_are_not_scored_on_the_first_ones(tmp_path: Path) -> None:
    rows = [
        ("1", "a", "1", "nevus"),
        ("2", "a", "1", "nevus"),
        ("1", "b", "1", "nevus"),
        ("2", "b", "1", "others"),
    ]
    table = _write_table(tmp_path / "p.csv", rows)
    with pytest.raises(ResultFileError, match=r"for 1 images, such as 2, .* the labels"):
        read_prediction_table(table, BINARY)
    first, *others = table.read_text().replace("b,1,others", "b,1,nevus").splitlines()
    groups = [f"{line},g{number}" for number, line in enumerate(others)]
    table.write_text("\n".join([f"{first},lesion_group", *groups]))
    with pytest.raises(ResultFileError, match="disagree about the lesion groups"):
        read_prediction_table(table, BINARY)


def test_each_model_has_its_own_most_views_on_the_images_that_all_have_read(tmp_path: Path) -> None:
    rows = [("1", "ours", "8", "nevus"), ("2", "ours", "08", "others"), ("3", "ours", "8", "nevus")]
    rows += [(image, "ours", "1", label) for image, _, _, label in rows]
    rows += [("3", "other", "1", "nevus"), ("2", "other", "1", "others")]
    result = read_prediction_table(_write_table(tmp_path / "p.csv", rows), BINARY)
    assert result.models == ("ours", "other")
    assert result.views == {"ours": 8, "other": 1}
    for model in result.models:
        predictions = result.prediction_set(model)
        assert predictions.image_ids == ("2", "3")
        assert predictions.views == result.views[model] == result.evaluation(model).metrics["views"]
        assert predictions.logits[:, 0].tolist() == [4 / predictions.views] * 2
        assert result.evaluation(model).metrics["accuracy"] == 0.5
    assert [(item.file, item.reason) for item in result.left_out] == [
        ("1", "not every model of the table has read it")
    ]
    assert result.notes == (
        NO_LESION_GROUPS,
        "Left out: the predictions of ours from fewer views (1).",
        "Images left out because not every model has read them: 1.",
    )
    rows = [("1", "a", "1", "nevus"), ("2", "b", "1", "nevus")]
    with pytest.raises(ResultFileError, match="no image in common"):
        read_prediction_table(_write_table(tmp_path / "p.csv", rows), BINARY)


@pytest.mark.slow
def test_what_answers_were_served_with_survives_the_table(
    labelled: Collection, predictors: dict[str, Predictor], tmp_path: Path
) -> None:
    batch = Batch(labelled, {"dermadeit": predictors["multiclass"]}, 2)
    list(batch.run())
    evaluation = batch.result().evaluation("dermadeit")
    served = [
        replace(
            item.prediction,
            calibrated=True,
            verdict=ABSTAIN if index % 3 == 0 else ANSWER,
            abstain_codes=("blur", "dark") if index % 3 == 0 else (),
            warning_codes=("blurred", "out_of_distribution") if index % 3 == 1 else (),
            conformal_set=MULTICLASS.classes[: index % 4],
            ood_score=index / 7,
        )
        for index, item in enumerate(evaluation.predictions)
    ]
    written = replace(
        evaluation,
        predictions=tuple(
            replace(item, prediction=prediction)
            for item, prediction in zip(evaluation.predictions, served, strict=True)
        ),
    )
    write_evaluations([written], tmp_path)
    again = read_prediction_table(tmp_path / "predictions.csv", MULTICLASS).evaluation("dermadeit")
    metrics = again.metrics
    assert metrics["abstention"]["abstained"]["value"] == pytest.approx(
        np.mean([record.verdict == ABSTAIN for record in served])
    )
    assert metrics["abstention"]["warned"]["value"] == pytest.approx(
        np.mean([bool(record.warning_codes) for record in served])
    )
    assert metrics["conformal"]["classes"]["all"]["mean_size"]["value"] == pytest.approx(
        np.mean([len(record.conformal_set) for record in served])
    )
    assert metrics["stability"] == evaluation.metrics["stability"]
    assert metrics["operating_points"] is metrics["calibration"] is None
    write_evaluations([again], tmp_path / "again")
    before, after = (read_csv(folder / "predictions.csv").rows for folder in (tmp_path, tmp_path / "again"))
    names = (
        "calibrated", "verdict", "abstain_codes", "warning_codes", "conformal_set", "ood_score", "flips", "spread",
    )  # fmt: skip
    assert [[row[name] for name in names] for row in after] == [
        [row[name] for name in names] for row in before
    ]


@pytest.mark.slow
def test_the_diagnosis_goes_with_an_answer_into_slices_and_files(
    labelled: Collection, predictors: dict[str, Predictor], synthetic_data: Path, tmp_path: Path
) -> None:
    handed_in = {row["image_id"]: row["diagnosis"] for row in read_csv(synthetic_data / "manifest.csv").rows}
    batch = Batch(labelled, {"dermadeit": predictors["multiclass"]}, 1)
    list(batch.run())
    evaluation = batch.result().evaluation("dermadeit")
    parts = evaluation.metrics["slices"]["diagnosis"]
    assert "melanoma" in parts["slices"] | parts["too_few"]
    write_evaluations([evaluation], tmp_path, with_origin=True)
    rows = read_csv(tmp_path / "predictions.csv").rows
    assert [row["diagnosis"] for row in rows] == [handed_in[row["image_id"]] for row in rows]
    again = read_prediction_table(tmp_path / "predictions.csv", MULTICLASS).evaluation("dermadeit")
    assert again.metrics["slices"]["diagnosis"] == parts
    assert again.metrics["slices"]["sex"]["too_few"] == {}
    assert [item.diagnosis for item in again.predictions] == [row["diagnosis"] for row in rows]


def test_a_table_has_operating_points_where_its_weights_are_at_hand(
    checkpoint_root: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    calibration = calibrated_predictor(checkpoint_root, synthetic_data).checkpoint.calibration
    assert calibration is not None
    table = _write_table(tmp_path / "p.csv", [("1", "a", "8", "nevus"), ("2", "a", "8", "others")])
    first, *others = table.read_text().splitlines()
    table.write_text(
        "\n".join([f"{first},calibrated,weights_sha256", *(f"{row},True,ABC" for row in others)])
    )
    asked = []

    def find(answers: PredictionSet) -> Calibration:
        asked.append(answers.weights_sha256)
        return calibration

    result = read_prediction_table(table, BINARY, "", find)
    metrics = result.evaluation("a").metrics
    assert asked == ["abc"]
    assert metrics["weights_sha256"] == "abc"
    threshold = calibration.operating_point("balanced", 8).threshold
    assert metrics["operating_points"]["balanced"]["threshold"] == threshold
    assert metrics["calibration"]["before"]
    # A number of views that it was not calibrated for has none.
    table.write_text(table.read_text().replace(",a,8,", ",a,16,"))
    assert read_prediction_table(table, BINARY, "", find).evaluation("a").metrics["operating_points"] is None
    # Rows of several weights are of none.
    table.write_text(table.read_text().replace("True,ABC", "True,DEF", 1))
    read_prediction_table(table, BINARY, "", find)
    assert asked[-1] == ""


def test_calibrated_alone_says_nothing_of_what_was_withheld(tmp_path: Path) -> None:
    table = _write_table(tmp_path / "p.csv", [("1", "a", "1", "nevus"), ("2", "a", "1", "others")])
    first, *others = table.read_text().splitlines()
    table.write_text("\n".join([f"{first},calibrated", *(f"{line},True" for line in others)]))
    result = read_prediction_table(table, BINARY)
    assert [record.calibrated for _, record in result.read("a")] == [True, True]
    metrics = result.evaluation("a").metrics
    assert metrics["abstention"] is metrics["conformal"] is metrics["stability"] is None


def test_a_table_is_called_by_its_owners_name(tmp_path: Path) -> None:
    table = _write_table(tmp_path / "0123.csv", [("1", "a", "1", "nevus"), ("1", "a", "1", "nevus")])
    with pytest.raises(ResultFileError, match=r"“mine.csv” has 2 rows for the image “1”"):
        read_prediction_table(table, BINARY, "mine.csv")


def test_cancelling_keeps_what_is_finished(predictors: dict[str, Predictor]) -> None:
    batch = Batch(_synthetic(80, "nevus"), {"dermadeit": predictors["binary"]}, 8)
    steps = batch.run()
    next(steps)
    done = next(steps).done
    batch.cancel()
    assert list(steps) == []
    result = batch.result()
    assert 0 < len(result.items) == done < 80
    assert result.missing == 80 - done
    metrics = result.evaluation("dermadeit").metrics
    assert metrics["n"] == done
    assert metrics["excluded"] == {"cancelled before it was read": 80 - done}


def test_cancelling_keeps_images_of_every_class_in_their_order(predictors: dict[str, Predictor]) -> None:
    nevi, others = _synthetic(40, "nevus").images, _synthetic(12, "others").images
    images = (*nevi, *(replace(image, image_id=f"o{image.image_id}") for image in others))
    batch = Batch(Collection(BINARY, images, ()), {"dermadeit": predictors["binary"]}, 8)
    steps = batch.run()
    while next(steps).done < 16:
        continue
    batch.cancel()
    assert list(steps) == []
    result = batch.result()
    read = [item.image.image_id for item in result.items]
    assert read == [image.image_id for image in images if image.image_id in read]
    labels = [item.image.label for item in result.items]
    assert (labels.count("nevus"), labels.count("others")) == (12, 4)
    assert "accuracy" in result.evaluation("dermadeit").metrics


@pytest.mark.parametrize("counts", [(30, 1), (1, 30), (7, 5, 3), (4, 4)])
def test_every_beginning_of_a_batch_holds_every_class(counts: tuple[int, ...]) -> None:
    labels = [f"class {index}" for index, count in enumerate(counts) for _ in range(count)]
    order = mixed_order(labels)
    assert order == mixed_order(labels)
    assert sorted(order) == list(range(len(labels)))
    for length in range(len(counts), len(labels) + 1):
        beginning = [labels[index] for index in order[:length]]
        for index, count in enumerate(counts):
            share = beginning.count(f"class {index}") - length * count / len(labels)
            assert f"class {index}" in beginning
            assert abs(share) <= len(counts)


def test_without_labels_images_are_read_as_they_come() -> None:
    assert mixed_order([""] * 5) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_no_pixels_are_kept_of_hundreds_of_images(
    predictors: dict[str, Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: WeakSet[LesionImage] = WeakSet()
    decode = CollectedImage.decode

    def remembered(image: CollectedImage) -> LesionImage:
        photo = decode(image)
        alive.add(photo)
        return photo

    monkeypatch.setattr(CollectedImage, "decode", remembered)
    batch = Batch(_synthetic(300), {"dermadeit": predictors["binary"]}, 1, tmp_path)
    most = max(len(alive) for _ in batch.run())
    assert 0 < most <= 16
    items = batch.result().items
    assert len(items) == len({item.thumbnail for item in items}) == 300
    with Image.open(items[0].thumbnail) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert max(thumbnail.size) <= THUMBNAIL_SIDE
    with Image.open(items[0].picture) as picture:
        # Never larger than the photo itself.
        assert picture.size == (90, 70)


def test_a_broken_image_is_a_row_for_every_model(checkpoint_root: Path, lesion_files: list[Path]) -> None:
    broken = Path(lesion_files[0].parent.parent) / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    handed = [UploadedFile(lesion_files[0], "a.jpg"), UploadedFile(broken, "broken.jpg")]
    predictors = {
        name: load_predictor("binary", name, root=checkpoint_root) for name in ("dermadeit", "mobilenetv2")
    }
    with opened_collection(handed, BINARY) as collection:
        batch = Batch(collection, predictors, 1)
        list(batch.run())
    result = batch.result()
    for name in predictors:
        [(item, failure)] = result.failed(name)
        assert item.image.file == "broken.jpg"
        assert failure.model == name
        assert failure.message
        assert len(result.read(name)) == 1
        assert result.evaluation(name).metrics["weights_sha256"] == result.weights[name]
    assert "accuracy" not in result.evaluation("dermadeit").metrics


@pytest.mark.parametrize("task", [BINARY, MULTICLASS])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.21, 0.5, 0.8, 1.0])
def test_decisions_and_figures_agree_with_scikit_learn(task, threshold) -> None:
    rng = np.random.default_rng(3)
    num_classes = len(task.classes)
    labels = rng.integers(num_classes, size=200)
    probabilities = rng.dirichlet(np.ones(num_classes), 200)
    decisions = Decisions(task, labels, probabilities)
    decided = decisions.at(threshold)
    counts, figures = decisions.counts(decided), decisions.figures(decided)
    every = np.arange(num_classes)
    assert (counts == sk.confusion_matrix(labels, decided, labels=every)).all()
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided))
    assert figures["cohen_kappa"] == pytest.approx(sk.cohen_kappa_score(labels, decided))
    target = decisions.target
    is_target, answered = labels == target, decided == target
    if threshold is not None:
        assert (answered == (probabilities[:, target] >= threshold)).all()
        others = np.where(np.arange(num_classes) == target, -1.0, probabilities)
        assert (decided[~answered] == others.argmax(axis=1)[~answered]).all()
    assert figures["sensitivity"] == pytest.approx(sk.recall_score(is_target, answered))
    assert figures["specificity"] == pytest.approx(sk.recall_score(~is_target, ~answered))
    if answered.any():
        assert figures["ppv"] == pytest.approx(sk.precision_score(is_target, answered))
    else:
        assert figures["ppv"] is None
    if not answered.all():
        assert figures["npv"] == pytest.approx(sk.precision_score(~is_target, ~answered))
