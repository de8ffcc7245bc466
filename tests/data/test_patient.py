"""Age and sex as people and tables give them."""

from pathlib import Path
from typing import Any

import pytest

from dermadeit.data.patient import Patient, patient_of, read_patient, read_patients
from dermadeit.errors import ConfigurationError, TableError


@pytest.mark.parametrize(
    ("age", "sex", "expected"),
    [
        ("63", "female", Patient(63, "female")),
        (63, "F", Patient(63, "female")),
        (" 63.5 ", "Woman", Patient(63.5, "female")),
        (0, "m", Patient(0, "male")),
        ("120", " MALE ", Patient(120, "male")),
        (None, "man", Patient(None, "male")),
        ("40", "", Patient(40)),
        (40, "unknown", Patient(40)),
        (None, None, None),
        ("", "  ", None),
    ],
)
def test_usual_ways_to_write_age_and_sex(age: Any, sex: Any, expected: Patient | None) -> None:
    assert read_patient(age, sex) == expected


@pytest.mark.parametrize("age", ["-3", -3, 400, "abc", "nan", "inf", True, "63 years"])
def test_what_is_no_age_is_refused_with_a_remedy(age: Any) -> None:
    with pytest.raises(ConfigurationError, match="from 0 to 120") as refused:
        read_patient(age)
    assert refused.value.code == "not_a_number"


@pytest.mark.parametrize("sex", ["x", "63", "fe male?!x"])
def test_an_unknown_sex_is_refused_with_a_remedy(sex: str) -> None:
    with pytest.raises(ConfigurationError, match="female or male") as refused:
        read_patient(50, sex)
    assert refused.value.code == "unknown_value"


def test_a_cell_that_cannot_be_used_counts_as_unknown() -> None:
    assert patient_of({"age": "55.0", "sex": "Female"}) == Patient(55, "female")
    assert patient_of({"age": "about 60", "sex": "?"}) == Patient()
    assert patient_of({}) == Patient()


def _table(folder: Path, *lines: str) -> Path:
    path = folder / "patients.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_gives_each_photo_its_patient(tmp_path: Path) -> None:
    photos = ["some/where/a.jpg", "b.JPG", "c.png"]
    table = _table(tmp_path, "isic_id,age_approx,gender", "b,30,male", "a,70,F", "other,abc,x")
    assert read_patients(table, photos) == [Patient(70, "female"), Patient(30, "male"), None]
    table = _table(tmp_path, "file,age", "c.png,12")
    assert read_patients(table, photos) == [None, None, Patient(12)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("name,age", "a,70"), "needs a column file or image_id"),
        (("file,site", "a.jpg,leg"), "needs a column file or image_id"),
        (("file,age", "z.jpg,70"), "names none of the photos"),
        (("file,age", "c.png,70", "b,700"), "Line 3 of “patients.csv”: “700” is not an age"),
    ],
)
def test_a_table_of_patients_that_cannot_be_used_says_why(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TableError, match=message):
        read_patients(_table(tmp_path, *lines), ["a.jpg", "b.jpg", "c.png"])


def test_a_name_that_fits_two_photos_is_not_guessed(tmp_path: Path) -> None:
    photos = []
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        photos.append(str(tmp_path / folder / "a.jpg"))
        Path(photos[-1]).write_text(folder)
    with pytest.raises(TableError, match="may mean 2 of the photos"):
        read_patients(_table(tmp_path, "file,age", "a.jpg,70"), photos)
    table = _table(tmp_path, "file,age", "right/a.jpg,70")
    assert read_patients(table, photos) == [None, Patient(70)]
