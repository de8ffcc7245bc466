"""Labels that are hidden or made wrong: whose, how many, and that photos of a lesion share their fate."""

from collections import Counter
from pathlib import Path

import pytest

from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.errors import ConfigurationError
from dermadeit.tasks import DIAGNOSIS
from train.data.labels import confuse_labels, hide_labels, keep_labelled

CLASSES = DIAGNOSIS.classes


@pytest.fixture
def manifest() -> Manifest:
    """Two photos of each of 800 lesions, a hundred of each diagnosis, from two sources."""
    rows = [
        ManifestRow(
            f"photo{lesion}-{number}", "", Path("none"), CLASSES[lesion % 8], "train", f"lesion{lesion}",
            ("east", "west")[lesion // 8 % 2],
        )
        for lesion in range(800)
        for number in range(2)
    ]  # fmt: skip
    return Manifest(DIAGNOSIS, tuple(rows), ())


def test_few_labels_are_those_of_whole_lesions_in_the_same_mixture(manifest: Manifest) -> None:
    hidden = hide_labels(manifest, 0.2, seed=0)
    assert [row.image_id for row in hidden.rows] == [row.image_id for row in manifest.rows]
    kept = keep_labelled(hidden)
    lesions = {row.lesion_group: (row.label, row.source) for row in kept.rows}
    assert len(kept.rows) == 2 * len(lesions) and abs(len(lesions) - 160) <= 2
    for counts in (Counter(label for label, _ in lesions.values()), Counter(lesions.values())):
        assert max(counts.values()) - min(counts.values()) <= 2 and len(counts) in (8, 16)
    true = {row.image_id: row.label for row in manifest.rows}
    assert all(row.label == true[row.image_id] for row in kept.rows)


def test_another_seed_tells_other_labels_and_the_same_one_the_same(manifest: Manifest) -> None:
    first, again, other = (hide_labels(manifest, 0.05, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_class_that_would_lose_all_labels_is_named(manifest: Manifest) -> None:
    few = Manifest(DIAGNOSIS, manifest.rows[:32], ())
    with pytest.raises(ConfigurationError, match="--label-share"):
        hide_labels(few, 0.1, seed=0)


def test_wrong_labels_are_so_many_of_every_other_class_and_the_same_in_every_part(manifest: Manifest) -> None:
    confused = confuse_labels(manifest, 0.4, seed=0)
    pairs = list(zip(manifest.rows, confused.rows, strict=True))
    wrong = Counter(own.label for true, own in pairs if true.label != own.label)
    assert sum(wrong.values()) == pytest.approx(0.4 * 1600, rel=0.1)
    assert set(wrong) == set(CLASSES)
    assert len({(row.lesion_group, row.label) for row in confused.rows}) == 800
    part = Manifest(DIAGNOSIS, manifest.rows[100:200], ())
    assert confuse_labels(part, 0.4, seed=0).rows == confused.rows[100:200]
    assert confuse_labels(manifest, 0.0, seed=0).rows == manifest.rows
