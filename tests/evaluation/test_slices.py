"""Subgroups of labelled images: how they are formed, which are shown, and their files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dermadeit.data.manifest import ManifestRow, read_source
from dermadeit.data.tabular import read_csv
from dermadeit.evaluation.predictions import PredictionSet, measure
from dermadeit.evaluation.slices import (
    SLICED_BY,
    UNKNOWN,
    describe_images,
    measure_slices,
    slice_indices,
    write_attributes,
)
from dermadeit.tasks import get_task

BINARY = get_task("binary")


def _row(**metadata: str) -> ManifestRow:
    return ManifestRow("a", "a.jpg", Path("missing.jpg"), "nevus", "test", "a", "ham10000", metadata)


def _predictions(count: int) -> PredictionSet:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    logits = rng.normal(size=(count, 2)) + 1.5 * np.eye(2)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = tuple(f"i{index}" for index in range(count))
    return PredictionSet(
        BINARY, "dermadeit", 8, ids, labels, logits, probabilities, ids, ("ham10000",) * count, ("test",) * count
    )  # fmt: skip


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("0.0", "under 30"), ("29", "under 30"), ("30", "30 to 44"), ("59.9", "45 to 59"), ("75.0", "75 or more"),
        ("", UNKNOWN), ("old", UNKNOWN), ("nan", UNKNOWN),
    ],
)  # fmt: skip
def test_ages_fall_into_bands(age: str, band: str) -> None:
    assert describe_images([_row(age=age)])["a"]["age_band"] == band


def test_images_are_described_by_their_pixels_and_their_table(synthetic_data: Path) -> None:
    rows = read_source(synthetic_data / "manifest.csv", BINARY).select("test").rows
    described = describe_images(rows)
    assert len(described) == len(rows)
    first = described[rows[0].image_id]
    assert first["short_side"] == "under 100 px"
    assert first["sex"] == rows[0].metadata["sex"]
    assert first["anatomic_site"] == rows[0].metadata["anatomic_site"]
    assert first["source"] == "synthetic"
    tones = {image["skin_tone"]: float(image["typology_angle"] or "nan") for image in described.values()}
    assert len(tones) >= 3
    assert tones["very light"] > 55


def test_an_image_that_cannot_be_read_keeps_what_its_row_says() -> None:
    described = describe_images([_row(width="400", height="280", sex="female")])["a"]
    assert described["short_side"] == "150 to 299 px"
    assert (described["sex"], described["skin_tone"]) == ("female", UNKNOWN)
    assert describe_images([_row()])["a"]["short_side"] == UNKNOWN


def test_values_keep_their_natural_order_and_the_unknown_come_last() -> None:
    tones = ["dark", "very light", UNKNOWN, "tan", "dark"]
    attributes = {f"i{index}": {"skin_tone": tone, "sex": tone} for index, tone in enumerate(tones)}
    ids = [f"i{index}" for index in range(6)]
    assert slice_indices(ids, attributes, "skin_tone") == {
        "very light": [1], "tan": [3], "dark": [0, 4], UNKNOWN: [2, 5],
    }  # fmt: skip
    assert list(slice_indices(ids, attributes, "sex")) == ["dark", "tan", "very light", UNKNOWN]


@pytest.mark.slow
def test_slices_have_their_own_figures_and_small_ones_only_a_count() -> None:
    predictions = _predictions(100)
    # The first 81 are female, then 19 male: one too few.
    attributes = {
        image_id: dict.fromkeys(SLICED_BY, "any") | {"sex": "female" if index < 81 else "male"}
        for index, image_id in enumerate(predictions.image_ids)
    }
    measured = measure_slices(predictions, attributes)
    assert list(measured) == list(SLICED_BY)
    assert list(measured["sex"]["slices"]) == ["female"]
    assert measured["sex"]["too_few"] == {"male": 19}
    female = measured["sex"]["slices"]["female"]
    assert female["n"] == 81
    expected = np.mean(predictions.probabilities[:81].argmax(axis=1) == predictions.labels[:81])
    assert female["accuracy"] == pytest.approx(expected)
    low, high = female["intervals"]["accuracy"]
    assert low < expected < high
    # 20 are enough.
    attributes["i80"]["sex"] = "male"
    assert measure_slices(predictions, attributes)["sex"]["slices"]["male"]["n"] == 20
    assert measured["source"]["slices"]["any"]["roc_auc"] == measure(predictions).figures["roc_auc"]


def test_an_attribute_of_which_nothing_is_known_parts_nothing() -> None:
    predictions = _predictions(40)
    described = {image_id: dict.fromkeys(SLICED_BY, UNKNOWN) for image_id in predictions.image_ids}
    described["i0"]["sex"] = "male"
    measured = measure_slices(predictions, described)
    assert {name for name, part in measured.items() if part["slices"] or part["too_few"]} == {"sex"}
    assert measured["sex"]["too_few"] == {"male": 1}


def test_a_diagnosis_has_one_class_so_what_ranks_classes_is_undefined_in_it() -> None:
    predictions = _predictions(60)
    names = ("NV", "mel")
    rows = [
        replace(_row(diagnosis=names[label]), image_id=image_id)
        for image_id, label in zip(predictions.image_ids, predictions.labels, strict=True)
    ]
    measured = measure_slices(predictions, describe_images(rows))["diagnosis"]
    # In the order of ISIC 2019.
    assert list(measured["slices"]) == ["melanoma", "melanocytic nevus"]
    melanomas = measured["slices"]["melanoma"]
    assert melanomas["n"] == 30
    assert melanomas["accuracy"] == pytest.approx(predictions.hits[predictions.labels == 1].mean())
    for name in ("roc_auc", "f1_macro", "balanced_accuracy"):
        assert melanomas[name] is None
        assert name not in melanomas["intervals"]
    fewer = measure_slices(predictions.take(range(38)), describe_images(rows))["diagnosis"]
    assert (fewer["slices"], fewer["too_few"]) == ({}, {"melanoma": 19, "melanocytic nevus": 19})


def test_the_skin_tone_is_marked_as_an_estimate() -> None:
    predictions = _predictions(20)
    measured = measure_slices(predictions, {})
    assert "estimate" in measured["skin_tone"]["caveat"].lower()
    assert measured["sex"]["caveat"] is None
    assert "estimated" in SLICED_BY["skin_tone"]


def test_descriptions_are_written_sorted_by_image(tmp_path: Path) -> None:
    rows = [replace(_row(sex="male", age="44"), image_id=name) for name in ("b", "a")]
    described = describe_images(rows)
    write_attributes(tmp_path / "attributes.csv", described)
    first, second = read_csv(tmp_path / "attributes.csv").rows
    assert (first["image_id"], second["image_id"]) == ("a", "b")
    assert {name: first[name] for name in SLICED_BY} == {name: described["a"][name] for name in SLICED_BY}
