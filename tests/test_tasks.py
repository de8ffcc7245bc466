"""The class orders and mappings that every checkpoint relies on."""

import pytest

from dermadeit.errors import TaskError
from dermadeit.tasks import DIAGNOSES, TASKS, get_task


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
