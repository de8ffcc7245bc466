"""Groups stay together, strata keep their proportions, and nothing depends on the order of files."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from dermadeit.errors import TableError
from train.data.splitting import (
    advise_shares,
    assign_splits,
    complete_splits,
    find_shares,
    lesion_groups,
    missing_classes,
)

SHARES = {"train": 0.7, "validation": 0.07, "calibration": 0.07, "test": 0.16}
NO_PAIRS = np.empty((0, 2), dtype=np.int64)


@pytest.fixture(scope="module")
def lesions() -> tuple[list[str], list[tuple[str, str]]]:
    """Groups of one to five images in three strata of very different size."""
    rng = random.Random(0)
    groups, strata = [], []
    for stratum, count in ((("NV", "ham"), 900), (("NV", "bcn"), 300), (("DF", "bcn"), 40)):
        for lesion in range(count):
            size = rng.randint(1, 5)
            groups += [f"{' '.join(stratum)} {lesion}"] * size
            strata += [stratum] * size
    return groups, strata


def test_groups_join_lesions_and_copies_over_several_steps() -> None:
    # a and c show lesion L; c is a copy of d, d of e; b and f stand alone.
    groups = lesion_groups(list("abcdef"), ["L", "", "L", "M", "", ""], np.array([[2, 3], [3, 4]]))
    assert groups == ["a", "b", "a", "a", "a", "f"]
    assert lesion_groups(["x"], [""], NO_PAIRS) == ["x"]


def test_no_group_is_torn_and_every_stratum_keeps_its_proportions(lesions: tuple) -> None:
    groups, strata = lesions
    splits = assign_splits(groups, strata, SHARES, seed=0)
    assert all(
        len({s for g, s in zip(groups, splits, strict=True) if g == name}) == 1 for name in set(groups)
    )
    sizes, counts = Counter(strata), Counter(zip(strata, splits, strict=True))
    for stratum, size in sizes.items():
        for split, share in SHARES.items():
            # No further off than the largest group.
            assert counts[stratum, split] == pytest.approx(size * share, abs=5), (stratum, split)


def test_lesions_with_many_images_are_not_gathered_in_one_split(lesions: tuple) -> None:
    groups, strata = lesions
    splits = assign_splits(groups, strata, SHARES, seed=0)
    for split in SHARES:
        members = [group for group, own in zip(groups, splits, strict=True) if own == split]
        # Three images a lesion on average, by construction.
        assert len(members) / len(set(members)) == pytest.approx(3, abs=0.35), split


def test_the_split_depends_on_seed_and_names_alone(lesions: tuple) -> None:
    groups, strata = lesions
    first = dict(zip(groups, assign_splits(groups, strata, SHARES, seed=1), strict=True))
    shuffled = list(zip(groups, strata, strict=True))
    random.Random(3).shuffle(shuffled)
    names, kinds = zip(*shuffled, strict=True)
    assert dict(zip(names, assign_splits(names, kinds, SHARES, seed=1), strict=True)) == first
    assert dict(zip(groups, assign_splits(groups, strata, SHARES, seed=2), strict=True)) != first


def test_single_lesions_go_where_most_is_due() -> None:
    # Due by hand after each, in units of 0.01: train 70 40 10 80 50 20, test 16 32 48 -36 -20 -4, the two
    # others 7 14 21 28 35 42.
    for count, expected in enumerate(("train", "train", "test", "train", "train", "validation")):
        splits = assign_splits([f"{index}" for index in range(count + 1)], [("x",)] * (count + 1), SHARES, 0)
        before = assign_splits([f"{index}" for index in range(count)], [("x",)] * count, SHARES, 0)
        assert Counter(splits) - Counter(before) == {expected: 1}


def test_strata_of_single_lesions_still_add_up() -> None:
    names = [f"{index}" for index in range(100)]
    counts = Counter(assign_splits(names, [("MEL", name) for name in names], SHARES, seed=0))
    for split, share in SHARES.items():
        assert counts[split] == pytest.approx(100 * share, abs=2), split


def test_given_splits_stay_and_missing_ones_come_out_of_train() -> None:
    groups = [f"g{index}" for index in range(400)]
    given = ["train"] * 300 + ["validation"] * 100
    splits, left_out = complete_splits(groups, [("x",)] * 400, given, SHARES, seed=0)
    assert left_out == {}
    assert splits[300:] == ["validation"] * 100
    # Of the 300, in the proportions 70 : 7 : 16.
    counts = Counter(splits[:300])
    assert counts["calibration"] == pytest.approx(300 * 7 / 93, abs=1)
    assert counts["test"] == pytest.approx(300 * 16 / 93, abs=1)
    assert counts["train"] == 300 - counts["calibration"] - counts["test"]


def test_a_lesion_given_to_several_splits_stays_in_the_last_one() -> None:
    groups = ["a", "a", "a", "b", "b", "c"]
    given = ["train", "validation", "test", "", "validation", "train"]
    splits, left_out = complete_splits(groups, [("x",)] * 6, given, {"train": 1.0, "validation": 0.1}, seed=0)
    assert set(left_out) == {0, 1}
    assert "its lesion is in test" in left_out[0]
    assert splits[2:] == ["test", "validation", "validation", "train"]


def test_images_for_train_are_needed() -> None:
    with pytest.raises(TableError, match="--resplit"):
        complete_splits(["a"], [("x",)], ["test"], SHARES, seed=0)


def test_shares_are_advised_with_which_every_split_has_every_class() -> None:
    labels = ["wart"] * 8 + ["mole"] * 60
    groups = [f"lesion {number}" for number in range(len(labels))]
    strata = [(label,) for label in labels]
    assert missing_classes(assign_splits(groups, strata, SHARES, seed=0), labels, tuple(SHARES))
    found = find_shares(groups, strata, labels, SHARES, seed=0)
    assert not missing_classes(assign_splits(groups, strata, found, seed=0), labels, tuple(SHARES))
    advice = advise_shares(groups, strata, labels, SHARES, seed=0)
    assert ",".join(f"{share:g}" for share in found.values()) in advice
    few = labels[7:]
    assert find_shares(groups[7:], strata[7:], few, SHARES, seed=0) is None
    assert "“wart” has 1" in advise_shares(groups[7:], strata[7:], few, SHARES, seed=0)


def test_where_not_every_split_can_have_every_class_those_of_a_training_come_first() -> None:
    # Two warts are enough for train and validation, and what has no class of the task is not asked for.
    labels = ["wart"] * 2 + ["mole"] * 60 + [""]
    groups = [f"lesion {number}" for number in range(len(labels))]
    strata = [(label or "other",) for label in labels]
    assert find_shares(groups, strata, labels, SHARES, seed=0) is None
    advice = advise_shares(groups, strata, labels, SHARES, seed=0)
    shares, seed = re.search(r"--shares ([\d.,]*\d)(?: --seed (\d+))?", advice).groups()
    given = dict(zip(SHARES, map(float, shares.split(",")), strict=True))
    splits = assign_splits(groups, strata, given, int(seed or 0))
    assert not missing_classes(splits, labels, ("train", "validation"))
    assert "--shares" in (said := advise_shares(groups, strata, labels, SHARES, seed=0, trainable=True))
    assert "--resplit" not in said
