"""Folds of the train split for cross-fitting: no teacher answers for an image whose label it was trained on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from dermadeit.data.manifest import Manifest


def fold_of(lesion_group: str, folds: int) -> int:
    """The fold of a lesion, 0 to `folds` - 1: by its name alone, so it is the same in every manifest."""
    return int.from_bytes(hashlib.sha256(lesion_group.encode()).digest()[:8], "big") % folds


def leave_out_fold(manifest: Manifest, folds: int, held_out: int) -> Manifest:
    """The images of all folds but one; all images with `folds` 0."""
    if not folds:
        return manifest
    rows = tuple(row for row in manifest.rows if fold_of(row.lesion_group, folds) != held_out)
    return replace(manifest, rows=rows)
