"""The class orders and mappings that every checkpoint relies on."""

import numpy as np
import pytest

from dermadeit.errors import TaskError
from dermadeit.tasks import (
    BINARY,
    DIAGNOSES,
    DIAGNOSIS,
    MALIGNANCY,
    MULTICLASS,
    TASKS,
    Task,
    create_own_task,
    get_task,
    readable_tasks,
)


def test_class_orders_are_the_documented_ones() -> None:
    assert get_task("binary").classes == ("nevus", "others")
    assert get_task("multiclass").classes == ("mel", "bcc", "scc")


def test_binary_maps_every_diagnosis_and_only_nv_to_nevus() -> None:
    mapping = TASKS["binary"].class_of_diagnosis
    assert set(mapping) == set(DIAGNOSES)
    assert [diagnosis for diagnosis, key in mapping.items() if key == "nevus"] == ["NV"]


def test_multiclass_leaves_other_diagnoses_out() -> None:
    assert TASKS["multiclass"].class_of_diagnosis == {"MEL": "mel", "BCC": "bcc", "SCC": "scc"}


@pytest.mark.parametrize("key", ["", "Binary", "malignant"])
def test_unknown_task_names_the_known_ones(key: str) -> None:
    with pytest.raises(TaskError, match="binary, multiclass"):
        get_task(key)


def test_unknown_class_names_the_known_ones() -> None:
    with pytest.raises(TaskError, match="mel, bcc, scc"):
        get_task("multiclass").index_of("nevus")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_class_has_its_words_for_people(task: Task) -> None:
    assert task.display_names.keys() == task.nouns.keys() == set(task.classes)
    shown = {*task.display_names.values(), *(noun for nouns in task.nouns.values() for noun in nouns)}
    assert len(shown) == 3 * len(task.classes)
    assert not shown & set(task.classes)
    assert set(task.contents) <= set(task.classes)


def test_the_diagnoses_in_a_class_are_told_where_its_name_does_not() -> None:
    inside = [key for key, own in BINARY.class_of_diagnosis.items() if own == "others"]
    assert len(BINARY.contents["others"].split(", ")) == len(inside)


EIGHT = DIAGNOSIS.classes
"""The classes of a network of all diagnoses."""

SHARES = np.array([0.10, 0.40, 0.05, 0.02, 0.20, 0.05, 0.03, 0.15])
"""What it may say: MEL NV BCC AK BKL DF VASC SCC."""


def test_readings_are_the_sums_that_one_makes_by_hand() -> None:
    def read(task: Task) -> np.ndarray:
        groups = task.group(EIGHT)
        assert groups is not None
        return groups.read(SHARES)

    np.testing.assert_allclose(read(BINARY), [0.40, 0.60])
    np.testing.assert_allclose(read(MALIGNANCY), [0.70, 0.30])
    np.testing.assert_allclose(read(MULTICLASS), [0.10 / 0.30, 0.05 / 0.30, 0.15 / 0.30])
    np.testing.assert_array_equal(read(DIAGNOSIS), SHARES)


def test_many_photos_are_read_like_each_of_them() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(8), (3, 5))
    for task in TASKS.values():
        groups = task.group(EIGHT)
        assert groups is not None
        together = groups.read(shares)
        assert together.shape == (3, 5, len(task.classes))
        np.testing.assert_allclose(together.sum(axis=-1), 1)
        np.testing.assert_allclose(together[1, 2], groups.read(shares[1, 2]))


def test_a_network_sure_of_what_is_left_out_says_nothing_of_the_rest() -> None:
    groups = MULTICLASS.group(EIGHT)
    assert groups is not None
    np.testing.assert_allclose(groups.read(np.eye(8)[1]), [1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("network", "answered"),
    [
        (DIAGNOSIS, ["diagnosis", "malignancy", "binary", "multiclass"]),
        (BINARY, ["binary"]),
        (MULTICLASS, ["multiclass"]),
        (MALIGNANCY, ["malignancy"]),
        (create_own_task(("wart", "nevus")), ["own"]),
        (create_own_task(("malignant", "benign")), ["own", "malignancy"]),
        # Without SCC nobody can say malignant, but what is malignant may be told apart.
        (create_own_task(("mel", "nv", "bcc")), ["own"]),
        (create_own_task(("scc", "nv", "mel", "bcc")), ["own", "multiclass"]),
        (create_own_task(("nevus", "others", "scar")), ["own"]),
    ],
)
def test_a_network_answers_what_its_classes_can_form(network: Task, answered: list[str]) -> None:
    assert [task.key for task in readable_tasks(network)] == answered


def test_the_order_of_a_networks_classes_does_not_matter() -> None:
    groups = MULTICLASS.group(("scc", "nv", "mel", "bcc"))
    assert groups is not None
    np.testing.assert_allclose(groups.read(np.array([0.1, 0.5, 0.2, 0.2])), [0.4, 0.4, 0.2])
