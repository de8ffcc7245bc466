"""The same input gives the same images and classes through evaluate, prepare, the app and its API.

Each case is an input as people have it, made here of synthetic lesions: names, tables and folders that differ from
what a program would write. What is left out has its reason everywhere.
"""

import csv
import io
import json
import os
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import openpyxl
import pillow_heif
import pytest
from encoded_images import dicom_file, smooth_pixels
from PIL import Image
from repository import ROOT
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.data.collection import UploadedFile, opened_collection
from dermadeit.data.manifest import read_source
from dermadeit.data.tabular import read_csv
from dermadeit.errors import DermaDeiTError
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import BINARY, MALIGNANCY, Task
from dermadeit.views.batch import run
from dermadeit.views.batch.session import Session
from dermadeit.views.page.job import FilesJob
from train.prepare_isic2019 import main as prepare

DIAGNOSES = ("NV", "NV", "NV", "MEL", "MEL", "BCC")
FULL = {"NV": "melanocytic nevus", "MEL": "Melanoma, NOS", "BCC": "Basal cell carcinoma"}
WHOLE = {f"p{number}": "nevus" if key == "NV" else "others" for number, key in enumerate(DIAGNOSES)}


@dataclass(frozen=True)
class Given:
    """An input: a folder of images, and a table beside it where there is one.

    Attributes:
        table: Labels; None where the folders have the names of classes, or the table is in the folder.
        expected: Stem of the image's file to its class; None where the input is refused.
        code: Of the refusal, by evaluate and the app.
        archive: The same images in a ZIP.
        prepare: The option of the preparation that reads it; an empty string where it has none.
        unreadable: Stems of images that are found, but that hold no picture which can be decoded.
        output_is_taken: A file has the name of the folder for results.
        code_page: Of the command's redirected output.
    """

    images: Path
    table: Path | None = None
    expected: dict[str, str] | None = field(default_factory=lambda: dict(WHOLE))
    code: str = ""
    archive: Path | None = None
    prepare: str = "--csv"
    unreadable: tuple[str, ...] = ()
    output_is_taken: bool = False
    code_page: str = "utf-8"


Maker = Callable[[Path, list[bytes]], Given]
CASES: dict[str, Maker] = {}


def case(maker: Maker) -> Maker:
    CASES[maker.__name__.strip("_")] = maker
    return maker


def _images(folder: Path, photos: list[bytes], name: str = "{stem}.jpg") -> Path:
    images = folder / "img"
    for number, photo in enumerate(photos):
        key = DIAGNOSES[number]
        path = images / name.format(stem=f"p{number}", full=FULL[key].replace(", NOS", ""), key=key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    return images


def _table(folder: Path, header: str, row: str, *, encoding: str = "utf-8", end: str = "\n") -> Path:
    rows = [
        row.format(n=number, id=f"p{number}", key=key, full=FULL[key], low=key.lower())
        for number, key in enumerate(DIAGNOSES)
    ]
    path = folder / "labels.csv"
    path.write_bytes(end.join([header, *rows, ""]).encode(encoding))
    return path


@case
def ham10000_columns(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "lesion_id,image_id,dx,age,sex,localization", "L{n},{id},{low},50.0,male,back")
    return Given(_images(folder, photos), table)


@case
def ham10000_twice(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "HAM10000_images_part_1/{stem}.jpg")
    _images(folder, photos, "ham10000_images_part_1 copy/{stem}.jpg")
    return Given(images, _table(folder, "image_id,dx", "{id},{low}"))


@case
def labels_in_full_and_synonyms(folder: Path, photos: list[bytes]) -> Given:
    return Given(_images(folder, photos), _table(folder, "Image Name;Diagnosis", "{id};{full}"))


@case
def folders_named_in_full(folder: Path, photos: list[bytes]) -> Given:
    return Given(_images(folder, photos, "set/{full}/{stem}.jpg"), prepare="--class-folders")


@case
def jfif_and_capitals(folder: Path, photos: list[bytes]) -> Given:
    return Given(_images(folder, photos, "{key}/{stem}.JFIF"), prepare="--class-folders")


@case
def suffix_that_differs(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "sub/{stem}.JPG")
    return Given(images, _table(folder, "file;diagnosis", "{id}.jpeg;{key}", encoding="utf-8-sig"))


@case
def decomposed_names(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "file,diagnosis", "Rücken_{id}.jpg,{key}")
    images = _images(folder, photos, unicodedata.normalize("NFD", "Rücken_{stem}.jpg"))
    return Given(images, table, {f"Rücken_{stem}": label for stem, label in WHOLE.items()})


@case
def folders_of_another_machine(folder: Path, photos: list[bytes]) -> Given:
    return Given(_images(folder, photos), _table(folder, "file,diagnosis", "/home/doc/derm/{id}.jpg,{key}"))


@case
def windows_folders(folder: Path, photos: list[bytes]) -> Given:
    return Given(_images(folder, photos), _table(folder, "file,diagnosis", "C:\\derm\\{id}.jpg,{key}"))


@case
def index_and_empty_columns_and_rows(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, ",file,diagnosis,,", "{n},{id}.jpg,{key},,")
    table.write_text(table.read_text() + ",,,,\n,,,,\n")
    return Given(_images(folder, photos), table)


@case
def separator_line_in_utf16(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "sep=;\nfile;diagnosis", "{id}.jpg;{key}", encoding="utf-16", end="\r\n")
    return Given(_images(folder, photos), table)


@case
def excel(folder: Path, photos: list[bytes]) -> Given:
    workbook = openpyxl.Workbook()
    for row in (["Image ID", "Diagnosis"], *([f"p{number}", key] for number, key in enumerate(DIAGNOSES))):
        workbook.active.append(row)
    workbook.save(folder / "labels.xlsx")
    return Given(_images(folder, photos), folder / "labels.xlsx")


@case
def one_row_without_label_and_one_unknown(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "file,diagnosis", "{id}.jpg,{key}")
    table.write_text(table.read_text().replace("p0.jpg,NV", "p0.jpg,").replace("p5.jpg,BCC", "p5.jpg,scar"))
    return Given(_images(folder, photos), table, _without("p0", "p5"))


@case
def two_labels_for_one_image(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "file,diagnosis", "{id}.jpg,{key}")
    table.write_text(table.read_text() + "p0.jpg,MEL\np1.jpg,NV\n")
    return Given(_images(folder, photos), table, _without("p0"))


@case
def ambiguous_names(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos)
    (images / "other").mkdir()
    (images / "other" / "p0.jpg").write_bytes(photos[1])
    (images / "p0.jpg").rename(images.joinpath("first").with_suffix(".tmp"))
    (images / "one").mkdir()
    (images / "first.tmp").rename(images / "one" / "p0.jpg")
    return Given(images, _table(folder, "image_id,diagnosis", "{id},{key}"), _without("p0"))


@case
def one_hot_with_other_numbers(folder: Path, photos: list[bytes]) -> Given:
    table = folder / "truth.csv"
    columns = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *columns])
        for number, key in enumerate(DIAGNOSES):
            writer.writerow([f"p{number}", *("1.00" if key == column else "0.00" for column in columns)])
    return Given(_images(folder, photos), table)


@case
def milk10k_by_lesion(folder: Path, photos: list[bytes]) -> Given:
    images = folder / "img"
    lines = ["lesion_id,AKIEC,BCC,BEN_OTH,MEL,NV,SCCKA"]
    for number, (photo, key) in enumerate(zip(photos, DIAGNOSES, strict=True)):
        (images / f"IL_{number}").mkdir(parents=True)
        (images / f"IL_{number}" / f"p{number}.jpg").write_bytes(photo)
        marks = (float(key == column) for column in ("AKIEC", "BCC", "BEN_OTH", "MEL", "NV", "SCCKA"))
        lines.append(f"IL_{number},{','.join(map(str, marks))}")
    (folder / "MILK10k_Training_GroundTruth.csv").write_text("\n".join(lines) + "\n")
    return Given(images, folder / "MILK10k_Training_GroundTruth.csv")


@case
def isic_archive_export(folder: Path, photos: list[bytes]) -> Given:
    table = _table(
        folder,
        "isic_id,age_approx,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,lesion_id",
        '{id},50,Malignant,,"{full}",,IL_{n}',
    )
    table.write_text(table.read_text().replace('Malignant,,"melanocytic nevus"', 'Benign,,"Nevus"'))
    return Given(_images(folder, photos), table)


@case
def pad_ufes_20(folder: Path, photos: list[bytes]) -> Given:
    table = _table(
        folder,
        "patient_id,lesion_id,age,gender,region,diagnostic,img_id",
        "PAT_{n},L{n},50,MALE,ARM,{key},{id}.jpg",
    )
    table.write_text(table.read_text().replace(",NV,", ",NEV,").replace(",BCC,", ",ACK,"))
    return Given(_images(folder, photos), table)


@case
def derm7pt(folder: Path, photos: list[bytes]) -> Given:
    table = _table(
        folder, "case_num,diagnosis,location,clinic,derm", "{n},{full},arm,NEL/c{n}.jpg,NEL/{id}.JPG"
    )
    text = table.read_text().replace("Melanoma, NOS", "melanoma (in situ)")
    table.write_text(text.replace("melanocytic nevus", "clark nevus"))
    return Given(_images(folder, photos, "NEL/{stem}.jpg"), table)


@case
def system_files_in_class_folders(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "{key}/{stem}.jpg")
    for name in ("NV/Thumbs.db", "MEL/desktop.ini", "BCC/.DS_Store", "__MACOSX/NV/._p0.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"no photo")
    (images / "MEL" / "notes.csv").write_text("who,when\nme,today\n")
    return Given(images, prepare="--class-folders")


@case
def a_copy_in_another_folder_of_the_class(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "{key}/{stem}.jpg")
    (images / "NV" / "again").mkdir()
    (images / "NV" / "again" / "p0.jpg").write_bytes(photos[0])
    return Given(images, prepare="--class-folders")


@case
def benign_and_malignant(folder: Path, photos: list[bytes]) -> Given:
    images = folder / "img"
    for number, (photo, key) in enumerate(zip(photos, DIAGNOSES, strict=True)):
        path = images / ("benign" if key == "NV" else "malignant") / f"p{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    return Given(images, expected=None, code="single_class", prepare="--class-folders")


@case
def notes_among_the_images_of_a_class(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "{key}/{stem}.jpg")
    (images / "MEL" / "notes.csv").write_text("file;diagnosis\np3.jpg;BKL\n")
    return Given(images, prepare="--class-folders")


@case
def copies_under_other_names(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos)
    (images / "sub").mkdir()
    (images / "sub" / "again.jpg").write_bytes(photos[0])
    (images / "twice.jpg").write_bytes(photos[1])
    table = _table(folder, "file,diagnosis", "{id}.jpg,{key}")
    table.write_text(table.read_text() + "again.jpg,nv\ntwice.jpg,MEL\n")
    return Given(images, table, _without("p1"))


@case
def copies_under_other_names_in_class_folders(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "{key}/{stem}.jpg")
    (images / "NV" / "z.jpg").write_bytes(photos[0])
    (images / "BCC" / "z.jpg").write_bytes(photos[3])
    return Given(images, expected=_without("p3"), prepare="--class-folders")


@case
def rows_with_too_many_or_too_few_cells(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "file,diagnosis,note", "{id}.jpg,{key},seen")
    text = table.read_text().replace("p0.jpg,NV,seen", "p0.jpg,NV,seen, twice")
    table.write_text(text.replace("p3.jpg,MEL,seen", "p3.jpg"))
    return Given(_images(folder, photos), table, _without("p0", "p3"))


@case
def names_of_japanese_windows(folder: Path, photos: list[bytes]) -> Given:
    return _zipped_in_code_page(folder, photos, "黒子", "cp932")


@case
def names_of_chinese_windows(folder: Path, photos: list[bytes]) -> Given:
    return _zipped_in_code_page(folder, photos, "痣病", "gbk")


@case
def names_of_a_western_zip(folder: Path, photos: list[bytes]) -> Given:
    return _zipped_in_code_page(folder, photos, "Rücken", "cp437")


@case
def names_of_japanese_windows_unpacked_as_others(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, f"{'黒子'.encode('cp932').decode('cp437')}_{{stem}}.jpg")
    table = _table(folder, "file,diagnosis", "黒子_{id}.jpg,{key}")
    return Given(images, table, {f"黒子_{stem}": label for stem, label in WHOLE.items()})


@case
def table_of_japanese_windows(folder: Path, photos: list[bytes]) -> Given:
    return _table_in_code_page(folder, photos, "黒子", "cp932")


@case
def table_of_chinese_windows(folder: Path, photos: list[bytes]) -> Given:
    return _table_in_code_page(folder, photos, "痣病", "gbk")


@case
def a_header_that_contradicts_its_pixels(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "{key}/{stem}.jpg")
    (images / "NV" / "p0.jpg").unlink()
    (images / "NV" / "p0.dcm").write_bytes(dicom_file(smooth_pixels(), "YBR_FULL_422"))
    (images / "NV" / "p1.jpg").unlink()
    (images / "NV" / "p1.dcm").write_bytes(dicom_file(smooth_pixels(), "RGB"))
    return Given(images, expected=_without("p0"), prepare="--class-folders", unreadable=("p0",))


@case
def photos_of_phones_and_of_the_web(folder: Path, photos: list[bytes]) -> Given:
    images = _images(folder, photos, "{key}/{stem}.jpg")
    for name, kind in (("NV/p0", "heic"), ("NV/p1", "gif"), ("MEL/p3", "avif"), ("MEL/p4", "webp")):
        with Image.open(images / f"{name}.jpg") as picture:
            if kind == "heic":
                pillow_heif.from_pillow(picture).save(images / f"{name}.{kind}", quality=90)
            else:
                picture.save(images / f"{name}.{kind}")
        (images / f"{name}.jpg").unlink()
    # AVIF is refused with its reason.
    return Given(images, expected=_without("p3"), prepare="--class-folders", unreadable=("p3",))


@case
def a_small_set_with_patients(folder: Path, photos: list[bytes]) -> Given:
    return Given(_images(folder, photos), _table(folder, "image,class,patient_id", "{id},{key},P{n}"))


@case
def an_output_that_is_a_file(folder: Path, photos: list[bytes]) -> Given:
    table = _table(folder, "file,diagnosis", "{id}.jpg,{key}")
    return Given(_images(folder, photos), table, output_is_taken=True)


@case
def output_redirected_on_windows(folder: Path, photos: list[bytes]) -> Given:
    given = decomposed_names(folder, photos)
    assert given.table is not None
    # The command prints the label that it does not know, and these letters are not in the code page.
    given.table.write_text(given.table.read_text().replace("BCC", "基底"))
    expected = {stem: label for stem, label in (given.expected or {}).items() if not stem.endswith("p5")}
    return replace(given, expected=expected, code_page="cp1252")


def _zipped_in_code_page(folder: Path, photos: list[bytes], name: str, code_page: str) -> Given:
    images = _images(folder, photos, f"{name}_{{stem}}.jpg")
    archive = folder / "photos.zip"
    letters = name.encode(code_page)
    with zipfile.ZipFile(archive, "w") as content:
        for path in sorted(images.iterdir()):
            content.writestr(path.name.replace(name, "x" * len(letters)), path.read_bytes())
    # Python writes such names as UTF-8 and says so; these are of a code page and say nothing.
    archive.write_bytes(archive.read_bytes().replace(b"x" * len(letters) + b"_p", letters + b"_p"))
    table = _table(folder, "file,diagnosis", f"{name}_{{id}}.jpg,{{key}}")
    return Given(images, table, {f"{name}_{stem}": label for stem, label in WHOLE.items()}, archive=archive)


def _table_in_code_page(folder: Path, photos: list[bytes], name: str, code_page: str) -> Given:
    table = _table(folder, "file,diagnosis", f"{name}_{{id}}.jpg,{{key}}", encoding=code_page)
    expected = {f"{name}_{stem}": label for stem, label in WHOLE.items()}
    return Given(_images(folder, photos, f"{name}_{{stem}}.jpg"), table, expected)


def _without(*stems: str) -> dict[str, str]:
    return {stem: label for stem, label in WHOLE.items() if stem not in stems}


# ---------------------------------------------------------------------------------------------- entrances


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """Six pictures that share nothing, so that no preparation takes them for copies."""
    encoded = []
    for number in range(len(DIAGNOSES)):
        buffer = io.BytesIO()
        Image.effect_noise((96, 80), 20 + 12 * number).convert("RGB").save(buffer, "JPEG", quality=92)
        encoded.append(buffer.getvalue())
    return encoded


def _handed(given: Given) -> list[UploadedFile]:
    if given.archive:
        files = [UploadedFile(given.archive, given.archive.name)]
    else:
        paths = [path for path in sorted(given.images.rglob("*")) if path.is_file()]
        files = [UploadedFile(path, f"img/{path.relative_to(given.images).as_posix()}") for path in paths]
    return [*files, *([UploadedFile(given.table, given.table.name)] if given.table else [])]


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", Path(name.replace("\\", "/")).stem)


def _source(given: Given) -> list[str]:
    images = str(given.archive or given.images)
    return [str(given.table), "--images", images] if given.table else [images]


def _evaluated(given: Given, output: Path) -> dict[str, str] | str:
    source = _source(given)
    command = [
        "evaluate",
        *source,
        "--task",
        "binary",
        "--views",
        "1",
        "--no-slices",
        "--output",
        str(output),
    ]
    result = CliRunner(charset=given.code_page).invoke(app, command)
    if result.exit_code == 2:
        return result.stderr
    assert result.exit_code == (3 if given.unreadable else 0), result.output
    metrics = json.loads((output / "metrics.json").read_text())["dermadeit"]
    labelled = sum(entry["images"] for entry in metrics["ledger"]["labels"] if entry["taken_for"])
    assert labelled == metrics["n"] + metrics["failed"]
    failures = read_csv(output / "failures.csv").rows if given.unreadable else []
    assert {_stem(row["file"]) for row in failures if row["message"]} == set(given.unreadable)
    rows = read_csv(output / "predictions.csv").rows
    counts = f"nevus {sum(row['label_true'] == 'nevus' for row in rows)}"
    assert counts in result.stdout
    return {_stem(row["file"] or row["image_id"]): row["label_true"] for row in rows}


def _prepared(given: Given, output: Path, task: Task = BINARY) -> dict[str, str] | int:
    code = prepare([given.prepare, *_source(given), "--output", str(output), "--workers", "1"])
    if code:
        return code
    left_out = {_stem(row["file"]) for row in read_csv(output / "exclusions.csv").rows if row["detail"]}
    assert left_out >= set(given.unreadable)
    rows = read_source(output / "manifest.csv", task).rows
    return {_stem(f"{row.image_id}.jpg"): row.label for row in rows}


def _collected(given: Given) -> dict[str, str] | str:
    try:
        with opened_collection(_handed(given), BINARY) as collection:
            left_out = collection.left_out
            assert all(item.reason for item in left_out)
            return {_stem(image.file): image.label for image in collection.images}
    except DermaDeiTError as error:
        return error.code


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, predictors: dict[str, Predictor], tmp_path: Path):
    """What `/evaluate` reads of files that were uploaded."""

    def read(given: Given) -> dict[str, str] | str:
        @contextmanager
        def uploaded(*_) -> Iterator[list[UploadedFile]]:
            yield _handed(given)

        monkeypatch.setattr(run, "take_uploads", uploaded)
        zoo = ModelZoo(loaded={("binary", "dermadeit"): predictors["binary"]})
        (tmp_path / "job").mkdir()
        session = Session(FilesJob(tmp_path / "job"))
        try:
            for _ in run.read_batch(zoo, run.Order([], "binary", ["dermadeit"], 1), session):
                continue
        except DermaDeiTError as error:
            return error.code
        assert session.result.ledger is not None
        failed = {_stem(item.image.file) for item, _ in session.result.failed("dermadeit")}
        assert failed == set(given.unreadable)
        return {_stem(item.image.file): item.image.label for item, _ in session.result.read("dermadeit")}

    return read


@pytest.mark.parametrize("name", CASES)
def test_every_entrance_reads_the_same(
    name: str, photos: list[bytes], tmp_path: Path, predictors: dict[str, Predictor], monkeypatch, api
) -> None:
    monkeypatch.setattr(
        "dermadeit.inference.predictor.load_predictor", lambda task, *_, **__: predictors[task]
    )
    (tmp_path / "in").mkdir()
    given = CASES[name](tmp_path / "in", photos)
    if given.expected is None:
        assert _collected(given) == api(given) == given.code
        message = _evaluated(given, tmp_path / "out")
        assert "Only images of the class" in message
        # What says too little for this task is just what another one asks.
        of_malignancy = {"others": "malignant", "nevus": "benign"}
        expected = {stem: of_malignancy[label] for stem, label in WHOLE.items()}
        assert _prepared(given, tmp_path / "data", MALIGNANCY) == expected
        return
    assert _collected(given) == given.expected | {stem: WHOLE[stem] for stem in given.unreadable}
    assert api(given) == given.expected
    if given.output_is_taken:
        (tmp_path / "out").touch()
        assert "Choose another" in _evaluated(given, tmp_path / "out")
        assert _prepared(given, tmp_path / "out") == 2
        return
    assert _evaluated(given, tmp_path / "out") == given.expected
    assert _prepared(given, tmp_path / "data") == given.expected


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from train import distill, evaluate_teacher, programme

    taken = tmp_path / "a file"
    taken.touch()
    for options in (
        ["evaluate", "missing.csv", "--task", "binary"],
        ["robustness", "missing.csv", "--task", "binary"],
    ):
        result = CliRunner().invoke(app, [*options, "--output", str(taken / "out")])
        assert result.exit_code == 2
        assert "Choose another" in result.stderr
    for program, options in (
        (prepare, ["--class-folders", "missing"]),
        (distill.main, ["--data", "missing"]),
        (evaluate_teacher.main, ["--teacher", "none", "--data", "missing"]),
        (programme.main, []),
    ):
        caplog.clear()
        assert program([*options, "--output", str(taken / "out")]) == 2
        assert "Choose another" in caplog.text


@pytest.mark.slow
def test_letters_that_a_code_page_lacks_are_escaped(tmp_path: Path, photos: list[bytes]) -> None:
    name = unicodedata.normalize("NFD", "Rücken.jpg")
    (tmp_path / name).write_bytes(photos[0])
    command = [
        sys.executable,
        "-m",
        "dermadeit",
        "predict",
        name,
        "missing.jpg",
        "--task",
        "binary",
        "--views",
        "1",
    ]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 3
    assert [line.split(b"\t")[0] for line in result.stdout.splitlines()] == [
        b"Ru\\u0308cken.jpg",
        b"missing.jpg",
    ]


def test_figures_of_the_one_class_that_could_be_read_are_refused(
    photos: list[bytes], tmp_path: Path, predictors: dict[str, Predictor], monkeypatch
) -> None:
    monkeypatch.setattr(
        "dermadeit.inference.predictor.load_predictor", lambda task, *_, **__: predictors[task]
    )
    (tmp_path / "in").mkdir()
    given = CASES["jfif_and_capitals"](tmp_path / "in", [*photos[:3], b"x", b"y", b"z"])
    options = ["evaluate", str(given.images), "--task", "binary", "--views", "1", "--no-slices"]
    result = CliRunner().invoke(app, [*options, "--output", str(tmp_path / "out")])
    assert result.exit_code == 3
    assert "accuracy" not in result.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["dermadeit"]
    assert metrics["not_measured"] in result.stderr
    assert (metrics["n"], metrics["failed"]) == (3, 3)
    assert len(read_csv(tmp_path / "out" / "predictions.csv").rows) == 3


@pytest.mark.parametrize("as_zip", [False, True])
def test_system_files_are_counted_and_a_zip_is_read_as_its_folder(
    photos: list[bytes], tmp_path: Path, as_zip: bool
) -> None:
    (tmp_path / "in").mkdir()
    given = CASES["system_files_in_class_folders"](tmp_path / "in", photos)
    source = given.images
    if as_zip:
        source = tmp_path / "set.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(given.images.rglob("*")):
                archive.write(path, path.relative_to(given.images))
    with ExitStack() as opened:
        manifest = read_source(source, BINARY, opened=opened)
        assert {_stem(row.file): row.label for row in manifest.rows} == WHOLE
    assert any(note.startswith("Passed over, because they are no images: 4") for note in manifest.notes)
    assert any("notes.csv" in note for note in manifest.notes)
