"""What trainings answered about photos that they did not see: the files that every figure is made from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermadeit.errors import ConfigurationError
from dermadeit.files import write_atomically

IMAGES_FILE = "images.npz"

EXTERNAL = -1
"""In place of a fold: the photo is of other cameras, and no training learns from it."""

_COLUMNS = ("image_ids", "lesions", "sources", "labels", "folds")


@dataclass(frozen=True, eq=False)
class Images:
    """The photos of a cross-validation, and the truth about them.

    Attributes:
        image_ids: str [N].
        lesions: str [N], photos that share one show the same lesion.
        sources: str [N], name of the collection.
        labels: str [N]: one of the classes, or of other cameras what their table says.
        folds: int8 [N], the fold that a photo is held out in, from 0; `EXTERNAL` for other cameras.
    """

    image_ids: np.ndarray
    lesions: np.ndarray
    sources: np.ndarray
    labels: np.ndarray
    folds: np.ndarray

    def keep(self, folder: Path) -> None:
        """Writes them into a folder of answers, whose other answers must be about the same photos.

        Raises:
            ConfigurationError: The folder holds answers about others.
        """
        path = folder / IMAGES_FILE
        if path.is_file():
            there = Images.read(folder)
            if not all(np.array_equal(getattr(there, name), getattr(self, name)) for name in _COLUMNS):
                raise ConfigurationError(
                    f"“{folder}” holds answers about other photos, labels or folds. Choose another --output."
                )
            return
        _write(path, {name: _packed(getattr(self, name)) for name in _COLUMNS})

    @classmethod
    def read(cls, folder: Path) -> Images:
        """Reads what `keep` wrote; raises `ConfigurationError` where there is none."""
        path = folder / IMAGES_FILE
        if not path.is_file():
            raise ConfigurationError(
                f"“{folder}” holds no answers. Run python -m train.cross_validation first."
            )
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{name: _unpacked(stored[name]) for name in _COLUMNS})


@dataclass(frozen=True, eq=False)
class Answers:
    """What one training answered.

    Attributes:
        image_ids: str [N], the photos.
        log_probabilities: float16 [N, K], mean over the views; natural logarithms.
        named_sources: str [N], the source that a linear probe reads from the class token; empty where it was not
            asked.
        about: JSON values: the classes, the settings, the curves, what the training took.
    """

    image_ids: np.ndarray
    log_probabilities: np.ndarray
    named_sources: np.ndarray
    about: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Writes them whole or not at all."""
        _write(
            path,
            {
                "image_ids": _packed(self.image_ids),
                "log_probabilities": self.log_probabilities.astype(np.float16),
                "named_sources": _packed(self.named_sources),
                "about": np.frombuffer(json.dumps(self.about).encode(), dtype=np.uint8),
            },
        )

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Reads what `write` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(
                _unpacked(stored["image_ids"]),
                stored["log_probabilities"],
                _unpacked(stored["named_sources"]),
                json.loads(stored["about"].tobytes()),
            )


def positions(image_ids: np.ndarray, among: Sequence[str] | np.ndarray) -> np.ndarray:
    """Where each of the photos stands among others that hold them all: int64 [N]."""
    place = {image_id: index for index, image_id in enumerate(np.asarray(among).tolist())}
    return np.array([place[image_id] for image_id in image_ids.tolist()], dtype=np.int64)


def _packed(values: np.ndarray) -> np.ndarray:
    # A quarter of the size of Unicode arrays.
    return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


def _unpacked(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(path, lambda partial: partial.write_bytes(buffer.getvalue()))
