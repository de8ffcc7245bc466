"""A teacher that has spoken elsewhere: what it said, in a file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import load_file

from dermadeit.errors import ConfigurationError
from dermadeit.files import file_sha256
from dermadeit.tasks import DIAGNOSIS
from train import distill
from train.configuration import DataSettings, TrainingConfiguration
from train.loaders import load_manifest
from train.teachers import file as file_module
from train.teachers.networks import create_teachers
from train.teachers.targets import load_targets

DERM_FOUNDATION = 6144
"""Length of an embedding of Derm Foundation."""


@pytest.fixture
def ids(synthetic_data: Path) -> list[str]:
    manifest = load_manifest(DataSettings(data=str(synthetic_data)))
    return [row.image_id for row in manifest.select("train").rows]


@pytest.fixture
def write_answers(tmp_path: Path, ids: list[str]) -> Callable[..., Path]:
    """Writes log-probabilities of the eight diagnoses for the train split."""

    def write(advantage: float | None = None, **changes) -> Path:
        rng = np.random.default_rng(0)
        arrays = {
            "image_id": np.array(ids),
            "classes": np.array(DIAGNOSIS.classes),
            "log_probabilities": np.log(rng.dirichlet(np.ones(8), len(ids))).astype(np.float16),
        } | changes
        path = tmp_path / "answers.npz"
        np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
        if advantage is not None:
            differences = {name: {"difference": advantage} for name in ("accuracy", "roc_auc")}
            path.with_suffix(".json").write_text(json.dumps({"advantage": {"diagnosis": differences}}))
        return path

    return write


def _configuration(synthetic_data: Path, teacher: str, **settings) -> TrainingConfiguration:
    return TrainingConfiguration.create(
        data=str(synthetic_data), teacher=teacher, task=settings.pop("task", "diagnosis"), **settings
    )


def _load(synthetic_data: Path, teacher: str, **settings):
    configuration = _configuration(synthetic_data, teacher, **settings)
    manifest = load_manifest(configuration.data)
    return load_targets(configuration, manifest.select("train"), torch.device("cpu"), manifest)


def test_log_probabilities_become_the_sums_that_the_students_task_asks_for(
    synthetic_data: Path, write_answers: Callable[..., Path], ids: list[str]
) -> None:
    path = write_answers()
    said = np.exp(np.load(path)["log_probabilities"].astype(float))
    numbers = torch.tensor([3, 0])
    for task, expected in (("diagnosis", said), ("binary", None)):
        targets = _load(synthetic_data, f"file:{path}", task=task, lesion_mean=False)
        found = targets(numbers, torch.zeros(2, dtype=torch.int64)).log_probabilities.exp().numpy()
        if expected is None:
            nevus = said[:, DIAGNOSIS.classes.index("nv")]
            expected = np.stack([nevus, said.sum(axis=1) - nevus], axis=1)
        assert found == pytest.approx(
            expected[numbers] / expected[numbers].sum(axis=1, keepdims=True), abs=2e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_embeddings_of_derm_foundations_size_teach(
    synthetic_data: Path, tmp_path: Path, ids: list[str], suffix: str
) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(ids), DERM_FOUNDATION)).astype(np.float32)
    path = tmp_path / f"derm.{suffix}"
    if suffix == "npz":
        manifest = load_manifest(DataSettings(data=str(synthetic_data)))
        hashes = [file_sha256(row.path) for row in manifest.select("train").rows]
        np.savez(path, sha256=np.array(hashes), embeddings=vectors)
    else:
        # In another order, with the embeddings of an image that is not trained on.
        order = np.random.default_rng(1).permutation(len(ids))
        table = pandas.DataFrame(vectors[order].round(3))
        table.insert(0, "image_id", [ids[number] for number in order])
        pandas.concat([table, table[:1].assign(image_id="elsewhere")]).to_csv(path, index=False)
    settings = {
        "init": "none",
        "image_size": 32,
        "epochs": 1,
        "batch_size": 16,
        "device": "cpu",
        "alpha": 0.1,
    }
    output = tmp_path / "run"
    configuration = _configuration(
        synthetic_data, f"file:{path}", **settings, precision="fp32", output=str(output)
    )
    distill.train(configuration)
    record = json.loads((output / "training.json").read_text())
    assert record["curves"][0]["embedding_loss"] > 0 and record["curves"][0]["logit_loss"] > 0
    assert record["configuration"]["teacher"].startswith(path.name) and str(tmp_path) not in json.dumps(
        record
    )
    targets = _load(synthetic_data, f"file:{path}", alpha=0.1, logit_weight=0.0, target_normalisation="none")
    found = targets(torch.tensor([2]), torch.tensor([5])).embeddings[0].numpy()
    assert found == pytest.approx(vectors[2], abs=1e-3)
    weights = load_file(output / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": None}, "image_id or sha256"),
        ({"log_probabilities": None}, "log_probabilities or embeddings"),
        ({"classes": None}, "no classes"),
        ({"classes": np.array(["mel", "nv"])}, "names 2 classes but has 8"),
        ({"log_probabilities": np.zeros((3, 8))}, r"numbers of the shape \[3, 8\]"),
        ({"image_id": np.array(["a"]), "log_probabilities": np.zeros((1, 8))}, "none of the .* such as a"),
        ({"classes": np.array([f"other{number}" for number in range(8)])}, "do not cover"),
        ({"image_id": np.array([{"a": 1}], dtype=object)}, "plain numpy arrays"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_is_wrong(
    synthetic_data: Path, write_answers: Callable[..., Path], changes: dict, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _load(synthetic_data, f"file:{write_answers(**changes)}")


def test_missing_images_and_numbers_that_are_not_finite_are_named(
    synthetic_data: Path, write_answers: Callable[..., Path], ids: list[str]
) -> None:
    answers = np.zeros((len(ids), 8))
    answers[4, 2] = np.nan
    with pytest.raises(ConfigurationError, match=f"not finite, such as {ids[4]}"):
        _load(synthetic_data, f"file:{write_answers(log_probabilities=answers)}")
    short = write_answers(image_id=np.array(ids[1:]), log_probabilities=np.zeros((len(ids) - 1, 8)))
    with pytest.raises(ConfigurationError, match=f"lacks 1 of the {len(ids)} images.* such as {ids[0]}"):
        _load(synthetic_data, f"file:{short}")
    with pytest.raises(ConfigurationError, match="no embeddings"):
        _load(synthetic_data, f"file:{write_answers()}", alpha=0.1)
    with pytest.raises(ConfigurationError, match="There is no file"):
        _load(synthetic_data, "file:nowhere.npz")


def test_answers_for_images_that_are_kept_back_are_refused(
    synthetic_data: Path, write_answers: Callable[..., Path], ids: list[str]
) -> None:
    kept_back = load_manifest(DataSettings(data=str(synthetic_data))).select("test").rows[0].image_id
    path = write_answers(image_id=np.array([*ids, kept_back]), log_probabilities=np.zeros((len(ids) + 1, 8)))
    with pytest.raises(ConfigurationError, match=f"another split.*{kept_back}"):
        _load(synthetic_data, f"file:{path}")


@pytest.mark.parametrize(("advantage", "refused"), [(0.004, True), (0.006, False), (None, False)])
def test_no_student_learns_from_a_teacher_that_is_not_ahead(
    synthetic_data: Path,
    write_answers: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    advantage: float | None,
    refused: bool,
) -> None:
    teacher = f"file:{write_answers(advantage)}"
    if not refused:
        assert _load(synthetic_data, teacher) is not None
        assert ("Nobody has measured" in caplog.text) == (advantage is None)
        return
    with pytest.raises(ConfigurationError, match="allow-weak-teacher") as caught:
        _load(synthetic_data, teacher)
    assert "+0.0040 in accuracy" in caught.value.user_message and caught.value.code == "weak_teacher"
    assert _load(synthetic_data, teacher, allow_weak_teacher=True) is not None
    assert "used all the same" in caplog.text


def test_filed_is_the_file_of_the_project(
    synthetic_data: Path, write_answers: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(file_module, "FILED_PATH", write_answers())
    assert _load(synthetic_data, "filed").num_logits == 8
    monkeypatch.setattr(file_module, "FILED_PATH", tmp_path / "not-there.npz")
    with pytest.raises(ConfigurationError, match="No teacher is filed"):
        _load(synthetic_data, "filed")


def test_a_file_can_not_be_asked_about_other_images() -> None:
    with pytest.raises(ConfigurationError, match="only for the images that are in it"):
        create_teachers("filed", torch.device("cpu"))
