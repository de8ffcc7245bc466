"""The teacher's embeddings of a whole manifest, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dermadeit.datasets import naming_the_image
from dermadeit.errors import ConfigurationError
from dermadeit.files import write_atomically, write_json
from dermadeit.imaging import decode_image
from dermadeit.manifest import Manifest
from train.teachers import CheckpointTeacher

logger = logging.getLogger(__name__)

BATCH_IMAGES = 16


def cached_embeddings(
    teacher: CheckpointTeacher, manifest: Manifest, views: Sequence[int], folder: Path
) -> np.ndarray:
    """Reads the embeddings of a manifest from `folder`, computing them first where they are missing.

    The header names the teacher's weights, the images by content, and the views. A cache that was cut off or
    damaged is computed again.

    Args:
        teacher: Who embeds.
        manifest: The N images, in order.
        views: The V dihedral views of each image, each 0 to 7.
        folder: Holds `embeddings.npy` and `header.json`.

    Returns:
        float16 [N, V, D], memory-mapped read-only.

    Raises:
        ConfigurationError: The folder holds the embeddings of something else.
        ManifestError: An image can't be read.
    """
    header = _describe(teacher, manifest, views)
    header_file, array_file = folder / "header.json", folder / "embeddings.npy"
    if header_file.is_file():
        found = json.loads(header_file.read_text(encoding="utf-8"))
        if found != header:
            different = ", ".join(key for key in header if found.get(key) != header[key])
            raise ConfigurationError(
                f"The embedding cache “{folder.name}” was made for something else (different: {different}). "
                "Delete it, or use another output folder.",
                code="cache_mismatch",
            )
    shape = (len(manifest.rows), len(views), teacher.embedding_dim)
    if not (header_file.is_file() and _is_whole(array_file, shape)):
        write_atomically(array_file, partial(_compute, teacher, manifest, views, shape))
        write_json(header_file, header)
    return np.load(array_file, mmap_mode="r")


def _describe(teacher: CheckpointTeacher, manifest: Manifest, views: Sequence[int]) -> dict[str, Any]:
    images_sha256 = hashlib.sha256()
    for row in manifest.rows:
        with naming_the_image(row):
            images_sha256.update(hashlib.sha256(row.path.read_bytes()).digest())
    return {
        "teacher": teacher.identity,
        "images": len(manifest.rows),
        "images_sha256": images_sha256.hexdigest(),
        "views": list(views),
        "dim": teacher.embedding_dim,
    }


def _is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _compute(
    teacher: CheckpointTeacher,
    manifest: Manifest,
    views: Sequence[int],
    shape: tuple[int, int, int],
    path: Path,
) -> None:
    logger.info("Embedding %d images in %d views with %s", shape[0], shape[1], teacher.identity)
    embeddings = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for start in tqdm(range(0, shape[0], BATCH_IMAGES), desc="teacher", unit="batch", disable=None):
        images = []
        for row in manifest.rows[start : start + BATCH_IMAGES]:
            with naming_the_image(row):
                images.append(decode_image(row.path).pixels)
        embeddings[start : start + len(images)] = teacher.embed(images, views)
    embeddings.flush()
