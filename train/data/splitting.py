"""Lesion groups, and splits and folds that keep each of them together."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dermadeit.data.manifest import Manifest
from dermadeit.data.vocabulary import Vocabulary
from dermadeit.errors import TableError
from dermadeit.tasks import Task

_STRICTEST_FIRST = ("test", "calibration", "validation")
"""Where a lesion is given to several splits, its images stay in the one that is used last."""


DEFAULT_SHARES: Mapping[str, float] = MappingProxyType(
    {"train": 0.70, "validation": 0.07, "calibration": 0.07, "test": 0.16}
)
"""Split to share of the images, where nobody says otherwise."""

NEEDED_SPLITS = ("train", "validation")
"""The splits in which a training needs every class."""

_SHARE_STEPS = 20

_SEEDS = 5


def lesion_groups(image_ids: Sequence[str], lesion_ids: Sequence[str], pairs: np.ndarray) -> list[str]:
    """Joins the images of a lesion, and images that are copies of each other, over any number of steps.

    Args:
        image_ids: Names of N images.
        lesion_ids: The lesion that each shows; an empty string where it is unknown.
        pairs: int64 [P, 2], positions of copies.

    Returns:
        A name for each image's group: the smallest name of its images.
    """
    first_of_lesion: dict[str, int] = {}
    edges = [(int(first), int(second)) for first, second in pairs]
    for index, lesion in enumerate(lesion_ids):
        if lesion:
            edges.append((first_of_lesion.setdefault(lesion, index), index))
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(image_ids), len(image_ids)))
    _, components = connected_components(graph, directed=False)
    smallest: dict[int, str] = {}
    for image_id, component in zip(image_ids, components.tolist(), strict=True):
        smallest[component] = min(image_id, smallest.get(component, image_id))
    return [smallest[component] for component in components.tolist()]


def assign_splits(
    groups: Sequence[str], strata: Sequence[tuple[str, ...]], shares: Mapping[str, float], seed: int
) -> list[str]:
    """Splits images so that each stratum is shared out in the given proportions and no group is torn apart.

    scikit-learn's StratifiedGroupKFold makes folds of one size; these have several. The groups are handed out
    one by one to the split that is furthest behind, counted in images, over all levels of the stratum together:
    strata of a few lesions then still add up to the right proportions. The order depends on the seed and the
    groups' names alone.

    Args:
        groups: Group of each of N images.
        strata: Stratum of each image from coarse to fine, such as diagnosis and source. A group counts for its
            commonest one.
        shares: Split to share. Any scale; none negative, one above 0.
        seed: Another one gives another split.

    Returns:
        The split of each image.
    """
    sizes = Counter(groups)
    strata_of_group: dict[str, Counter] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        strata_of_group[group][stratum] += 1
    whole = sum(shares.values())
    handed_out: dict[tuple[str, ...], Counter] = defaultdict(Counter)
    split_of_group = {}
    for group in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()):
        # By count, then by name, so that the order of the images does not matter.
        stratum = max(sorted(strata_of_group[group]), key=strata_of_group[group].__getitem__)
        levels = [handed_out[stratum[:depth]] for depth in range(len(stratum) + 1)]
        # One image, not the group's size, or large groups would gather in the large splits.
        due = sum(level.total() + 1 for level in levels) / whole
        behind = {
            split: share * due - sum(level[split] for level in levels) for split, share in shares.items()
        }
        split_of_group[group] = max(behind, key=behind.__getitem__)
        for level in levels:
            level[split_of_group[group]] += sizes[group]
    return [split_of_group[group] for group in groups]


def complete_splits(
    groups: Sequence[str],
    strata: Sequence[tuple[str, ...]],
    given: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
) -> tuple[list[str], dict[int, str]]:
    """Keeps splits that were given, mends what leaks between them, and cuts missing ones out of train.

    Args:
        groups: Group of each of N images.
        strata: Of `assign_splits`.
        given: Split that each image came with, or an empty string.
        shares: Split to share of the whole, for what has to be cut.
        seed: Of `assign_splits`.

    Returns:
        The split of each image, and position to reason for the images that must be left out: those of a lesion
        that a later split needs untouched. Test is later than calibration, that than validation, that than
        train.

    Raises:
        TableError: Nothing is left for train.
    """
    splits, left_out = list(given), {}
    held: dict[str, str] = {}
    for split in reversed(_STRICTEST_FIRST):
        held |= {group: split for group, own in zip(groups, given, strict=True) if own == split}
    for index, (group, own) in enumerate(zip(groups, given, strict=True)):
        if group in held and own != held[group]:
            if own:
                left_out[index] = f"given to {own}, but its lesion is in {held[group]}"
            else:
                splits[index] = held[group]
    pool = [index for index, split in enumerate(splits) if split in ("", "train") and index not in left_out]
    if not pool:
        raise TableError("No image is left for the split “train”. Leave the given splits out with --resplit.")
    missing = {split: share for split, share in shares.items() if split not in given or split == "train"}
    assigned = assign_splits(
        [groups[index] for index in pool], [strata[index] for index in pool], missing, seed
    )
    for index, split in zip(pool, assigned, strict=True):
        splits[index] = split
    return splits, left_out


def classes_in(task: Task, names: Sequence[str]) -> list[str]:
    """The class of a task that each label or diagnosis belongs to; an empty string where it is in none."""
    vocabulary = Vocabulary(task)
    class_of: dict[str, str] = dict.fromkeys(names, "")
    for name in class_of:
        if (meaning := vocabulary.meaning(name)) is not None:
            with contextlib.suppress(TableError):
                class_of[name] = meaning.class_of(task) or ""
    return [class_of[name] for name in names]


def missing_classes(
    splits: Sequence[str], labels: Sequence[str], wanted: Sequence[str]
) -> dict[str, list[str]]:
    """Each of the wanted splits that lacks a class, to the classes it lacks.

    Args:
        splits: Split of each of N images.
        labels: Class of each image; an empty string where it has none of those that are needed.
        wanted: The splits that need every class.
    """
    found: dict[str, set[str]] = {split: set() for split in wanted}
    for split, label in zip(splits, labels, strict=True):
        found.setdefault(split, set()).add(label)
    lacking = {split: sorted({*labels} - found[split] - {""}) for split in wanted}
    return {split: classes for split, classes in lacking.items() if classes}


def find_shares(
    groups: Sequence[str],
    strata: Sequence[tuple[str, ...]],
    labels: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    wanted: Sequence[str] = (),
) -> dict[str, float] | None:
    """The shares nearest to the given ones with which the wanted splits get every class.

    Args:
        groups: Of `assign_splits`.
        strata: Of `assign_splits`.
        labels: Of `missing_classes`.
        shares: The given shares; those to try lie between them and equal ones.
        seed: Of `assign_splits`.
        wanted: The splits that need every class; all of them by default.

    Returns:
        Split to share of 1, in percent steps; None where even equal shares leave a class out of a wanted split.
    """
    whole = sum(shares.values())
    for step in range(_SHARE_STEPS + 1):
        equal = step / _SHARE_STEPS
        tried = {
            split: round((1 - equal) * share / whole + equal / len(shares), 2)
            for split, share in shares.items()
        }
        if min(tried.values()) > 0 and not missing_classes(
            assign_splits(groups, strata, tried, seed), labels, wanted or tuple(shares)
        ):
            return tried
    return None


def advise_shares(
    groups: Sequence[str],
    strata: Sequence[tuple[str, ...]],
    labels: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    *,
    trainable: bool = False,
) -> str:
    """What to do about a split that lacks a class, as a sentence.

    Where not every split can have every class, those that a training needs come first.

    Args:
        groups: Of `assign_splits`.
        strata: Of `assign_splits`.
        labels: Of `missing_classes`.
        shares: Of `find_shares`.
        seed: Of `assign_splits`.
        trainable: Whether the splits that a training needs have every class already.
    """
    lesions: dict[str, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        if label:
            lesions[label].add(group)
    rarest = min(lesions, key=lambda label: (len(lesions[label]), label))
    for wanted in (tuple(shares), *([] if trainable else [NEEDED_SPLITS])):
        if len(lesions[rarest]) < len(wanted):
            continue
        for tried in dict.fromkeys((seed, *range(_SEEDS))):
            if found := find_shares(groups, strata, labels, shares, tried, wanted):
                given = ",".join(f"{share:g}" for share in found.values())
                other = f" --seed {tried}" if tried != seed else ""
                which = "every split has" if len(wanted) == len(shares) else f"{' and '.join(wanted)} have"
                return f"Prepare the data again with --resplit --shares {given}{other}. Then {which} every class."
    if trainable:
        return "A training can start. No --shares were found that give every split every class."
    if len(lesions[rarest]) < len(NEEDED_SPLITS):
        return (
            f"No --shares can help: {' and '.join(NEEDED_SPLITS)} need at least one lesion of every class each, "
            f"and “{rarest}” has {len(lesions[rarest])}."
        )
    return "No --shares give train and validation every class. Add lesions of the rare classes."


def fold_of(lesion_group: str, folds: int) -> int:
    """The fold of a lesion for cross-fitting, 0 to `folds` - 1.

    By its name alone, so it is the same in every manifest, and no teacher answers for an image whose label it was
    trained on.
    """
    return int.from_bytes(hashlib.sha256(lesion_group.encode()).digest()[:8], "big") % folds


def leave_out_fold(manifest: Manifest, folds: int, held_out: int) -> Manifest:
    """The images of all folds but one; all images with `folds` 0."""
    if not folds:
        return manifest
    rows = tuple(row for row in manifest.rows if fold_of(row.lesion_group, folds) != held_out)
    return replace(manifest, rows=rows)
