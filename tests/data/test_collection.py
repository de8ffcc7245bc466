"""What visitors hand in: hostile ZIPs, class folders, tables of labels, and what is left out."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from dermadeit.data import archives, collection
from dermadeit.data.collection import (
    Collection,
    UploadedFile,
    are_prediction_tables,
    check_table_size,
    opened_collection,
)
from dermadeit.errors import ImageError, TableError
from dermadeit.tasks import get_task

BINARY, MULTICLASS = get_task("binary"), get_task("multiclass")


def _zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> UploadedFile:
    """A ZIP in which no two photos are the same file: what follows a JPEG's end says which it is."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data + name.encode() if data.startswith(b"\xff\xd8") else data)
    return UploadedFile(path, path.name)


def _collect(*files: UploadedFile, task=BINARY) -> Collection:
    with opened_collection(files, task) as collection:
        return collection


def _reasons(collection: Collection) -> dict[str, str]:
    return {item.file: item.reason for item in collection.left_out}


@pytest.fixture
def photo(lesion_files: list[Path]) -> bytes:
    return lesion_files[0].read_bytes()


@pytest.fixture
def table(tmp_path: Path):
    def write(text: str | bytes) -> UploadedFile:
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return UploadedFile(path, path.name)

    return write


@pytest.fixture
def two_photos(tmp_path: Path, photo: bytes) -> UploadedFile:
    return _zip(tmp_path / "two.zip", {"a.jpg": photo, "b.jpg": photo})


def test_class_folders_give_labels_and_members_are_read_one_by_one(tmp_path: Path, photo: bytes) -> None:
    members = {
        "set/Nevus/a.jpg": photo,
        "set/MEL/deep/b.jpg": photo,
        "set/notes.txt": b"x",
        "set/.DS_Store": b"x",
    }
    with opened_collection([_zip(tmp_path / "a.zip", members)], BINARY) as collection:
        assert [(image.image_id, image.label) for image in collection.images] == [
            ("set/MEL/deep/b.jpg", "others"),
            ("set/Nevus/a.jpg", "nevus"),
        ]
        assert collection.images[0].decode().name == "b.jpg"
        assert [image.metadata for image in collection.images] == [{"diagnosis": "MEL"}, {}]
        assert collection.labelled
        assert _reasons(collection) == {
            "set/notes.txt": "it is in no folder that is named after a class",
            "set/.DS_Store": "it is a hidden file of an operating system",
        }
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zip"]


def test_diagnoses_outside_the_task_are_listed(tmp_path: Path, photo: bytes) -> None:
    handed = _zip(tmp_path / "a.zip", {"NV/a.jpg": photo, "mel/b.jpg": photo})
    collection = _collect(handed, task=MULTICLASS)
    assert [image.label for image in collection.images] == ["mel"]
    assert _reasons(collection) == {"NV/a.jpg": "the diagnosis NV is outside the task"}
    with pytest.raises(TableError, match="No folder is a class of the task"):
        _collect(_zip(tmp_path / "b.zip", {"NV/a.jpg": photo}), task=MULTICLASS)


def test_loose_files_and_flat_zips_have_no_labels_and_every_image_its_own_id(
    tmp_path: Path, lesion_files: list[Path], photo: bytes
) -> None:
    handed = [UploadedFile(path, "same name.jpg") for path in lesion_files[:2]]
    collection = _collect(*handed, _zip(tmp_path / "a.zip", {"same name.jpg": photo}))
    assert [image.image_id for image in collection.images] == [
        "same name.jpg", "same name.jpg (2)", "same name.jpg (3)",
    ]  # fmt: skip
    assert not collection.labelled


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../evil.jpg", "its path leaves the ZIP"),
        ("a\\..\\..\\evil.jpg", "its path leaves the ZIP"),
        ("/etc/evil.jpg", "its path is absolute"),
        ("C:\\evil.jpg", "its path is absolute"),
        ("inner.zip", "it is an archive itself"),
        ("inner.tar.gz", "it is an archive itself"),
    ],
)
def test_hostile_members_are_skipped_with_a_reason(
    tmp_path: Path, photo: bytes, name: str, reason: str
) -> None:
    collection = _collect(_zip(tmp_path / "a.zip", {name: photo, "good.jpg": photo}))
    assert [image.file for image in collection.images] == ["good.jpg"]
    assert [item.reason for item in collection.left_out] == [reason]


def test_links_encryption_and_repeated_names_are_skipped(tmp_path: Path, photo: bytes) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(link, "/etc/passwd")
        archive.writestr("twice.jpg", photo)
        archive.writestr("twice.jpg", photo)
        archive.writestr("secret.jpg", photo)
    data = bytearray(path.read_bytes())
    # The flag of encryption, in the member's entry of the central directory.
    entry = data.rfind(b"PK\x01\x02", 0, data.rfind(b"secret.jpg"))
    data[entry + 8] |= 1
    path.write_bytes(data)
    collection = _collect(UploadedFile(path, "a.zip"))
    assert [image.file for image in collection.images] == ["twice.jpg"]
    assert _reasons(collection) == {
        "link.jpg": "it is a link",
        "twice.jpg": "the ZIP has another file of this name",
        "secret.jpg": "it is encrypted",
    }


def test_a_member_that_unpacks_to_far_more_is_skipped(tmp_path: Path, photo: bytes) -> None:
    members = {"bomb.bmp": bytes(1_000_000), "good.jpg": photo}
    collection = _collect(_zip(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED))
    assert _reasons(collection) == {"bomb.bmp": "it would unpack to more than 200 times its size"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_python_would_inflate_without_a_limit_are_skipped(
    tmp_path: Path, photo: bytes, method: int
) -> None:
    handed = _zip(tmp_path / "a.zip", {"good.jpg": photo})
    with zipfile.ZipFile(handed.path, "a") as archive:
        archive.writestr("other.jpg", photo, method)
    found = _collect(handed)
    assert [image.file for image in found.images] == ["good.jpg"]
    assert _reasons(found) == {"other.jpg": "its compression is not supported; use “deflate”"}


def test_an_archive_under_the_name_of_an_image_is_found_out(tmp_path: Path, photo: bytes) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a.jpg", photo)
    handed = _zip(tmp_path / "a.zip", {"a.jpg": inner.getvalue()})
    with opened_collection([handed], BINARY) as collection, pytest.raises(ImageError) as caught:
        collection.images[0].decode()
    assert caught.value.code == "nested_archive"


def test_zips_beyond_the_limits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = _zip(tmp_path / "many.zip", {f"{index}.jpg": b"" for index in range(10_001)})
    with pytest.raises(TableError, match="more than 10,000 members"):
        _collect(handed)
    large = _zip(tmp_path / "large.zip", {"a.jpg": bytes(3000)})
    monkeypatch.setattr(archives, "MAX_INFLATED_BYTES", 2000)
    with pytest.raises(TableError, match="would unpack to"):
        _collect(large)


def test_a_directory_that_claims_to_be_huge_is_not_even_read(tmp_path: Path, photo: bytes) -> None:
    handed = _zip(tmp_path / "a.zip", {"a.jpg": photo})
    padding = bytes(8_000_000)
    data = bytearray(padding + handed.path.read_bytes())
    # The size of the central directory, in the record that ends the file.
    data[-10:-6] = (7_000_000).to_bytes(4, "little")
    handed.path.write_bytes(data)
    with pytest.raises(TableError, match=r"more than 10,000 members"):
        _collect(handed)


def test_a_damaged_zip_is_refused_and_a_damaged_member_fails_alone(tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(TableError, match="can't be opened"):
        _collect(UploadedFile(tmp_path / "no.zip", "no.zip"))
    handed = _zip(tmp_path / "a.zip", {"a.jpg": photo, "b.jpg": photo})
    data = bytearray(handed.path.read_bytes())
    data[200] ^= 0xFF
    handed.path.write_bytes(data)
    with opened_collection([handed], BINARY) as collection:
        with pytest.raises(ImageError, match="damaged"):
            collection.images[0].decode()
        assert collection.images[1].decode().sha256


@pytest.mark.parametrize(
    "text",
    [
        "image_id,label,lesion_id,source,sex\na,nevus,L1,clinic,female\nb,others,L1,,\n",
        "\ufefffile;label;lesion_id;source;sex\na.jpg;nevus;L1;clinic;female\nb.jpg;others;L1;;\n",
        "image_id,diagnosis,lesion_group,dataset,sex\na,NV,L1,clinic,female\nb,BKL,L1,,\n",
    ],
)
def test_a_table_gives_labels_and_what_else_it_knows(two_photos: UploadedFile, table, text: str) -> None:
    collection = _collect(two_photos, table(text))
    first, second = collection.images
    assert [(image.file, image.label) for image in collection.images] == [
        ("a.jpg", "nevus"),
        ("b.jpg", "others"),
    ]
    assert (first.lesion_group, second.lesion_group) == ("L1", "L1")
    has_diagnosis = "diagnosis" in text
    assert first.source == "clinic"
    assert first.metadata == {"sex": "female"} | ({"diagnosis": "NV"} if has_diagnosis else {})


def test_a_table_in_the_zip_and_in_windows_letters(tmp_path: Path, photo: bytes) -> None:
    text = "file,label,source\na.jpg,nevus,Universitätsklinik\n".encode("cp1252")
    handed = _zip(tmp_path / "a.zip", {"images/a.jpg": photo, "labels.csv": text})
    collection = _collect(handed)
    assert collection.images[0].source == "Universitätsklinik"
    assert any("Windows-1252" in note for note in collection.notes)


def test_rows_without_image_and_images_without_row_are_listed(two_photos: UploadedFile, table) -> None:
    collection = _collect(two_photos, table("image_id,label\na,nevus\nzzz,others\n"))
    assert [image.image_id for image in collection.images] == ["a"]
    assert _reasons(collection) == {
        "zzz (line 3)": "it is in the table, but not among the files",
        "b.jpg": "it has no row in the table",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,diagnose\na,NV\n", "no column “label”"),
        ("name,label\na,nevus\n", "no column “file” or “image_id”"),
        ("image_id,label\na,mole\n\nb,benign\n", r"line 2: “mole” is not a class.*line 4: “benign” may be"),
        ("image_id,label\na,nevus\na,others\n", "line 3: “a” is already in line 2"),
        ("image_id,file,label\n1,a.jpg,nevus\n2,two/a.jpg,others\n", "line 3: “a.jpg” is already in line 2"),
        ("image_id,label\nx,nevus\n", "The table has none of the images"),
        ("image_id,label\n../c,nevus\n", "line 2: “../c” lies outside"),
        ("image_id,label\na\n", "line 2 has 1"),
        ("", "The table is empty"),
    ],
)
def test_mistakes_in_a_table_are_named_with_their_lines(
    two_photos: UploadedFile, table, text: str, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        _collect(two_photos, table(text))


def test_a_name_that_fits_several_files_is_no_guess(
    tmp_path: Path, photo: bytes, lesion_files: list[Path], table
) -> None:
    handed = _zip(tmp_path / "a.zip", {"one/a.jpg": photo, "two/a.jpg": lesion_files[1].read_bytes()})
    with pytest.raises(TableError, match="line 2: “a” may be any of 2 files"):
        _collect(handed, table("image_id,label\na,nevus\n"))
    collection = _collect(handed, table("image_id,file,label\n1,one/a.jpg,nevus\n2,two/a.jpg,others\n"))
    assert [image.file for image in collection.images] == ["one/a.jpg", "two/a.jpg"]


def test_what_makes_no_collection_is_refused(tmp_path: Path, two_photos: UploadedFile, table) -> None:
    labels = table("image_id,label\na,nevus\n")
    with pytest.raises(TableError, match="no image among the files"):
        _collect(labels)
    with pytest.raises(TableError, match="There are 2 tables"):
        _collect(two_photos, labels, labels)
    predictions = table("image_id,task,model,views,label_true\na,binary,m,1,nevus\n")
    assert are_prediction_tables([predictions])
    assert not are_prediction_tables([two_photos])
    with pytest.raises(TableError, match="evaluated without images"):
        _collect(two_photos, predictions)
    evil = _zip(tmp_path / "evil.zip", {"../a.jpg": b""})
    with pytest.raises(TableError, match="its path leaves the ZIP"):
        _collect(evil)


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_TABLE_BYTES", "MB"), ("MAX_TABLE_ROWS", "5 lines"), ("MAX_TABLE_CELLS", "5 cells")],
)
def test_tables_beyond_the_limits_are_not_even_read(
    tmp_path: Path, two_photos: UploadedFile, table, photo: bytes, monkeypatch, limit: str, message: str
) -> None:
    text = "image_id,label\n" + "".join(f"{index},nevus\n" for index in range(9))
    monkeypatch.setattr(collection, limit, 5)
    monkeypatch.setattr(collection, "read_csv", lambda source: pytest.fail("the table was read"))
    with pytest.raises(TableError, match=f"“labels.csv” has more than .*{message}"):
        _collect(two_photos, table(text))
    with pytest.raises(TableError, match=f"“in/labels.csv” has more than .*{message}"):
        _collect(_zip(tmp_path / "b.zip", {"a.jpg": photo, "in/labels.csv": text.encode()}))


def test_lone_carriage_returns_and_any_separator_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "MAX_TABLE_ROWS", 5)
    with pytest.raises(TableError, match="5 lines"):
        check_table_size(b"a\r" * 9, "t.csv")
    monkeypatch.setattr(collection, "MAX_TABLE_CELLS", 5)
    for separator in b",;\t":
        with pytest.raises(TableError, match="5 cells"):
            check_table_size(bytes([separator]) * 9, "t.csv")
    check_table_size(b"a,b\r\n1,2\r\n", "t.csv")


def test_of_a_prediction_table_only_the_header_is_looked_at(table) -> None:
    header = "\ufeff\n image_id ;task;model;views;label_true\n"
    assert are_prediction_tables([table(header + '"never closed\n')])
    assert not are_prediction_tables([table(header.replace("views", "view"))])
    assert not are_prediction_tables([table("")])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("a.jpg", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("a.jpg", "A"),
        ("deep/a.jpg", "DEEP/a"),
        ("x" * 300 + ".jpg", "x" * 300 + ".jpg"),
        ("a\u202eb.jpg", "a\u202eb"),
        ("a.b.png", "a.b"),
    ],
)
def test_image_ids_find_files_as_people_write_them(
    tmp_path: Path, photo: bytes, table, name: str, row: str
) -> None:
    handed = _zip(tmp_path / "a.zip", {name: photo, "other.jpg": photo})
    for column in ("image_id", "file"):
        if column == "file" and "." not in row:
            continue
        found = _collect(handed, table(f"{column},label\n{row},nevus\nother.jpg,others\n"))
        assert [image.label for image in found.images] == ["nevus", "others"]


def test_upper_and_lower_case_decide_where_both_are_there(tmp_path: Path, photo: bytes, table) -> None:
    handed = _zip(tmp_path / "a.zip", {"a.jpg": photo, "A.jpg": photo})
    found = _collect(handed, table("image_id,label\na.jpg,nevus\nA,others\n"))
    assert [(image.file, image.label) for image in found.images] == [("a.jpg", "nevus"), ("A.jpg", "others")]


@pytest.mark.parametrize("row", ["image_id,label\na.jpg,nevus\n", "file,label\na.jpg,nevus\n"])
def test_loose_files_of_one_name_are_no_guess(lesion_files: list[Path], table, row: str) -> None:
    loose = [UploadedFile(path, "a.jpg") for path in lesion_files[:2]]
    with pytest.raises(
        TableError, match=r"line 2: “a.jpg” may be any of 2 files, such as a.jpg, a.jpg \(2\)"
    ):
        _collect(*loose, table(row))


def test_an_id_with_two_suffixes_is_no_guess(
    tmp_path: Path, photo: bytes, lesion_files: list[Path], table
) -> None:
    handed = _zip(tmp_path / "a.zip", {"a.jpg": photo, "a.png": lesion_files[1].read_bytes()})
    with pytest.raises(TableError, match="line 2: “a” may be any of 2 files"):
        _collect(handed, table("image_id,label\na,nevus\n"))


def test_a_row_outside_the_task_is_listed_with_its_image_and_without(two_photos: UploadedFile, table) -> None:
    text = "image_id,diagnosis\na.jpg,MEL\nB,NV\nmissing,NV\n"
    found = _collect(two_photos, table(text), task=MULTICLASS)
    assert _reasons(found) == {
        "b.jpg": "the diagnosis NV is outside the task",
        "missing (line 4)": "the diagnosis NV is outside the task, and it is not among the files",
    }
