"""The teacher's embeddings of a whole manifest, computed once and memory-mapped afterwards."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dermadeit.errors import ConfigurationError
from dermadeit.files import write_json
from dermadeit.imaging import decode_image
from dermadeit.manifest import Manifest
from train.teachers import CheckpointTeacher

logger = logging.getLogger(__name__)

BATCH_IMAGES = 16


def cached_embeddings(teacher: CheckpointTeacher, manifest: Manifest, views: int, folder: Path) -> np.ndarray:
    """Reads the embeddings of a manifest from `folder`, computing them first where they are missing.

    The header names the teacher's weights, the images by content, and the views. A cache that was cut off has no
    header and is computed again.

    Args:
        teacher: Who embeds.
        manifest: The images, in order.
        views: Dihedral views of each image, 1 to 8.
        folder: Holds `embeddings.npy` and `header.json`.

    Returns:
        float16 [N, views, D], memory-mapped read-only.

    Raises:
        ConfigurationError: The folder holds the embeddings of something else.
    """
    header_file, array_file = folder / "header.json", folder / "embeddings.npy"
    images_sha256 = hashlib.sha256()
    for row in manifest.rows:
        images_sha256.update(hashlib.sha256(row.path.read_bytes()).digest())
    header = {
        "teacher": teacher.identity,
        "images": len(manifest.rows),
        "images_sha256": images_sha256.hexdigest(),
        "views": views,
        "dim": teacher.embedding_dim,
    }
    if header_file.is_file():
        found = json.loads(header_file.read_text(encoding="utf-8"))
        if found != header:
            different = ", ".join(key for key in header if found.get(key) != header[key])
            raise ConfigurationError(
                f"The embedding cache “{folder.name}” was made for something else (different: {different}). "
                "Delete it, or use another output folder.",
                code="cache_mismatch",
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _compute(teacher, manifest, views, array_file)
        write_json(header_file, header)
    return np.load(array_file, mmap_mode="r")


def _compute(teacher: CheckpointTeacher, manifest: Manifest, views: int, path: Path) -> None:
    shape = (len(manifest.rows), views, teacher.embedding_dim)
    logger.info("Embedding %d images in %d views with %s", shape[0], views, teacher.identity)
    embeddings = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for start in tqdm(range(0, shape[0], BATCH_IMAGES), desc="teacher", unit="batch", disable=None):
        rows = manifest.rows[start : start + BATCH_IMAGES]
        embeddings[start : start + len(rows)] = teacher.embed(
            [decode_image(row.path).pixels for row in rows], views
        )
    embeddings.flush()
