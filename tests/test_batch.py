"""Batches: what is kept of each image, what cancelling leaves, and decisions at any threshold."""

import io
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from dermadeit.batch import THUMBNAIL_SIDE, Batch, read_prediction_table
from dermadeit.collection import Collection, HandedFile, opened_collection
from dermadeit.decisions import Decisions
from dermadeit.errors import ManifestError
from dermadeit.evaluation import evaluate, write_evaluations
from dermadeit.imaging import LesionImage
from dermadeit.labelling import CollectedImage
from dermadeit.manifest import read_source
from dermadeit.predictor import Predictor, load_predictor
from dermadeit.slices import describe_images
from dermadeit.tabular import read_csv
from dermadeit.tasks import get_task

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
    handed = [HandedFile(path, path.name) for path in (*files, synthetic_data / "manifest.csv")]
    with opened_collection(handed, MULTICLASS) as collection:
        yield collection


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
    with pytest.raises(ManifestError, match="no predictions for the task “binary”"):
        read_prediction_table(tmp_path / "predictions.csv", BINARY)


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


def test_a_broken_image_is_a_row_for_every_model(checkpoint_root: Path, lesion_files: list[Path]) -> None:
    broken = Path(lesion_files[0].parent.parent) / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    handed = [HandedFile(lesion_files[0], "a.jpg"), HandedFile(broken, "broken.jpg")]
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
