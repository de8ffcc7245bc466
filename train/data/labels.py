"""Labels that a training is not told, or is told wrongly: what few or bad labels cost is measured with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from dermadeit.data.manifest import Manifest
from dermadeit.errors import ConfigurationError, ErrorCode
from train.data.splitting import assign_splits

UNLABELLED = ""
"""In place of the label of an image that is not told."""


def hide_labels(manifest: Manifest, share: float, seed: int) -> Manifest:
    """Leaves the labels of a share of the lesions, of the same mixture of classes and sources.

    Args:
        manifest: Labelled images.
        share: How many lesions keep their labels, above 0 and below 1.
        seed: Another one leaves those of others.

    Raises:
        ConfigurationError: No lesion of a class would keep its label.
    """
    dealt = assign_splits(
        [row.lesion_group for row in manifest.rows],
        [(row.label, row.source) for row in manifest.rows],
        {"kept": share, "hidden": 1 - share},
        seed,
    )
    rows = tuple(
        row if part == "kept" else replace(row, label=UNLABELLED)
        for row, part in zip(manifest.rows, dealt, strict=True)
    )
    missing = {row.label for row in manifest.rows} - {row.label for row in rows}
    if missing:
        raise ConfigurationError(
            f"With the labels of a share of {share:g} of the lesions, the class {', '.join(sorted(missing))} has "
            "none. Raise --label-share.",
            code=ErrorCode.MISSING_CLASS,
        )
    return replace(manifest, rows=rows)


def confuse_labels(manifest: Manifest, share: float, seed: int) -> Manifest:
    """Gives a share of the lesions a wrong label, each wrong class equally often.

    It depends on the seed and the lesion's name alone, so it is the same in every part of the images.

    Args:
        manifest: Labelled images.
        share: How many lesions get one, 0 to 1.
        seed: Another one chooses others.
    """
    classes = manifest.task.classes
    rows = []
    for row in manifest.rows:
        drawn = hashlib.sha256(f"label noise {seed} {row.lesion_group}".encode()).digest()
        if int.from_bytes(drawn[:8], "big") < share * 2**64:
            further = 1 + int.from_bytes(drawn[8:16], "big") % (len(classes) - 1)
            label = classes[(manifest.task.index_of(row.label) + further) % len(classes)]
            row = replace(row, label=label)
        rows.append(row)
    return replace(manifest, rows=tuple(rows))


def keep_labelled(manifest: Manifest) -> Manifest:
    """The images that have a label."""
    return replace(manifest, rows=tuple(row for row in manifest.rows if row.label != UNLABELLED))
