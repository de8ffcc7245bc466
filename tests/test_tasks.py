"""The class orders and mappings that every checkpoint relies on."""

import pytest

from dermadeit.errors import TaskError
from dermadeit.tasks import BINARY, DIAGNOSES, TASKS, TRAINABLE_TASKS, Task, get_task


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


@pytest.mark.parametrize("task", TRAINABLE_TASKS.values(), ids=TRAINABLE_TASKS)
def test_every_class_has_its_words_for_people(task: Task) -> None:
    assert task.display_names.keys() == task.nouns.keys() == set(task.classes)
    shown = {*task.display_names.values(), *(noun for nouns in task.nouns.values() for noun in nouns)}
    assert len(shown) == 3 * len(task.classes)
    assert not shown & set(task.classes)
    assert set(task.contents) <= set(task.classes)


def test_the_diagnoses_in_a_class_are_told_where_its_name_does_not() -> None:
    inside = [key for key, own in BINARY.class_of_diagnosis.items() if own == "others"]
    assert len(BINARY.contents["others"].split(", ")) == len(inside)
