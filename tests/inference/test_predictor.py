"""Predictions: batches, views, failures, threads."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dermadeit
from dermadeit.errors import CheckpointError, ConfigurationError, ModelError, TaskError
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import apply_dihedral
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import ItemFailure, Prediction


def test_is_the_public_entry_point() -> None:
    assert dermadeit.load_predictor is load_predictor


def test_paths_bytes_and_images_get_the_same_answer(
    predictors: dict[str, Predictor], synthetic_data: Path
) -> None:
    path = next((synthetic_data / "images").glob("*.png"))
    with Image.open(path) as image:
        results = predictors["multiclass"].predict([path, str(path), path.read_bytes(), image])
    assert {result.label for result in results} == {results[0].label}
    assert all(result.logits == pytest.approx(results[0].logits, abs=1e-5) for result in results)
    assert list(results[0].probabilities) == ["mel", "bcc", "scc"]
    assert sum(results[0].probabilities.values()) == pytest.approx(1)
    assert results[0].file == path.name


def test_a_bad_file_fails_alone_and_the_order_is_kept(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    sources = [lesion_files[0], b"", b"not an image", "missing.jpg", lesion_files[1]]
    results = predictors["binary"].predict(sources, views=1)
    assert [type(result) for result in results] == [
        Prediction, ItemFailure, ItemFailure, ItemFailure, Prediction,
    ]  # fmt: skip
    assert [result.code for result in results[1:4]] == ["empty_file", "not_an_image", "unreadable_file"]
    assert results[3].file == "missing.jpg"
    assert results[2].sha256 == hashlib.sha256(b"not an image").hexdigest()
    assert results[3].sha256 is None
    alone = predictors["binary"].predict([lesion_files[1]], views=1)[0]
    assert alone.logits == pytest.approx(results[4].logits, abs=1e-5)


def test_many_images_stream_batch_by_batch(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    taken = []

    def sources():
        for index in range(100):
            taken.append(index)
            yield lesion_files[index % len(lesion_files)]

    stream = predictors["binary"].predict_iter(sources(), views=1)
    next(stream)
    assert len(taken) < 50
    assert len(list(stream)) == 99


def test_views_average_the_logits_of_the_dihedral_images(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    predictor = predictors["binary"]
    image = decode_image(lesion_files[0])
    batch = predictor.checkpoint.preprocessing(image.pixels)[None]
    by_hand = torch.stack([predictor.checkpoint.classifier(apply_dihedral(batch, view)) for view in range(4)])
    [result] = predictor.predict([image], views=4)
    assert list(result.logits.values()) == pytest.approx(by_hand.mean(dim=0)[0].tolist(), abs=1e-5)
    assert result.views == 4
    alone = by_hand[:, 0].softmax(dim=1).tolist()
    assert [list(shares) for shares in result.view_probabilities] == [
        pytest.approx(shares, abs=1e-5) for shares in alone
    ]
    assert not result.views_calibrated


def test_a_view_says_what_it_would_say_alone_and_stays_out_of_the_record(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    predictor = predictors["multiclass"]
    [[joint], [alone]] = (predictor.predict(lesion_files[:1], views=views) for views in (8, 1))
    assert joint.view_probabilities[0] == pytest.approx(tuple(alone.probabilities.values()), abs=1e-6)
    assert alone.view_probabilities == (tuple(alone.probabilities.values()),)
    index = list(joint.probabilities).index(joint.label)
    followed = [shares[index] for shares in joint.view_probabilities]
    assert joint.stability.spread == pytest.approx(max(followed) - min(followed))
    assert joint.stability.flips == sum(max(shares) > shares[index] for shares in joint.view_probabilities)
    assert not {"view_probabilities", "views_calibrated"} & joint.to_dict().keys()


def test_all_eight_views_make_the_answer_the_same_for_a_turned_photo(
    predictors: dict[str, Predictor], synthetic_data: Path
) -> None:
    with Image.open(next((synthetic_data / "images").glob("*.png"))) as opened:
        image = opened.convert("RGB").resize((96, 96))
    upright, turned = predictors["binary"].predict([image, image.transpose(Image.Transpose.ROTATE_90)])
    assert turned.logits == pytest.approx(upright.logits, abs=1e-3)


@pytest.mark.parametrize("views", [0, 9, -1])
def test_impossible_view_counts_are_refused(predictors: dict[str, Predictor], views: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 8"):
        predictors["binary"].predict([], views=views)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_no_answer_are_a_failure(
    checkpoint_root: Path, lesion_files: list[Path], value: float
) -> None:
    predictor = load_predictor("binary", root=checkpoint_root)
    with torch.no_grad():
        predictor.checkpoint.classifier.head.bias[0] = value
    [result] = predictor.predict(lesion_files[:1])
    assert isinstance(result, ItemFailure)
    assert result.code == "non_finite_output"
    assert result.sha256


def test_embeddings_that_are_kept_do_not_keep_all_tokens(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    images = [decode_image(path) for path in lesion_files]
    for output in predictors["binary"].outputs(images, views=1):
        for embedding in (output.class_embedding, output.distillation_embedding, output.shallow_embedding):
            owner = embedding
            while not owner.flags.owndata:
                owner = owner.base
                assert isinstance(owner, np.ndarray)
            assert owner.nbytes == len(images) * embedding.nbytes


def test_threads_share_a_predictor(predictors: dict[str, Predictor], lesion_files: list[Path]) -> None:
    expected = [predictors["binary"].predict([path], views=2)[0].logits for path in lesion_files]
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda path: predictors["binary"].predict([path], views=2)[0], lesion_files * 5)
        )
    for index, result in enumerate(results):
        assert result.logits == pytest.approx(expected[index % len(lesion_files)], abs=1e-5)


def test_records_have_the_same_keys_whether_read_or_failed(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    good, bad = (result.to_dict() for result in predictors["binary"].predict([lesion_files[0], b""]))
    assert good.keys() == bad.keys()
    assert (good["status"], good["error"]) == ("ok", None)
    assert bad["status"] == "failed"
    assert bad["error"].keys() == {"code", "message"}


def test_what_does_not_exist_is_said(checkpoint_root: Path) -> None:
    with pytest.raises(TaskError, match="moles"):
        load_predictor("moles", root=checkpoint_root)
    with pytest.raises(CheckpointError, match="malignancy"):
        load_predictor("malignancy", str(checkpoint_root / "binary" / "dermadeit"))
    with pytest.raises(ModelError, match="resnet"):
        load_predictor("binary", model="resnet", root=checkpoint_root)
    with pytest.raises(CheckpointError, match=r"train/distill\.py"):
        load_predictor("binary", model="dinov2", root=checkpoint_root)


def test_many_images_keep_their_order_around_a_bad_one(
    predictors: dict[str, Predictor], lesion_files: list[Path]
) -> None:
    sources: list[Path | bytes] = [lesion_files[index % len(lesion_files)] for index in range(37)]
    sources[20] = b"no image"
    records = list(predictors["binary"].predict_iter(iter(sources), views=1))
    alone = {path: predictors["binary"].predict([path], views=1)[0] for path in lesion_files}
    assert len(records) == 37
    assert isinstance(records[20], ItemFailure)
    for index, record in enumerate(records):
        if index != 20:
            assert record.file == sources[index].name
            assert record.probabilities == pytest.approx(dict(alone[sources[index]].probabilities), abs=1e-5)
