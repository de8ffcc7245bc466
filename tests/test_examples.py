"""The photos in assets/examples are what their tables say, and the shipped model answers them as the notes say."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from dermadeit import load_predictor
from dermadeit.data.tabular import Table, read_csv
from dermadeit.imaging.quality import PROBLEMS
from dermadeit.inference.records import ABSTAIN
from dermadeit.tasks import BINARY
from dermadeit.views.page.examples import read_examples
from dermadeit.views.page.uploads import EXAMPLES_FOLDER

TABLES = ("examples.csv", "sample_set/labels.csv")


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> tuple[Path, Table]:
    path = EXAMPLES_FOLDER / request.param
    return path.parent, read_csv(path)


def test_every_photo_is_listed_with_its_hash_licence_and_credit(table: tuple[Path, Table]) -> None:
    folder, listed = table
    rows = {row["file"]: row for row in listed.rows}
    photos = {path.name: path for path in folder.iterdir() if path.suffix not in (".csv", ".md", "")}
    assert len(rows) == len(listed.rows)
    assert rows.keys() == photos.keys()
    for name, row in rows.items():
        assert row["sha256"] == hashlib.sha256(photos[name].read_bytes()).hexdigest(), name
        assert row["licence"] == "CC0"
        assert "arXiv:1605.01397" in row["credit"]
        assert row["diagnosis"] in BINARY.class_of_diagnosis
        with Image.open(photos[name]) as photo:
            assert max(photo.size) <= 1024
            assert not photo.getexif()


def test_the_sample_set_has_both_classes() -> None:
    rows = read_csv(EXAMPLES_FOLDER / "sample_set" / "labels.csv").rows
    assert Counter(row["diagnosis"] for row in rows) == {"NV": 15, "MEL": 9}


@pytest.mark.slow
def test_the_model_is_wrong_and_withholds_where_the_notes_say_so() -> None:
    examples = read_examples()
    records = load_predictor(BINARY.key).predict([example.path for example in examples])
    wrong, withheld = [], []
    for example, record in zip(examples, records, strict=True):
        if record.verdict == ABSTAIN and PROBLEMS.keys() & set(record.abstain_codes):
            withheld.append(example.path.name)
        elif record.label != BINARY.class_of_diagnosis[example.diagnosis]:
            wrong.append(example.path.name)
    assert wrong and wrong == [example.path.name for example in examples if "wrong" in example.note]
    assert withheld and withheld == [example.path.name for example in examples if "withheld" in example.note]
