"""Manifest rows to tensors for training, through the same decoder and resize that serve a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import ErrorCode, ImageError, TableError
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import Preprocessing

PIXEL_CACHE_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Sample:
    """One training example.

    Attributes:
        pixels: uint8 [3, S, S], resized but neither augmented nor normalised; float32 and both from the
            original's pipeline.
        label: Index of the class; -1 where the manifest has no label.
        index: Position in the manifest.
    """

    pixels: torch.Tensor
    label: int
    index: int


class LesionDataset(Dataset):
    """The images of a manifest, each decoded once as long as all of them fit into `cache_bytes`.

    Args:
        manifest: The labelled images.
        preprocessing: Gives the size.
        cache_bytes: Largest pixel cache to allocate, in bytes. 0 suits worker processes, which would each
            fill a cache of their own.
    """

    def __init__(
        self, manifest: Manifest, preprocessing: Preprocessing, cache_bytes: int = PIXEL_CACHE_BYTES
    ) -> None:
        self.manifest = manifest
        self.preprocessing = preprocessing
        self.labels = torch.tensor(
            [manifest.task.index_of(row.label) if row.label else -1 for row in manifest.rows]
        )
        shape = (len(manifest.rows), 3, preprocessing.size, preprocessing.size)
        self._cache: torch.Tensor | None = None
        if torch.Size(shape).numel() <= cache_bytes:
            self._cache = torch.empty(shape, dtype=torch.uint8)
            self._cached = torch.zeros(len(manifest.rows), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._pixels(index), int(self.labels[index]), index)

    def _pixels(self, index: int) -> torch.Tensor:
        if self._cache is not None and self._cached[index]:
            return self._cache[index]
        row = self.manifest.rows[index]
        with naming_the_image(row):
            pixels = self.preprocessing.resize(decode_image(row.path).pixels)
        if self._cache is not None:
            self._cache[index] = pixels
            self._cached[index] = True
        return pixels


@contextmanager
def naming_the_image(row: ManifestRow) -> Iterator[None]:
    """Turns the refusal of an image into a `TableError` that says which row to mend."""
    try:
        yield
    except (ImageError, OSError) as error:
        reason = error.user_message if isinstance(error, ImageError) else "The file can't be read."
        raise TableError(
            f"The training image “{row.file}” can't be used: {reason} Repair it, or delete its row in the "
            f"manifest.",
            code=getattr(error, "code", ErrorCode.UNREADABLE_FILE),
        ) from error


def collate(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples to pixels (uint8 [B, 3, S, S]), labels (int64 [B]) and manifest positions (int64 [B])."""
    return (
        torch.stack([sample.pixels for sample in samples]),
        torch.tensor([sample.label for sample in samples]),
        torch.tensor([sample.index for sample in samples]),
    )
