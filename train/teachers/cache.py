"""What a teacher says about images, computed once and kept on disk in shards.

A cache folder holds `header.json` (teacher, weights, preprocessing, views) and any number of shards:
`shard-*.npy`, float16 [n, V, D + C] with the embeddings first and the logits behind them, and beside each
`shard-*.json` with the images' ids and hashes. The JSON is written last, so it vouches for the array. Images are
found by id: the cache of a whole split serves every part of it, under any task.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dermadeit.data.dataset import naming_the_image
from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import ConfigurationError, ErrorCode, TrainingError
from dermadeit.files import file_sha256, read_json, write_atomically, write_json
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from train.teachers.networks import Teacher

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
HEADER_FILE = "header.json"

SHARD_IMAGES = 256
"""Images in a shard, the unit of resuming: 25 MB for Derm Foundation in eight views."""

BATCH_IMAGES = 16

_SHOWN = 5


def teacher_cache_folder(root: Path, teacher: Teacher, views: Sequence[int]) -> Path:
    """Where the cache of a teacher lies below `root`: one folder for each version of its weights.

    Args:
        root: Holds the caches of all teachers.
        teacher: Who embeds.
        views: The views that will be asked for. Fewer than all eight have a folder of their own, unless there is
            one with all of them already.
    """
    name = re.sub(r"[^a-z0-9]+", "-", teacher.name.lower()).strip("-")
    folder = root / f"{name}-{hashlib.sha256(teacher.identity.encode()).hexdigest()[:8]}"
    if len(views) == DIHEDRAL_VIEWS or (folder / HEADER_FILE).is_file():
        return folder
    return folder.with_name(f"{folder.name}-views-{'-'.join(map(str, views))}")


def cached_embeddings(
    teacher: Teacher, manifest: Manifest, views: Sequence[int], folder: Path
) -> CachedEmbeddings:
    """Opens what a teacher says about a manifest, computing first what the cache lacks.

    Args:
        teacher: Who embeds. Ask a cross-fitted one only about images that it has not seen (`networks.unseen`).
        manifest: N images.
        views: The V dihedral views of each image, each 0 to 7; a cache that holds more serves too.
        folder: The cache, created when missing.

    Raises:
        ConfigurationError: The folder holds the embeddings of something else, or of images that have changed.
        TableError: An image can't be read.
        TrainingError: An embedding is not finite in float16.
    """
    cache = TeacherCache(teacher, views, folder)
    cache.fill(cache.missing(manifest))
    return cache.open(manifest, views)


class TeacherCache:
    """The cache folder of one teacher.

    Several processes may fill it together: all call `missing` before any calls `fill` with its share.

    Args:
        teacher: Who embeds.
        views: The views that are needed; a new cache gets exactly these.
        folder: Created when missing.
        shard_images: Images in a new shard.

    Raises:
        ConfigurationError: The folder holds the embeddings of something else.
    """

    def __init__(
        self, teacher: Teacher, views: Sequence[int], folder: Path, shard_images: int = SHARD_IMAGES
    ) -> None:
        self.teacher = teacher
        self.folder = folder
        self.shard_images = shard_images
        self.views = self._check_header(tuple(views))

    def missing(self, manifest: Manifest) -> list[tuple[ManifestRow, ...]]:
        """The images that no whole shard holds, in portions of a shard each. Damaged shards are deleted.

        Raises:
            ConfigurationError: An image is not the one that was embedded under its id.
            TableError: An image can't be read.
        """
        self._delete_damaged_shards()
        known = {
            image_id: image_sha256
            for record in self._read_records().values()
            for image_id, image_sha256 in zip(record["image_ids"], record["image_sha256"], strict=True)
        }
        lacking, changed = [], []
        for row in manifest.rows:
            if row.image_id not in known:
                lacking.append(row)
                continue
            with naming_the_image(row):
                if file_sha256(row.path) != known[row.image_id]:
                    changed.append(row.image_id)
        if changed:
            raise ConfigurationError(
                f"{len(changed)} images are not those that the teacher cache “{self.folder.name}” was made from, "
                f"such as {', '.join(changed[:_SHOWN])}. Bring the images back, or delete the cache.",
                code=ErrorCode.CACHE_MISMATCH,
            )
        return [
            tuple(lacking[start : start + self.shard_images])
            for start in range(0, len(lacking), self.shard_images)
        ]

    def fill(
        self,
        portions: Sequence[Sequence[ManifestRow]],
        batch_images: int = BATCH_IMAGES,
        *,
        show_progress: bool = True,
    ) -> None:
        """Embeds images and writes a shard for each portion.

        Args:
            portions: What `missing` returned, or a share of it.
            batch_images: Images in a forward pass, which takes one view of each.
            show_progress: Whether a terminal gets a progress bar.

        Raises:
            TableError: An image can't be read.
            TrainingError: An embedding is not finite in float16.
        """
        total = sum(map(len, portions))
        if not total:
            return
        logger.info("Embedding %d images in %d views with %s", total, len(self.views), self.teacher.identity)
        bar = tqdm(total=total, desc=self.teacher.name, unit="image", disable=None if show_progress else True)
        with bar, ThreadPoolExecutor() as pool:
            for portion in portions:
                values, hashes = [], []
                for rows, images in _decode_ahead(portion, batch_images, pool):
                    values.append(self._embed(rows, images))
                    hashes += [image.sha256 for image in images]
                    bar.update(len(rows))
                self._write_shard([row.image_id for row in portion], hashes, np.concatenate(values))

    def open(self, manifest: Manifest, views: Sequence[int]) -> CachedEmbeddings:
        """Opens the shards for images and views that the cache holds."""
        arrays, place = [], {}
        for path, record in self._read_records().items():
            place |= {image_id: (len(arrays), row) for row, image_id in enumerate(record["image_ids"])}
            arrays.append(np.load(path.with_suffix(".npy"), mmap_mode="r"))
        return CachedEmbeddings(
            arrays,
            np.array([place[row.image_id] for row in manifest.rows], dtype=np.int64).reshape(-1, 2),
            np.array([self.views.index(view) for view in views], dtype=np.int64),
            tuple(views),
            self.teacher.embedding_dim,
        )

    def _check_header(self, views: tuple[int, ...]) -> tuple[int, ...]:
        """Writes the header of a new cache, or compares that of an old one; returns the views that it holds."""
        path = self.folder / HEADER_FILE
        # Through JSON, so that tuples compare as the lists that they come back as.
        header = json.loads(json.dumps(self._describe(views)))
        if not path.is_file():
            if any(self.folder.glob("shard-*")):
                raise self._mismatch(f"it has no {HEADER_FILE}")
            write_json(path, header)
            return views
        try:
            found = read_json(path)
            held = tuple(found["views"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._mismatch(f"its {HEADER_FILE} is damaged") from error
        different = [key for key in header if key != "views" and found.get(key) != header[key]]
        if different:
            raise self._mismatch(f"different: {', '.join(different)}")
        if not set(views) <= set(held):
            lacking = ", ".join(str(view) for view in sorted(set(views) - set(held)))
            raise self._mismatch(f"different: views, it lacks {lacking}")
        return held

    def _describe(self, views: tuple[int, ...]) -> dict[str, Any]:
        return {
            "format": FORMAT_VERSION,
            "teacher": self.teacher.name,
            "identity": self.teacher.identity,
            "preprocessing": dict(self.teacher.preprocessing),
            "views": views,
            "embedding_dim": self.teacher.embedding_dim,
            "classes": self.teacher.classes,
            "dtype": "float16",
        }

    def _mismatch(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"The teacher cache “{self.folder.name}” was made for something else ({reason}). Delete it, or use "
            "another folder for this teacher.",
            code=ErrorCode.CACHE_MISMATCH,
        )

    def _read_records(self) -> dict[Path, dict[str, Any]]:
        """The JSON of every shard, by its path."""
        return {path: read_json(path) for path in sorted(self.folder.glob("shard-*.json"))}

    def _delete_damaged_shards(self) -> None:
        for path in sorted(self.folder.glob("shard-*.json")):
            array = path.with_suffix(".npy")
            try:
                record = read_json(path)
                whole = len(record["image_ids"]) == len(record["image_sha256"])
                if whole and file_sha256(array) == record["array_sha256"]:
                    continue
            except (OSError, ValueError, KeyError, TypeError):
                pass
            logger.warning("The shard %s is damaged; its images are embedded again", path.stem)
            path.unlink(missing_ok=True)
            array.unlink(missing_ok=True)

    def _embed(self, rows: Sequence[ManifestRow], images: Sequence[LesionImage]) -> np.ndarray:
        """Embeddings and logits side by side, float16 [B, V, D + C]."""
        output = self.teacher.embed([image.pixels for image in images], self.views)
        values = (
            output.embeddings
            if output.logits is None
            else np.concatenate([output.embeddings, output.logits], axis=-1)
        )
        assert values.shape[-1] == self.teacher.embedding_dim + len(self.teacher.classes or ())
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        bad = np.array([not np.isfinite(of_image).all() for of_image in stored])
        if bad.any():
            names = ", ".join(row.image_id for row, is_bad in zip(rows, bad.tolist(), strict=True) if is_bad)
            raise TrainingError(
                f"What the teacher {self.teacher.name} says about {names} is not finite in float16 "
                f"(largest value {np.abs(values[bad]).max():.3g}). Take these images out of the manifest, or "
                "choose another teacher.",
                code=ErrorCode.NON_FINITE_EMBEDDING,
            )
        return stored

    def _write_shard(self, image_ids: list[str], hashes: list[str], values: np.ndarray) -> None:
        # Named by its images, so that processes that embed different ones never write the same file.
        name = hashlib.sha256("\n".join(image_ids).encode()).hexdigest()[:16]
        array = io.BytesIO()
        np.save(array, values)
        content = array.getvalue()
        write_atomically(self.folder / f"shard-{name}.npy", lambda partial: partial.write_bytes(content))
        record = {
            "image_ids": image_ids,
            "image_sha256": hashes,
            "array_sha256": hashlib.sha256(content).hexdigest(),
        }
        write_json(self.folder / f"shard-{name}.json", record)


class CachedEmbeddings:
    """What a teacher says about the N images of a manifest in V views, read from disk as it is asked for.

    Attributes:
        embedding_dim: Length of an embedding, D.
        views: The V views, each 0 to 7.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        places: np.ndarray,
        view_columns: np.ndarray,
        views: tuple[int, ...],
        embedding_dim: int,
    ) -> None:
        """Indexes opened shards.

        Args:
            arrays: The shards, each float16 [n, all views, D + C].
            places: int64 [N, 2], the shard of each image and its row in there.
            view_columns: int64 [V], where a shard holds each of `views`.
            views: The views that may be asked for.
            embedding_dim: D.
        """
        self.views = views
        self.embedding_dim = embedding_dim
        self._arrays = arrays
        self._places = places
        self._view_columns = view_columns
        self._column_of_view = np.full(DIHEDRAL_VIEWS, -1)
        self._column_of_view[list(views)] = view_columns
        self._has_logits = any(array.shape[-1] > embedding_dim for array in arrays)

    def __len__(self) -> int:
        return len(self._places)

    def embeddings(self, positions: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Embeddings of B images, each in one view.

        Args:
            positions: int64 [B], positions in the manifest.
            views: int64 [B], which of `self.views` to take of each.

        Returns:
            float32 [B, D].
        """
        return self._look_up(positions, views, slice(None, self.embedding_dim))

    def logits(self, positions: np.ndarray, views: np.ndarray) -> np.ndarray | None:
        """Class logits of B images, each in one view, float32 [B, C]; None where the teacher is no classifier."""
        if not self._has_logits:
            return None
        return self._look_up(positions, views, slice(self.embedding_dim, None))

    def chunks(self, images: int = SHARD_IMAGES) -> Iterator[np.ndarray]:
        """All embeddings in the manifest's order, float32 [n, V, D] with n up to `images` at a time."""
        columns = slice(None, self.embedding_dim)
        for start in range(0, len(self), images):
            yield self._gather(np.arange(start, min(start + images, len(self))), self._view_columns, columns)

    def _look_up(self, positions: np.ndarray, views: np.ndarray, columns: slice) -> np.ndarray:
        view_columns = self._column_of_view[views]
        assert (view_columns >= 0).all(), "a view that the cache was not opened for"
        return self._gather(positions, view_columns[:, None], columns)[:, 0]

    def _gather(self, positions: np.ndarray, view_columns: np.ndarray, columns: slice) -> np.ndarray:
        """Values of B images in W views each (`view_columns`: [B, W] or [W]), float32 [B, W, columns]."""
        view_columns = np.broadcast_to(view_columns, (len(positions), view_columns.shape[-1]))
        shards, rows = self._places[positions].T
        result: np.ndarray | None = None
        for shard in np.unique(shards):
            chosen = shards == shard
            found = self._arrays[shard][rows[chosen, None], view_columns[chosen], columns]
            if result is None:
                result = np.empty((*view_columns.shape, found.shape[-1]), dtype=np.float32)
            result[chosen] = found
        assert result is not None, "no images were asked for"
        return result


def _decode_ahead(
    rows: Sequence[ManifestRow], count: int, pool: Executor
) -> Iterator[tuple[Sequence[ManifestRow], list[LesionImage]]]:
    """Batches of rows with their images; the next batch is decoded while the caller works on this one."""
    batches = [rows[start : start + count] for start in range(0, len(rows), count)]
    upcoming = pool.map(_decode, batches[0])
    for batch, following in zip(batches, [*batches[1:], ()], strict=True):
        images = list(upcoming)
        upcoming = pool.map(_decode, following)
        yield batch, images


def _decode(row: ManifestRow) -> LesionImage:
    with naming_the_image(row):
        return decode_image(row.path)
