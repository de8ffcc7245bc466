"""The cache of teacher embeddings: what it gives back, what it computes again, and what it refuses."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermadeit.data.manifest import Manifest, read_source
from dermadeit.errors import ConfigurationError, TableError, TrainingError
from dermadeit.imaging.decode import decode_image
from dermadeit.tasks import BINARY, DIAGNOSIS
from train.teachers.cache import TeacherCache, cached_embeddings, teacher_cache_folder
from train.teachers.networks import TeacherOutput

VIEWS = (0, 3, 6)
SHARD_IMAGES = 8


@dataclass
class ColourTeacher:
    """Embeds an image as its mean colour and the view; its logits are brightness and ten times the view."""

    name: str = "colour"
    identity: str = "colour@1"
    preprocessing: dict[str, Any] = field(default_factory=lambda: {"size": 1, "mean": [0.0, 0.0]})
    embedding_dim: int = 4
    classes: tuple[str, ...] | None = ("dark", "light")
    folds: int = 0
    held_out_fold: int = 0
    asked: int = 0

    def embed(self, images: Sequence[np.ndarray], views: Sequence[int]) -> TeacherOutput:
        self.asked += len(images)
        embeddings = np.array(
            [[[*mean_colour(image), view] for view in views] for image in images], np.float32
        )
        if self.classes is None:
            return TeacherOutput(embeddings, None)
        logits = np.stack([embeddings[..., :3].mean(axis=-1), 10 * embeddings[..., 3]], axis=-1)
        return TeacherOutput(embeddings, logits)


def mean_colour(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=(0, 1))


@pytest.fixture
def data(synthetic_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic_data, tmp_path / "data"))


@pytest.fixture
def manifest(data: Path) -> Manifest:
    return read_source(data / "manifest.csv", DIAGNOSIS).select("train")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "colour"


def fill(teacher: ColourTeacher, manifest: Manifest, folder: Path) -> None:
    """Makes a cache of several shards."""
    cache = TeacherCache(teacher, VIEWS, folder, SHARD_IMAGES)
    cache.fill(cache.missing(manifest), batch_images=3)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_image_comes_back_in_every_view(manifest: Manifest, folder: Path) -> None:
    fill(ColourTeacher(), manifest, folder)
    assert len(list(folder.glob("*.npy"))) == -(-len(manifest.rows) // SHARD_IMAGES) > 2
    cached = cached_embeddings(ColourTeacher(), manifest, VIEWS, folder)
    assert (len(cached), cached.embedding_dim, cached.views) == (len(manifest.rows), 4, VIEWS)
    positions = np.random.default_rng(0).permutation(len(manifest.rows)).repeat(2)
    views = np.tile([6, 3], len(manifest.rows))
    embeddings, logits = cached.embeddings(positions, views), cached.logits(positions, views)
    assert embeddings.dtype == logits.dtype == np.float32
    colours = np.array([mean_colour(decode_image(manifest.rows[i].path).pixels) for i in positions])
    # Half precision has 11 bits.
    np.testing.assert_allclose(embeddings[:, :3], colours, rtol=2**-11)
    assert embeddings[:, 3].tolist() == views.tolist()
    np.testing.assert_allclose(logits[:, 0], colours.mean(axis=1), rtol=2**-10)
    assert logits[:, 1].tolist() == (10 * views).tolist()


def test_chunks_follow_the_manifest_and_hold_the_asked_views(manifest: Manifest, folder: Path) -> None:
    fill(ColourTeacher(), manifest, folder)
    backwards = replace(manifest, rows=manifest.rows[::-1])
    cached = cached_embeddings(ColourTeacher(), backwards, (6, 0), folder)
    chunks = list(cached.chunks(images=10))
    assert [len(chunk) for chunk in chunks[:-1]] == [10] * (len(chunks) - 1)
    everything = np.concatenate(chunks)
    assert everything.shape == (len(manifest.rows), 2, 4)
    assert everything[:, :, 3].tolist() == [[6, 0]] * len(manifest.rows)
    last = mean_colour(decode_image(manifest.rows[-1].path).pixels)
    np.testing.assert_allclose(everything[0, 0, :3], last, rtol=2**-11)


def test_a_teacher_without_classes_has_no_logits(manifest: Manifest, folder: Path) -> None:
    cached = cached_embeddings(ColourTeacher(classes=None), manifest, (0,), folder)
    assert cached.logits(np.array([0]), np.array([0])) is None
    assert cached.embeddings(np.array([0]), np.array([0])).shape == (1, 4)


def test_the_cache_of_all_diagnoses_serves_each_task_without_asking_again(
    data: Path, manifest: Manifest, folder: Path
) -> None:
    fill(ColourTeacher(), manifest, folder)
    teacher = ColourTeacher()
    binary = read_source(data / "manifest.csv", BINARY).select("train")
    some = replace(binary, rows=binary.rows[5:20:3])
    cached = cached_embeddings(teacher, some, (3,), folder)
    assert teacher.asked == 0
    expected = [mean_colour(decode_image(row.path).pixels) for row in some.rows]
    found = cached.embeddings(np.arange(5), np.full(5, 3))
    np.testing.assert_allclose(found[:, :3], expected, rtol=2**-11)


def test_more_images_add_shards_and_leave_the_old_ones(manifest: Manifest, folder: Path) -> None:
    first = replace(manifest, rows=manifest.rows[::2])
    fill(ColourTeacher(), first, folder)
    before = files(folder)
    teacher = ColourTeacher()
    cached = cached_embeddings(teacher, manifest, VIEWS, folder)
    assert teacher.asked == len(manifest.rows) - len(first.rows)
    assert before.items() < files(folder).items()
    assert (
        cached.embeddings(np.arange(len(manifest.rows)), np.zeros(len(manifest.rows), int)).any(axis=1).all()
    )


def test_a_run_that_was_cut_off_keeps_its_whole_shards(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = ColourTeacher.embed

    def killed(teacher: ColourTeacher, images: Sequence[np.ndarray], views: Sequence[int]) -> TeacherOutput:
        if teacher.asked >= 2 * SHARD_IMAGES + 3:
            raise KeyboardInterrupt
        return embed(teacher, images, views)

    monkeypatch.setattr(ColourTeacher, "embed", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(ColourTeacher(), manifest, folder)
    monkeypatch.undo()
    teacher = ColourTeacher()
    fill(teacher, manifest, folder)
    assert teacher.asked == len(manifest.rows) - 2 * SHARD_IMAGES
    whole = folder.with_name("whole")
    fill(ColourTeacher(), manifest, whole)
    assert files(folder) == files(whole)


def _flip_a_bit(array: Path) -> None:
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda array: array.write_bytes(array.read_bytes()[:-100]),
        _flip_a_bit,
        lambda array: array.unlink(),
        lambda array: array.with_suffix(".json").unlink(),
        lambda array: array.with_suffix(".json").write_text('{"image_ids": ['),
        lambda array: array.with_suffix(".json").write_text("{}"),
    ],
    ids=["truncated", "bit", "no array", "no record", "half a record", "empty record"],
)
def test_a_damaged_shard_is_computed_again(
    manifest: Manifest, folder: Path, damage: Callable[[Path], None]
) -> None:
    fill(ColourTeacher(), manifest, folder)
    before = files(folder)
    damage(min(folder.glob("*.npy")))
    teacher = ColourTeacher()
    fill(teacher, manifest, folder)
    assert 0 < teacher.asked <= SHARD_IMAGES
    assert files(folder) == before


def test_processes_that_share_the_work_make_the_same_cache(manifest: Manifest, folder: Path) -> None:
    fill(ColourTeacher(), manifest, folder)
    shared = folder.with_name("shared")
    caches = [TeacherCache(ColourTeacher(), VIEWS, shared, SHARD_IMAGES) for _ in range(2)]
    shares = [cache.missing(manifest)[rank::2] for rank, cache in enumerate(caches)]
    for cache, share in zip(caches, shares, strict=True):
        cache.fill(share, batch_images=3)
    assert files(shared) == files(folder)


@pytest.mark.parametrize(
    ("other", "views", "different"),
    [
        (ColourTeacher(identity="colour@2"), VIEWS, "different: identity"),
        (ColourTeacher(preprocessing={"size": 2, "mean": [0.0, 0.0]}), VIEWS, "different: preprocessing"),
        (ColourTeacher(classes=None), VIEWS, "different: classes"),
        (ColourTeacher(name="shape", embedding_dim=5), VIEWS, "different: teacher, embedding_dim"),
        (ColourTeacher(), (0, 1, 3, 4), "views, it lacks 1, 4"),
    ],
)
def test_the_embeddings_of_something_else_are_refused(
    manifest: Manifest, folder: Path, other: ColourTeacher, views: tuple[int, ...], different: str
) -> None:
    fill(ColourTeacher(), manifest, folder)
    before = files(folder)
    with pytest.raises(
        ConfigurationError, match=f"“colour” was made for something else.*{different}"
    ) as caught:
        cached_embeddings(other, manifest, views, folder)
    assert caught.value.code == "cache_mismatch"
    assert files(folder) == before


@pytest.mark.parametrize("header", [None, "", "{}", "[]"])
def test_shards_of_unknown_origin_are_refused(manifest: Manifest, folder: Path, header: str | None) -> None:
    fill(ColourTeacher(), manifest, folder)
    if header is None:
        (folder / "header.json").unlink()
    else:
        (folder / "header.json").write_text(header)
    with pytest.raises(ConfigurationError, match=r"header\.json") as caught:
        cached_embeddings(ColourTeacher(), manifest, VIEWS, folder)
    assert caught.value.code == "cache_mismatch"


def test_an_image_that_changed_is_refused_by_name(manifest: Manifest, folder: Path) -> None:
    fill(ColourTeacher(), manifest, folder)
    changed, kept = manifest.rows[3], manifest.rows[4]
    shutil.copy(kept.path, changed.path)
    with pytest.raises(ConfigurationError, match=f"1 images.*{changed.image_id}") as caught:
        cached_embeddings(ColourTeacher(), manifest, VIEWS, folder)
    assert caught.value.code == "cache_mismatch"
    cached_embeddings(ColourTeacher(), replace(manifest, rows=(kept,)), VIEWS, folder)


@pytest.mark.parametrize("known", [False, True])
def test_an_image_that_is_missing_is_named(manifest: Manifest, folder: Path, known: bool) -> None:
    if known:
        fill(ColourTeacher(), manifest, folder)
    manifest.rows[3].path.unlink()
    with pytest.raises(TableError, match=manifest.rows[3].image_id):
        cached_embeddings(ColourTeacher(), manifest, VIEWS, folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, 70000.0])
def test_what_float16_cannot_hold_stops_with_the_image(
    manifest: Manifest, folder: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = ColourTeacher.embed

    def broken(teacher: ColourTeacher, images: Sequence[np.ndarray], views: Sequence[int]) -> TeacherOutput:
        output = embed(teacher, images, views)
        if teacher.asked == 2 * SHARD_IMAGES:
            output.embeddings[-1, 1, 2] = value
        return output

    monkeypatch.setattr(ColourTeacher, "embed", broken)
    cache = TeacherCache(ColourTeacher(), VIEWS, folder, SHARD_IMAGES)
    with pytest.raises(TrainingError, match=rf"about {manifest.rows[15].image_id} is not finite") as caught:
        cache.fill(cache.missing(manifest), batch_images=4)
    assert caught.value.code == "non_finite_embedding"
    assert len(list(folder.glob("*.npy"))) == 1


def test_the_header_says_what_the_cache_holds(manifest: Manifest, folder: Path) -> None:
    fill(ColourTeacher(), manifest, folder)
    assert json.loads((folder / "header.json").read_text()) == {
        "format": 1,
        "teacher": "colour",
        "identity": "colour@1",
        "preprocessing": {"size": 1, "mean": [0.0, 0.0]},
        "views": [0, 3, 6],
        "embedding_dim": 4,
        "classes": ["dark", "light"],
        "dtype": "float16",
    }


def test_each_version_of_a_teacher_has_a_folder_of_its_own(tmp_path: Path) -> None:
    all_views = range(8)
    folder = teacher_cache_folder(tmp_path, ColourTeacher(name="vit-augreg-fold0"), all_views)
    assert folder.parent == tmp_path and folder.name.startswith("vit-augreg-fold0-")
    other = teacher_cache_folder(tmp_path, ColourTeacher(name="vit-augreg-fold0", identity="b"), all_views)
    assert other != folder
    outside = teacher_cache_folder(tmp_path, ColourTeacher(name="../My Model"), all_views)
    assert outside.parent == tmp_path and outside.name.startswith("my-model-")


def test_fewer_views_use_the_cache_of_all_eight_or_one_of_their_own(
    tmp_path: Path, manifest: Manifest
) -> None:
    teacher = ColourTeacher()
    own = teacher_cache_folder(tmp_path, teacher, (0,))
    cached_embeddings(teacher, manifest, (0,), own)
    whole = teacher_cache_folder(tmp_path, teacher, range(8))
    assert whole != own
    cached_embeddings(teacher, manifest, range(8), whole)
    assert teacher_cache_folder(tmp_path, teacher, (0,)) == whole
