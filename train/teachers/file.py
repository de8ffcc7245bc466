"""What a teacher has said elsewhere, in a file: `--teacher file:PATH`, or `filed` for the one of this project.

A file is a table (.csv, .parquet) or an .npz with the images' `image_id` or `sha256` and a row of numbers for
each: log-probabilities of classes, or an embedding. In an .npz the numbers are the array `log_probabilities`, with
`classes` beside it, or `embeddings`. In a table they are all further columns; if these are named after classes,
they are log-probabilities. A JSON of the same name beside it says who the teacher is and how good it was found.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from dermadeit.data.manifest import Manifest
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.files import ASSETS, file_sha256, read_json_if_there, write_atomically
from dermadeit.metrics.classification import FIGURE_NAMES
from dermadeit.tasks import DIAGNOSES
from train.configuration import FILE_PREFIX, FILED
from train.teachers.cache import CachedEmbeddings

logger = logging.getLogger(__name__)

FILED_PATH = ASSETS / "benchmark" / "teacher" / "log_probabilities.npz"

LEAST_ADVANTAGE = {"accuracy": 0.01, "roc_auc": 0.005}
"""What a teacher must be ahead of a plain student by, in one of these, to be worth learning from."""

_KEYS = ("image_id", "sha256")
_SHOWN = 3


@dataclass(frozen=True)
class TeacherFile:
    """Vectors of N images.

    Attributes:
        path: Where they lie.
        key: What names the images, `image_id` or `sha256`.
        names: The N names.
        vectors: float32 [N, D], all finite.
        classes: The D class keys of log-probabilities; None for embeddings.
        description: The JSON beside the file; empty without one.
    """

    path: Path
    key: str
    names: tuple[str, ...]
    vectors: np.ndarray
    classes: tuple[str, ...] | None
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Names the exact content."""
        return f"{self.path.name}@sha256:{file_sha256(self.path)}"

    def missing(self, manifest: Manifest) -> list[str]:
        """The ids of a manifest's images that the file says nothing about."""
        known = set(self.names)
        return [
            row.image_id
            for row, name in zip(manifest.rows, self._names_of(manifest), strict=True)
            if name not in known
        ]

    def outside(self, manifest: Manifest) -> list[str]:
        """The ids of images that are not trained on, but whose lesions the teacher's networks were trained on."""
        if self.classes is None:
            return []
        known, others = set(self.names), [row for row in manifest.rows if row.split not in ("train", "")]
        names = self._names_of(replace(manifest, rows=tuple(others)))
        return [row.image_id for row, name in zip(others, names, strict=True) if name in known]

    def open(self, manifest: Manifest, views: Sequence[int]) -> CachedEmbeddings:
        """The vectors of a manifest's images, the same in every view.

        Raises:
            ConfigurationError: The file lacks some of the images.
        """
        if missing := self.missing(manifest):
            if len(missing) == len(manifest.rows):
                told = (
                    f"has none of the {len(missing)} images that are trained on; its {self.key} are such as "
                    f"{', '.join(self.names[:_SHOWN])}. Use the file that was made for these data, or another "
                    "teacher, such as --teacher auto, or train without one: --recipe plain."
                )
            else:
                told = (
                    f"lacks {len(missing)} of the {len(manifest.rows)} images that are trained on, such as "
                    f"{', '.join(missing[:_SHOWN])}. Add them, or take them out of the manifest."
                )
            raise ConfigurationError(f"“{self.path.name}” {told}", code=ErrorCode.TEACHER_UNREADABLE)
        place = {name: number for number, name in enumerate(self.names)}
        wanted = [place[name] for name in self._names_of(manifest)]
        if unknown := len(place) - len(set(wanted)):
            logger.info("%s has %d images that are not trained on", self.path.name, unknown)
        return CachedEmbeddings(
            [self.vectors[:, None]],
            np.stack([np.zeros(len(wanted), np.int64), np.array(wanted, np.int64)], axis=1),
            np.zeros(len(views), np.int64),
            tuple(views),
            0 if self.classes else self.vectors.shape[1],
        )

    def _names_of(self, manifest: Manifest) -> list[str]:
        if self.key == "image_id":
            return [row.image_id for row in manifest.rows]
        contents = (row.content() for row in manifest.rows)
        return [
            hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_sha256(content)
            for content in contents
        ]


def write_log_probabilities(
    path: Path, image_ids: Sequence[str], classes: Sequence[str], log_probabilities: np.ndarray
) -> None:
    """Writes what a teacher says, for `read_teacher_file`, whole or not at all.

    Args:
        path: An .npz file; its folder is made.
        image_ids: N images.
        classes: K class keys.
        log_probabilities: float [N, K]; kept in half precision.
    """

    def write(partial: Path) -> None:
        # Through a file: numpy adds a suffix to a path.
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                image_id=np.array(image_ids),
                classes=np.array(classes),
                log_probabilities=log_probabilities.astype(np.float16),
            )

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def mean_log_probabilities(paths: Sequence[Path], classes: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """What several networks say together: of each image the mean of those that speak of it.

    Args:
        paths: Files that `write_log_probabilities` has written, of the same classes.
        classes: The K class keys.

    Returns:
        N image ids, and log-probabilities, float32 [N, K].
    """
    files = [read_teacher_file(f"{FILE_PREFIX}{path}", classes) for path in paths]
    assert all(file.classes == tuple(classes) for file in files), "networks of one plan have the same classes"
    names = sorted({name for file in files for name in file.names})
    place = {name: number for number, name in enumerate(names)}
    sums, counts = np.zeros((len(names), len(classes))), np.zeros((len(names), 1))
    for file in files:
        places = [place[name] for name in file.names]
        sums[places] += file.vectors
        counts[places] += 1
    return names, log_softmax(sums / counts, axis=1).astype(np.float32)


def read_teacher_file(name: str, classes: Sequence[str]) -> TeacherFile:
    """Opens the file that `--teacher` names.

    Args:
        name: `filed`, or `file:PATH`.
        classes: Of the student; a table's columns may be named after them.

    Raises:
        ConfigurationError: The file is missing or can't be read, or its numbers don't fit its images.
    """
    path = FILED_PATH if name == FILED else Path(name.removeprefix(FILE_PREFIX))
    if not path.is_file():
        raise ConfigurationError(
            "No teacher is filed in this copy of the project. Name another with --teacher."
            if name == FILED
            else f"There is no file “{path}” with what the teacher says.",
            code=ErrorCode.NO_TEACHER,
        )
    known = {*classes, *(key.lower() for key in DIAGNOSES)}
    key, names, vectors, of_file = _read_arrays(path) if path.suffix == ".npz" else _read_table(path, known)
    names = tuple(str(value) for value in names)
    if vectors.ndim != 2 or len(vectors) != len(names) or not vectors.size:
        raise _unreadable(path, f"it has {len(names)} images but numbers of the shape {list(vectors.shape)}")
    if of_file and len(of_file) != vectors.shape[1]:
        raise _unreadable(
            path, f"it names {len(of_file)} classes but has {vectors.shape[1]} numbers an image"
        )
    if len(set(names)) < len(names):
        raise _unreadable(path, f"it has {len(names) - len(set(names))} images twice")
    bad = [name for name, row in zip(names, vectors, strict=True) if not np.isfinite(row).all()]
    if bad:
        shown = ", ".join(bad[:_SHOWN])
        raise _unreadable(path, f"{len(bad)} images have numbers that are not finite, such as {shown}")
    description = read_json_if_there(path.with_suffix(".json"))
    return TeacherFile(path, key, names, vectors.astype(np.float32), of_file, description)


def require_advantage(description: Mapping[str, Any], task: str, *, allow_weak: bool) -> None:
    """Refuses a teacher that is not known to be better than training without one.

    Args:
        description: The JSON beside its file; nothing is asked of a teacher without figures, but it is said.
        task: Key of the student's task; without figures of that, those of all diagnoses decide.
        allow_weak: Go on all the same.

    Raises:
        ConfigurationError: Its advantage is too small.
    """
    advantages = description.get("advantage", {})
    found = advantages.get(task) or advantages.get("diagnosis") or {}
    if not any(name in found for name in LEAST_ADVANTAGE):
        logger.warning(
            "Nobody has measured whether this teacher is better than a plain training. A student learns little "
            "from a teacher that is not. `python -m train.file_teacher` measures one."
        )
        return
    differences = {name: found[name]["difference"] for name in LEAST_ADVANTAGE if name in found}
    if any(difference >= LEAST_ADVANTAGE[name] for name, difference in differences.items()):
        return
    told = "On held-out lesions this teacher is ahead of a plain training by " + " and ".join(
        f"{difference:+.4f} in {FIGURE_NAMES[name]}" for name, difference in differences.items()
    )
    if allow_weak:
        logger.warning("%s. It is used all the same.", told)
        return
    raise ConfigurationError(
        f"{told}. A student needs a teacher that is ahead by {LEAST_ADVANTAGE['accuracy']} in accuracy or "
        f"{LEAST_ADVANTAGE['roc_auc']} in AUROC. Train with --teacher none, or use --allow-weak-teacher.",
        code=ErrorCode.WEAK_TEACHER,
    )


def _read_arrays(path: Path) -> tuple[str, Sequence[Any], np.ndarray, tuple[str, ...] | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, "it is no archive of plain numpy arrays") from error
    key = next((name for name in _KEYS if name in arrays), None)
    kind = next((name for name in ("log_probabilities", "embeddings") if name in arrays), None)
    if key is None or kind is None:
        raise _unreadable(
            path, f"it holds {', '.join(arrays)}, not image_id or sha256 and log_probabilities or embeddings"
        )
    if kind == "embeddings":
        return key, arrays[key].ravel(), arrays[kind], None
    if "classes" not in arrays:
        raise _unreadable(path, "its log_probabilities have no classes beside them")
    return key, arrays[key].ravel(), arrays[kind], tuple(map(str, arrays["classes"]))


def _read_table(path: Path, known: set[str]) -> tuple[str, Sequence[Any], np.ndarray, tuple[str, ...] | None]:
    import pandas

    try:
        read = pandas.read_parquet if path.suffix == ".parquet" else pandas.read_csv
        table = read(path)
        key = next((name for name in _KEYS if name in table.columns), None)
        if key is None:
            raise _unreadable(path, "it has no column image_id or sha256")
        names = table.pop(key).astype(str).tolist()
        vectors = table.to_numpy(dtype=np.float32)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise _unreadable(path, f"it is no table of numbers ({error})") from error
    columns = tuple(str(name).lower().removeprefix("log_probability_") for name in table.columns)
    return key, names, vectors, columns if set(columns) <= known else None


def _unreadable(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"“{path.name}” can't be used as a teacher: {reason}.", code=ErrorCode.TEACHER_UNREADABLE
    )
