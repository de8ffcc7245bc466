"""Folders that visitors hand in: labels, files of one name, hostile and hidden paths."""

from hashlib import sha256
from pathlib import Path

import pytest

from dermadeit.data.collection import Collection, UploadedFile, opened_collection
from dermadeit.errors import TableError
from dermadeit.tasks import BINARY


def _collect(*files: UploadedFile) -> Collection:
    with opened_collection(files, BINARY) as collection:
        return collection


def test_folders_that_were_handed_in_give_labels_and_keep_files_of_one_name_apart(
    lesion_files: list[Path],
) -> None:
    names = ["set/nevus/a.jpg", "set/MEL/a.jpg", "set\\MEL\\b.jpg", "set/notes.png", "a.jpg"]
    handed = [UploadedFile(path, name) for path, name in zip(lesion_files, names, strict=False)]
    found = _collect(*handed)
    assert [(image.image_id, image.label) for image in found.images] == [
        ("set/nevus/a.jpg", "nevus"),
        ("set/MEL/a.jpg", "others"),
        ("set/MEL/b.jpg", "others"),
    ]
    assert found.images[1].decode().sha256 == sha256(lesion_files[1].read_bytes()).hexdigest()
    assert {item.file: item.reason for item in found.left_out} == dict.fromkeys(
        ("set/notes.png", "a.jpg"), "it is in no folder that is named after a class"
    )


def test_a_table_in_a_folder_names_its_images_by_their_paths(
    lesion_files: list[Path], tmp_path: Path
) -> None:
    loose = [UploadedFile(path, f"set/{part}/a.jpg") for path, part in zip(lesion_files, "xy", strict=False)]
    (tmp_path / "labels.csv").write_text("file,label\nx/a.jpg,nevus\ny/a.jpg,others\n")
    labels = UploadedFile(tmp_path / "labels.csv", "set/labels.csv")
    found = _collect(*loose, labels)
    assert [(image.file, image.label) for image in found.images] == [
        ("set/x/a.jpg", "nevus"),
        ("set/y/a.jpg", "others"),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../evil.jpg", "its path leaves the folder"),
        ("set\\..\\..\\evil.jpg", "its path leaves the folder"),
        ("/etc/evil.jpg", "its path is absolute"),
        ("\\\\server\\evil.jpg", "its path is absolute"),
        ("C:\\evil.jpg", "its path is absolute"),
        ("a/" * 40 + "evil.jpg", "it lies more than 32 folders deep"),
        ("set/.git/evil.jpg", "it is a hidden file of an operating system"),
        ("set/__MACOSX/._a.jpg", "it is a hidden file of an operating system"),
        ("set/Thumbs.db", "it is a hidden file of an operating system"),
    ],
)
def test_hostile_and_hidden_paths_of_a_folder_are_skipped_with_a_reason(
    lesion_files: list[Path], name: str, reason: str
) -> None:
    found = _collect(UploadedFile(lesion_files[0], name), UploadedFile(lesion_files[1], "set/good.jpg"))
    assert [image.file for image in found.images] == ["set/good.jpg"]
    [left_out] = found.left_out
    assert left_out.reason == reason
    assert not {"", ".", ".."}.intersection(left_out.file.split("/"))
    with pytest.raises(TableError, match=f"no image among the files.*{reason}"):
        _collect(UploadedFile(lesion_files[0], name))
