"""Tables and folders of labelled images: what is read, what is excluded, what is refused and how."""

import shutil
from pathlib import Path

import pytest

from dermadeit.data.manifest import SPLITS, check_leaks, read_source
from dermadeit.errors import TableError
from dermadeit.tasks import get_task

BINARY, MULTICLASS = get_task("binary"), get_task("multiclass")


def _table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_diagnoses_map_by_task_and_the_rest_is_counted(tmp_path: Path) -> None:
    table = _table(tmp_path, "image_id,file,diagnosis\na,a.jpg,MEL\nb,b.jpg,NV\nc,c.jpg,SCC\nd,d.jpg,NV\n")
    multiclass = read_source(table, MULTICLASS)
    assert [(row.image_id, row.label) for row in multiclass.rows] == [("a", "mel"), ("c", "scc")]
    assert multiclass.excluded == {"NV": 2}
    assert read_source(table, BINARY).class_counts == {"nevus": 2, "others": 2}


def test_labels_win_over_diagnoses_and_ids_find_their_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    table = _table(tmp_path, "image_id,label,diagnosis\nx,others,NV\ny,nevus,NV\n")
    rows = read_source(table, BINARY).rows
    assert [row.label for row in rows] == ["others", "nevus"]
    assert rows[0].path == tmp_path / "x.png"
    # Found missing when it is read, as a failure of that image.
    assert not rows[1].path.exists()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("\ufefffile,label\nä.jpg,nevus\n", "utf-8"),
        ("file;label\r\nä.jpg;nevus\r\n", "cp1252"),
        ("label\tfile\nnevus\tä.jpg\n", "utf-8"),
    ],
)
def test_reads_tables_as_spreadsheets_save_them(tmp_path: Path, text: str, encoding: str) -> None:
    [row] = read_source(_table(tmp_path, text, encoding), BINARY).rows
    assert (row.file, row.label) == ("ä.jpg", "nevus")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,nevus\n", "no column “file” or “image_id”"),
        ("file,group\na,nevus\n", "no column “label”"),
        ("file,label\na.jpg,nevus\nb.jpg,mole\n", "line 3: “mole” is not a class"),
        ("file,diagnosis\na.jpg,XYZ\n", "line 2: “XYZ” is not a class or a known diagnosis"),
        ("image_id,label\na,nevus\nb,nevus\na,others\n", "line 4: “a” is already in line 2"),
        ("image_id,file,label\n,,nevus\n", "line 2: neither"),
        ("file,label\n../secret.jpg,nevus\n", "line 2: “../secret.jpg” lies outside"),
        ("file,label\n/etc/passwd,nevus\n", "line 2: “/etc/passwd” lies outside"),
        ("file,label\n", "no row"),
        ("", "empty"),
        ("file,label,split\na.jpg,nevus,fold 3\n", "line 2: “fold 3” is not a split"),
        ("image_id,file,label\na,x.jpg,nevus\nb,./x.jpg,others\n", "line 3: “./x.jpg” is already in line 2"),
    ],
)
def test_refuses_tables_with_the_line_and_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_source(_table(tmp_path, text), BINARY)


def test_shows_the_first_problems_and_counts_the_rest(tmp_path: Path) -> None:
    table = _table(tmp_path, "file,label\n" + "".join(f"{n}.jpg,mole\n" for n in range(9)))
    with pytest.raises(TableError, match=r"line 6: .*and 4 more"):
        read_source(table, BINARY)


def test_class_folders_take_class_keys_and_diagnoses(tmp_path: Path) -> None:
    for name in ("Mel/a.jpg", "BCC/b.jpg", "BCC/deep/c.jpg", "NV/d.jpg", "NV/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    manifest = read_source(tmp_path, MULTICLASS)
    assert [(row.file, row.label) for row in manifest.rows] == [
        ("BCC/b.jpg", "bcc"),
        ("BCC/deep/c.jpg", "bcc"),
        ("Mel/a.jpg", "mel"),
    ]
    assert manifest.excluded == {"folder NV": 1}


def test_images_that_nobody_labelled_are_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPG", "notes.txt", "nevus/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert read_source(tmp_path, BINARY).excluded == {"not in a class folder": 2}
    table = _table(tmp_path, "file,label,split\na.jpg,nevus,test\n")
    assert read_source(table, BINARY).select("test").excluded == {"image without a row in the table": 1}


def test_what_had_to_be_assumed_about_a_table_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_source(_table(tmp_path, "file;label\nä.jpg;nevus\n", "cp1252"), BINARY)
    assert "1252" in caplog.text


def test_a_folder_without_classes_and_a_missing_source_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="nevus, others"):
        read_source(tmp_path, BINARY)
    with pytest.raises(TableError, match="no file or folder"):
        read_source(tmp_path / "missing.csv", BINARY)


def test_a_lesion_in_two_splits_is_refused(tmp_path: Path) -> None:
    header = "image_id,label,lesion_id,split\n"
    check_leaks(read_source(_table(tmp_path, header + "a,nevus,L1,train\nb,nevus,L1,train\n"), BINARY))
    leaking = read_source(_table(tmp_path, header + "a,nevus,L1,train\nb,nevus,L1,test\n"), BINARY)
    with pytest.raises(TableError, match="L1") as caught:
        check_leaks(leaking)
    assert caught.value.code == "lesion_leak"


def test_splits_are_selected_and_an_unknown_one_names_the_known(synthetic_data: Path) -> None:
    manifest = read_source(synthetic_data / "manifest.csv", BINARY)
    test_split = manifest.select("test")
    assert 0 < len(test_split.rows) < len(manifest.rows)
    assert {row.split for row in test_split.rows} == {"test"}
    whole = read_source(synthetic_data / "manifest.csv", MULTICLASS)
    by_split = [whole.select(split).excluded["NV"] for split in SPLITS]
    assert 0 < by_split[0] < sum(by_split) == whole.excluded["NV"]
    with pytest.raises(TableError, match="calibration, test, train, validation"):
        manifest.select("holdout")


def test_linked_image_folders_are_the_owners_business(tmp_path: Path, synthetic_data: Path) -> None:
    (tmp_path / "images").symlink_to(synthetic_data / "images")
    shutil.copy(synthetic_data / "manifest.csv", tmp_path)
    assert read_source(tmp_path / "manifest.csv", BINARY).rows[0].path.is_file()


def test_rows_keep_what_is_known_of_patient_and_picture(tmp_path: Path) -> None:
    header = "image_id,label,sex,age,anatomic_site,width,other\n"
    table = _table(tmp_path, header + "a,nevus,female,55.0,head/neck,200,x\nb,nevus,, ,,,\n")
    known, unknown = read_source(table, BINARY).rows
    assert known.metadata == {"sex": "female", "age": "55.0", "anatomic_site": "head/neck", "width": "200"}
    assert unknown.metadata == {}


@pytest.mark.parametrize("column", ["image_id", "file"])
def test_a_name_that_no_file_can_have_is_a_mistake_in_its_line(tmp_path: Path, column: str) -> None:
    for name in ("x" * 5000, "y" * 300 + "/a.jpg"):
        table = _table(tmp_path, f"{column},label\n{name},nevus\n")
        with pytest.raises(TableError, match=f"line 2: “{name[:40]}…” is not a valid file name") as caught:
            read_source(table, BINARY)
        assert len(caught.value.user_message) < 200


def test_a_path_outside_says_what_to_do_on_the_page_and_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="path within that folder"):
        read_source(_table(tmp_path, "file,label\n../a.jpg,nevus\n"), BINARY)


def test_an_id_twice_is_named(tmp_path: Path) -> None:
    table = _table(tmp_path, "image_id,file,label\na,x.jpg,nevus\nx,,others\n")
    with pytest.raises(TableError, match="line 3: “x” is already in line 2"):
        read_source(table, BINARY)
