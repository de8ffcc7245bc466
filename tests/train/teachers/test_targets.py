"""What the distillation token is compared with: the right image, view, fold and classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import ConfigurationError
from dermadeit.tasks import BINARY, DIAGNOSIS, MULTICLASS, Task
from train.configuration import TrainingConfiguration
from train.data.splitting import fold_of, leave_out_fold
from train.teachers import targets as targets_module
from train.teachers.networks import TeacherOutput
from train.teachers.targets import create_head, lesion_means, load_targets

VIEWS = 2
NUMBER_OF_ROWS = 60


class FakeTeacher:
    """Embeds the brightness of an image: 10 times its number, plus the view, in the first dimension."""

    embedding_dim = 3

    def __init__(self, name: str, folds: int = 0, held_out_fold: int = 0, task: Task | None = None) -> None:
        self.name, self.identity = name, f"{name}@1"
        self.preprocessing: dict = {}
        self.folds, self.held_out_fold = folds, held_out_fold
        self.classes = task.classes if task else None

    def embed(self, images: list[np.ndarray], views: list[int]) -> TeacherOutput:
        embeddings = np.zeros((len(images), len(views), 3), np.float32)
        for index, image in enumerate(images):
            embeddings[index, :, 0] = 10 * float(image[0, 0, 0]) + np.array(views)
            embeddings[index, :, 1] = self.held_out_fold
        logits = np.zeros((len(images), len(views), len(self.classes or ())), np.float32)
        if self.classes:
            logits[..., 0] = np.log(len(self.classes))
        return TeacherOutput(embeddings, logits if self.classes else None)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Images whose pixels are their number, of 20 lesions."""
    from PIL import Image

    rows = []
    for number in range(NUMBER_OF_ROWS):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64), (number, number, number)).save(path)
        label = BINARY.classes[number % 2]
        rows.append(ManifestRow(str(number), path.name, path, label, "train", f"L{number // 3}", ""))
    return Manifest(BINARY, tuple(rows), ())


def _targets(manifest: Manifest, teachers: list, tmp_path: Path, monkeypatch, **settings):
    monkeypatch.setattr(targets_module, "create_teachers", lambda *_: tuple(teachers))
    settings = {
        "quarter_turns": False, "target_normalisation": "none", "alpha": 0.5, "logit_weight": 0.0,
        "lesion_mean": False,
    } | settings  # fmt: skip
    configuration = TrainingConfiguration.create(
        teacher="fake", teacher_cache=str(tmp_path / "cache"), **settings
    )
    return load_targets(configuration, manifest, torch.device("cpu"))


def test_a_target_is_of_the_very_image_and_view(manifest: Manifest, tmp_path: Path, monkeypatch) -> None:
    targets = _targets(manifest, [FakeTeacher("fake")], tmp_path, monkeypatch)
    batch = targets(torch.tensor([7, 7, 30]), torch.tensor([0, 4, 4]))
    assert batch.embeddings[:, 0].tolist() == [70, 74, 304]
    assert batch.spaces.tolist() == [0, 0, 0]
    assert batch.log_probabilities is None


def test_folds_answer_only_for_lesions_they_did_not_see(
    manifest: Manifest, tmp_path: Path, monkeypatch
) -> None:
    teachers = [FakeTeacher(f"{net}-fold{fold}", 3, fold) for net in "ab" for fold in range(3)]
    targets = _targets(manifest, teachers, tmp_path, monkeypatch)
    assert (targets.spaces, targets.dim) == (3, 6)
    batch = targets(torch.arange(NUMBER_OF_ROWS), torch.zeros(NUMBER_OF_ROWS, dtype=torch.int64))
    held_out = [fold_of(row.lesion_group, 3) for row in manifest.rows]
    assert batch.embeddings[:, 1].tolist() == batch.embeddings[:, 4].tolist() == held_out
    assert batch.spaces.tolist() == held_out
    assert batch.embeddings[:, 0].tolist() == [10 * number for number in range(NUMBER_OF_ROWS)]
    for fold in range(3):
        seen = leave_out_fold(manifest, 3, fold).rows
        assert not {row.lesion_group for row in seen} & {
            f"L{n}" for n in range(20) if fold_of(f"L{n}", 3) == fold
        }


@pytest.mark.parametrize("folds", [[0, 1], [0, 0, 1, 2]])
def test_a_missing_fold_is_refused(manifest: Manifest, tmp_path: Path, monkeypatch, folds: list[int]) -> None:
    teachers = [FakeTeacher(f"a{number}", 3, fold) for number, fold in enumerate(folds)]
    with pytest.raises(ConfigurationError, match="fold 0 of 3"):
        _targets(manifest, teachers, tmp_path, monkeypatch)


def test_standardised_targets_have_no_mean_and_unit_deviation(
    manifest: Manifest, tmp_path: Path, monkeypatch
) -> None:
    teacher = FakeTeacher("fake")
    targets = _targets(manifest, [teacher], tmp_path, monkeypatch, target_normalisation="standardise")
    everything = targets(
        torch.arange(NUMBER_OF_ROWS), torch.zeros(NUMBER_OF_ROWS, dtype=torch.int64)
    ).embeddings
    # Two of the three dimensions never vary, and become zero.
    torch.testing.assert_close(everything.mean(dim=0), torch.zeros(3), atol=0.02, rtol=0)
    assert everything[:, 0].std(correction=0).item() == pytest.approx(1, abs=0.01)


def test_soft_logits_of_eight_diagnoses_become_the_students_classes(
    manifest: Manifest, tmp_path: Path, monkeypatch
) -> None:
    # Melanoma at 8/15, every other diagnosis at 1/15.
    teacher = FakeTeacher("fake", task=DIAGNOSIS)
    batch = _targets(manifest, [teacher], tmp_path, monkeypatch, logit_weight=1.0)(
        torch.tensor([3]), torch.tensor([4])
    )
    assert batch.log_probabilities.exp()[0].tolist() == pytest.approx([1 / 15, 14 / 15], abs=1e-4)
    rows = tuple(replace(row, label="mel") for row in manifest.rows)
    students = Manifest(MULTICLASS, rows, ())
    batch = _targets(students, [teacher], tmp_path, monkeypatch, logit_weight=1.0)(
        torch.tensor([3]), torch.tensor([4])
    )
    assert batch.log_probabilities.exp()[0].tolist() == pytest.approx([0.8, 0.1, 0.1], abs=1e-4)


def test_a_teacher_of_another_task_is_refused(manifest: Manifest, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigurationError, match="mel, bcc, scc"):
        _targets(manifest, [FakeTeacher("fake", task=MULTICLASS)], tmp_path, monkeypatch, logit_weight=1.0)


class NoiseTeacher(FakeTeacher):
    """Embeds every image as noise of its own: whoever has seen it can tell it again, and nothing else."""

    embedding_dim = 300

    def embed(self, images: list[np.ndarray], views: list[int]) -> TeacherOutput:
        embeddings = [
            np.random.default_rng(int(image[0, 0, 0])).normal(size=(len(views), self.embedding_dim))
            for image in images
        ]
        return TeacherOutput(np.stack(embeddings).astype(np.float32), None)


def test_embeddings_alone_get_a_head_that_has_not_seen_the_lesion(
    manifest: Manifest, tmp_path: Path, monkeypatch
) -> None:
    targets = _targets(manifest, [NoiseTeacher("fake")], tmp_path, monkeypatch, logit_weight=1.0)
    batch = targets(torch.arange(NUMBER_OF_ROWS), torch.zeros(NUMBER_OF_ROWS, dtype=torch.int64))
    probabilities = batch.log_probabilities.exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(NUMBER_OF_ROWS), atol=1e-3, rtol=0)
    labels = np.arange(NUMBER_OF_ROWS) % 2
    agreement = (probabilities.argmax(dim=1).numpy() == labels).mean()
    # A head that had seen these images would be right for all of them.
    embeddings = batch.embeddings.numpy()
    assert (create_head(NUMBER_OF_ROWS, 300).fit(embeddings, labels).predict(embeddings) == labels).all()
    assert agreement < 0.8


def test_all_photos_and_views_of_a_lesion_have_the_same_target() -> None:
    # A lesion of two photos and one of a single photo, in two views.
    said = np.log(np.array([[[0.9, 0.1], [0.8, 0.2]], [[0.5, 0.5], [0.4, 0.6]], [[0.3, 0.7], [0.3, 0.7]]]))
    found = np.exp(lesion_means(said, ["a", "a", "b"]))
    odds = (9 * 4 * 1 * 4 / 6) ** (1 / 4)
    assert found[0].tolist() == found[1].tolist() == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])
    assert found[2].tolist() == pytest.approx([0.3, 0.7])


def test_the_lesion_mean_is_a_setting(manifest: Manifest, tmp_path: Path, monkeypatch) -> None:
    class Brightness(FakeTeacher):
        def embed(self, images: list[np.ndarray], views: list[int]) -> TeacherOutput:
            output = super().embed(images, views)
            output.logits[..., 1] = output.embeddings[..., 0] / 100
            return output

    photos, views = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 4, 0, 0])
    teacher = Brightness("bright", task=BINARY)
    means, own = (
        _targets(manifest, [teacher], tmp_path, monkeypatch, logit_weight=1.0, lesion_mean=lesion_mean)(
            photos, views
        ).log_probabilities
        for lesion_mean in (True, False)
    )
    assert torch.equal(means[0], means[1]) and torch.equal(means[0], means[2])
    assert not torch.equal(means[0], means[3])
    assert len(torch.unique(own[:3], dim=0)) == 3
