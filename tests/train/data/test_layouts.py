"""Layouts of labelled photos: class folders, HAM10000, tables. Pictures are only listed here, not read."""

from collections import Counter
from pathlib import Path

import pytest

from dermadeit.errors import ConfigurationError, TableError
from train.data.layouts import (
    Collection,
    read_class_folders,
    read_ham10000,
    read_labelled_csv,
)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def _table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def _excluded(collection: Collection) -> list[tuple[str, str]]:
    return sorted((item.reason, item.file) for item in collection.exclusions)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("mel", ("MEL", "")),
        ("Melanocytic nevus", ("NV", "")),
        ("nevus", ("NV", "")),
        ("basal_cell-carcinoma", ("BCC", "")),
        ("akiec", ("AK", "")),
        ("others", ("", "others")),
        ("unk", ("UNK", "")),
        ("lentigo", ("BKL", "")),
    ],
)
def test_classes_are_known_by_their_usual_names(name: str, meaning: tuple[str, str], tmp_path: Path) -> None:
    _touch(tmp_path, f"{name}/a.jpg", "DF/b.jpg")
    collection = read_class_folders(tmp_path, {"lentigo": "BKL"})
    images = {image.image_id: (image.diagnosis, image.label) for image in collection.images}
    if meaning[0] == "UNK":
        assert images == {"b": ("DF", "")}
        assert [item.reason for item in collection.exclusions] == ["unknown_diagnosis"]
    else:
        assert images["a"] == meaning


def test_an_unknown_class_is_refused_with_the_option_that_names_it(tmp_path: Path) -> None:
    _touch(tmp_path, "train/mole/a.jpg", "train/mole/b.jpg", "train/mel/c.jpg")
    with pytest.raises(TableError, match=r"“mole” \(2 images\).*--class-name 'mole'=DIAGNOSIS") as caught:
        read_class_folders(tmp_path, {})
    assert caught.value.code == "unknown_class"
    assert len(read_class_folders(tmp_path, {"mole": "NV"}).images) == 3
    with pytest.raises(ConfigurationError, match="MEL, NV"):
        read_class_folders(tmp_path, {"mole": "NEVUS"})


def test_class_folders_keep_their_splits_and_ids_stay_unique(tmp_path: Path) -> None:
    _touch(tmp_path, "train/MEL/1.jpg", "train/NV/2.png", "val/NV/1.jpg", "Test/bcc/deep/3.jpeg")
    _touch(tmp_path, "val/4.jpg", "5.jpg", "train/NV/notes.txt", "train/NV/.hidden.jpg")
    collection = read_class_folders(tmp_path, {})
    assert {image.image_id: (image.diagnosis, image.split) for image in collection.images} == {
        "train/MEL/1": ("MEL", "train"),
        "2": ("NV", "train"),
        "val/NV/1": ("NV", "validation"),
        "3": ("BCC", "test"),
    }
    assert _excluded(collection) == [("no_label", "5.jpg"), ("no_label", "val/4.jpg")]


def test_class_folders_without_splits_have_none(tmp_path: Path) -> None:
    _touch(tmp_path, "mel/1.jpg", "nv/2.jpg")
    assert {image.split for image in read_class_folders(tmp_path, {}).images} == {""}


def test_ham10000_has_two_folders_and_akiec_counts_as_ak(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _touch(tmp_path, "HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_2/ISIC_2.jpg")
    _touch(tmp_path, "HAM10000_images_part_2/ISIC_4.jpg")
    (tmp_path / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n"
        "HAM_1,ISIC_1,akiec,histo,70.0,male,face,vidir_modern\n"
        "HAM_2,ISIC_2,nv,histo,30.0,female,back,rosendahl\n"
        "HAM_2,ISIC_3,nv,histo,30.0,female,back,rosendahl\n"
    )
    collection = read_ham10000(tmp_path, {})
    assert "1 images of akiec are taken as AK" in caplog.text
    first, second = collection.images
    assert (first.diagnosis, first.lesion_id, first.dataset) == ("AK", "HAM_1", "ham10000")
    assert (second.sex, second.age, second.anatomic_site) == ("female", "30.0", "back")
    assert _excluded(collection) == [
        ("no_image", "ISIC_3"),
        ("no_label", "HAM10000_images_part_2/ISIC_4.jpg"),
    ]


def test_ham10000_without_metadata_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"doi\.org"):
        read_ham10000(tmp_path, {})


def test_a_table_finds_its_images_by_path_name_or_stem(tmp_path: Path) -> None:
    _touch(tmp_path / "photos", "x/a.jpg", "b.png", "c.jpg", "y/d.jpg", "z/d.jpg")
    table = _table(
        tmp_path,
        "file,dx,lesion_id,split\nx/a.jpg,mel,L1,train\n/old/machine/b.png,nv,,val\nc,bcc,,Test\nd,nv,,\n",
    )
    collection = read_labelled_csv(table, tmp_path / "photos", {})
    assert [(image.image_id, Path(image.location).name, image.split) for image in collection.images] == [
        ("a", "a.jpg", "train"),
        ("b", "b.png", "validation"),
        ("c", "c.jpg", "test"),
    ]
    assert Counter(item.reason for item in collection.exclusions) == {"ambiguous_image": 1, "no_label": 2}


def test_a_table_reaches_no_file_outside_its_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "secret.jpg", "photos/a.jpg")
    table = _table(tmp_path, "file,label\n../secret.jpg,mel\na.jpg,nevus\n")
    collection = read_labelled_csv(table, tmp_path / "photos", {})
    assert [image.image_id for image in collection.images] == ["a"]
    assert _excluded(collection) == [("no_image", "../secret.jpg")]


def test_columns_can_be_named_or_ignored(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    table = _table(tmp_path, "picture,truth,patient,split\na.jpg,MEL,P1,fold 3\n")
    names = {"image": "picture", "label": "truth", "group": "patient"}
    with pytest.raises(TableError, match=r"“fold 3” in line 2 is not a split.*--resplit"):
        read_labelled_csv(table, tmp_path, {}, columns=names)
    [image] = read_labelled_csv(table, tmp_path, {}, columns=names | {"split": ""}).images
    assert (image.diagnosis, image.lesion_id, image.split) == ("MEL", "P1", "")
    with pytest.raises(TableError, match="--image-column"):
        read_labelled_csv(table, tmp_path, {})
    with pytest.raises(TableError, match="no column photo"):
        read_labelled_csv(table, tmp_path, {}, columns={"image": "photo"})


def test_a_repeated_image_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    with pytest.raises(TableError, match="two labels, such as a"):
        read_labelled_csv(_table(tmp_path, "image_id,dx\na,mel\na,nv\n"), tmp_path, {})
