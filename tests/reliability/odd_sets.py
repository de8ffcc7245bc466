"""ZIPs that attack, and tables of labels as nobody should write them, each with four small photos."""

from __future__ import annotations

import functools
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

import openpyxl
from cases import SetCase
from encoded_images import encoded
from PIL import Image

from dermadeit.errors import ErrorCode

SETS: list[SetCase] = []

CLASSES = ("nevus", "nevus", "others", "others")
"""Of the four photos, for the task binary."""


@functools.cache
def photos() -> tuple[bytes, ...]:
    """Four photos that share nothing."""
    return tuple(
        encoded(Image.effect_noise((80, 72), 30 + 20 * number).convert("RGB"), "JPEG", quality=80)
        for number in range(len(CLASSES))
    )


def in_class_folders() -> dict[str, bytes]:
    """Path in a set to bytes: every photo in a folder of its class."""
    return {
        f"{label}/p{number}.jpg": photo
        for number, (label, photo) in enumerate(zip(CLASSES, photos(), strict=True))
    }


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def raw_zip(members: Sequence[Mapping[str, object]]) -> bytes:
    """A ZIP whose directory says what no honest program would: each member with `name`, `data` and its lies.

    Lies are `offset`, `size`, `packed`, `method`, `flags`, `attributes` and `extra` of the central directory.
    """
    body, directory = b"", b""
    for member in members:
        name, data = member["name"], member.get("data", b"")
        method, flags = member.get("method", 0), member.get("flags", 0)
        packed = member.get("packed", len(data))
        checks = (20, flags, method, 0, 33, zlib.crc32(data))
        extra = member.get("extra", b"")
        directory += (
            struct.pack("<IH5HI", 0x02014B50, 20, *checks)
            + struct.pack("<IIHHHHH", packed, member.get("size", len(data)), len(name), len(extra), 0, 0, 0)
            + struct.pack("<II", member.get("attributes", 0), member.get("offset", len(body)))
            + name
            + extra
        )
        body += struct.pack("<I5HI", 0x04034B50, *checks)
        body += struct.pack("<IIHH", len(data), len(data), len(name), 0) + name + data
    count = len(members)
    return (
        body
        + directory
        + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), len(body), 0)
    )


def _good(name: bytes = b"nevus/good.jpg", number: int = 0) -> dict[str, object]:
    return {"name": name, "data": photos()[number]}


# ---------------------------------------------------------------------------------------------- archives

_ZIP = (
    "ZIP: path traversal, absolute path, symlink, nested archive, encrypted, 10,000+ members, over 1 GB inflated, "
    "ratio over 200"
)


def _add_zip(name: str, make: Callable[[], bytes], code: ErrorCode | None = None, **more) -> None:
    more = {"source_code": None if more.get("is_labelled") else code or ErrorCode.NO_IMAGES} | more
    SETS.append(SetCase(_ZIP, name, lambda: {"set.zip": make()}, code=code, **more))


def _add_member(name: str, member: Callable[[], dict[str, object]]) -> None:
    """A ZIP with the four photos and one member that is left out."""

    def make() -> bytes:
        good = [{"name": path.encode(), "data": data} for path, data in in_class_folders().items()]
        return raw_zip([*good, member()])

    _add_zip(f"ZIP with {name}", make, images=4, left_out={"refused": 1}, is_labelled=True)


for _name, _path in (
    ("a member that climbs out", b"nevus/../../../etc/cron.d/p.jpg"),
    ("a member that climbs out by backslashes", b"nevus\\..\\..\\p.jpg"),
    ("an absolute path", b"/etc/p.jpg"),
    ("a drive letter", b"C:\\nevus\\p.jpg"),
    ("a share of Windows", b"\\\\host\\share\\nevus\\p.jpg"),
    ("a member without a name", b""),
    ("a name that is taken", b"nevus/p0.jpg"),
    ("a ZIP inside", b"nevus/inner.zip"),
    ("a RAR inside", b"nevus/inner.rar"),
):
    _add_member(_name, functools.partial(_good, _path))
for _name, _lies in (
    ("a symlink", {"attributes": (stat.S_IFLNK | 0o777) << 16, "data": b"/etc/passwd"}),
    ("a device", {"attributes": (stat.S_IFCHR | 0o666) << 16}),
    ("a pipe", {"attributes": (stat.S_IFIFO | 0o666) << 16}),
    ("an encrypted member", {"flags": 1}),
    ("a member packed by bzip2", {"method": zipfile.ZIP_BZIP2}),
    ("a member packed by LZMA", {"method": zipfile.ZIP_LZMA}),
    ("a member packed by an unknown method", {"method": 97}),
    ("a member that would unpack to 300 times its size", {"size": 300_000, "packed": 1000, "method": 8}),
):
    _add_member(_name, functools.partial(lambda lies: {"name": b"nevus/odd.jpg", "data": b"x"} | lies, _lies))


def _cut(share: float) -> bytes:
    data = zipped(in_class_folders())
    return data[: int(len(data) * share)]


def _beyond_the_file() -> bytes:
    data = raw_zip([_good()])
    end = data.rindex(b"PK\5\6")
    zip64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 1, 1, 51, 2**64 - 10)
    zip64 += struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    return (
        data[:end] + zip64 + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


_add_zip("ZIP of photos in class folders", lambda: zipped(in_class_folders()), images=4, is_labelled=True)
_add_zip(
    "ZIP that is not compressed",
    lambda: zipped(in_class_folders(), zipfile.ZIP_STORED),
    images=4,
    is_labelled=True,
)
_add_zip(
    "ZIP behind a program",
    lambda: b"MZ" + bytes(500) + zipped(in_class_folders()),
    images=4,
    is_labelled=True,
)
_add_zip("half a ZIP", lambda: _cut(0.5), ErrorCode.DAMAGED_ARCHIVE)
_add_zip("ZIP without its last byte", lambda: _cut(0.9999), ErrorCode.DAMAGED_ARCHIVE)
_add_zip("text called .zip", lambda: b"no ZIP at all", ErrorCode.DAMAGED_ARCHIVE)
_add_zip("ZIP without a byte", bytes, ErrorCode.DAMAGED_ARCHIVE)
_add_zip("ZIP without a member", lambda: zipped({}), ErrorCode.NO_IMAGES)
_add_zip("ZIP whose directory lies beyond its end", _beyond_the_file, ErrorCode.DAMAGED_ARCHIVE)
_add_zip(
    "ZIP with 10,001 members",
    lambda: raw_zip([{"name": b"%d" % number} for number in range(10_001)]),
    ErrorCode.TOO_MANY_MEMBERS,
)
_add_zip(
    "ZIP that would unpack to 2 GB",
    lambda: raw_zip([{"name": b"a.jpg", "size": 2_000_000_000, "packed": 20_000_000, "method": 8}]),
    ErrorCode.ARCHIVE_TOO_LARGE,
)
_add_zip(
    "ZIP with nothing but files of macOS",
    lambda: zipped({"__MACOSX/._p0.jpg": b"x", ".DS_Store": b"x", "nevus/.hidden.jpg": b"x"}),
    ErrorCode.NO_IMAGES,
)
_add_zip(
    "ZIP with nothing but members that climb out",
    lambda: zipped({"../p.jpg": photos()[0]}),
    ErrorCode.NO_IMAGES,
)

_SOME_BAD = "ZIP or folder with some bad images"


def _add_bad(name: str, data: Callable[[], bytes], lies: Mapping[str, object] | None = None) -> None:
    """A ZIP in which one image can't be read: it is among the images, and fails when its turn comes."""

    def make() -> Mapping[str, bytes]:
        good = [{"name": path.encode(), "data": content} for path, content in in_class_folders().items()]
        return {"set.zip": raw_zip([*good, {"name": b"nevus/bad.jpg", "data": data(), **(lies or {})}])}

    SETS.append(SetCase(_SOME_BAD, f"ZIP with {name}", make, images=5, is_labelled=True))


_add_bad("an image of no bytes", bytes)
_add_bad("half an image", lambda: photos()[0][:300])
_add_bad("a text called .jpg", lambda: b"no photo")
_add_bad("an archive called .jpg", lambda: zipped({"a": b"b"}))
_add_bad("a member whose place is beyond the file", lambda: photos()[0], {"offset": 2**31})
_add_bad(
    "a member whose place no file has",
    lambda: photos()[0],
    {"offset": 2**32 - 1, "extra": struct.pack("<HHQ", 1, 8, 2**64 - 1)},
)
_add_bad("a member that declares more than it has", lambda: photos()[0], {"size": 9_000, "packed": 9_000})
_add_bad("a member whose deflated bytes are damaged", lambda: b"\xff" * 50, {"method": 8, "size": 500})
SETS.append(
    SetCase(
        _SOME_BAD,
        "folder with two images that can't be read",
        lambda: in_class_folders() | {"others/empty.png": b"", "nevus/paper.jpg": b"%PDF-1.7\n"},
        images=6,
        is_labelled=True,
    )
)
SETS.append(
    SetCase(
        _SOME_BAD,
        "loose photos without labels",
        lambda: {f"p{number}.jpg": photo for number, photo in enumerate(photos())},
        images=4,
        source_code=ErrorCode.NO_IMAGES,
    )
)
SETS.append(
    SetCase(
        _SOME_BAD,
        "names that climb out of an uploaded folder",
        lambda: in_class_folders() | {"nevus/../../up.jpg": photos()[0], "/etc/abs.jpg": photos()[1]},
        images=4,
        left_out={"refused": 2},
        is_labelled=True,
    )
)
SETS.append(
    SetCase(
        _SOME_BAD,
        "a file 40 folders deep",
        lambda: in_class_folders() | {f"nevus/{'a/' * 40}deep.jpg": photos()[0]},
        images=4,
        left_out={"refused": 1},
        is_labelled=True,
    )
)
SETS.append(
    SetCase(
        "`Thumbs.db`, `.DS_Store`, `__MACOSX`, `desktop.ini`, CSV beside images",
        "class folders with files of operating systems",
        lambda: (
            in_class_folders()
            | {
                "nevus/Thumbs.db": b"x",
                "others/desktop.ini": b"x",
                "nevus/.DS_Store": b"x",
                "__MACOSX/a.jpg": b"x",
            }
        ),
        images=4,
        left_out={"hidden": 4},
        is_labelled=True,
    )
)

# ------------------------------------------------------------------------------------------------ tables

_COLUMNS = "columns of other names or case"
_NAMES_OF_DIAGNOSES = "diagnoses in full, lower case, synonyms"
_FORM = "CSV with index column, empty columns, `sep=;`, empty rows, cp1252, UTF-16; Excel (`.xlsx`)"
_ROWS = "rows with an unknown class, a repeated id, no image, no label"
_TABLE = "labels table: no usable column, nothing usable in it"
_FOUND = "names that differ in case, suffix, Unicode form, Windows or POSIX folders, no suffix, subfolders"
_FORMULAS = "CSV export cells starting with = + - @ tab CR"


def with_table(table: bytes, name: str = "labels.csv") -> dict[str, bytes]:
    """The four photos, loose, with a table beside them."""
    return {f"p{number}.jpg": photo for number, photo in enumerate(photos())} | {name: table}


def csv_table(header: str, row: str, more: str = "", encoding: str = "utf-8", end: str = "\n") -> bytes:
    """A table of the four photos; `row` is filled with `n` and `label`."""
    rows = [row.format(n=number, label=label) for number, label in enumerate(CLASSES)]
    return (end.join([header, *rows, ""]) + more).encode(encoding)


def workbook(
    *rows: Sequence[object], change: Callable[[bytes], bytes] | None = None, method: int = 8
) -> bytes:
    """An Excel file; `change` is done to the XML of its sheet, and `method` packs its members."""
    book, buffer, packed = openpyxl.Workbook(), io.BytesIO(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(buffer)
    with zipfile.ZipFile(buffer) as made, zipfile.ZipFile(packed, "w", method) as archive:
        for member in made.namelist():
            content = made.read(member)
            if change and member == "xl/worksheets/sheet1.xml":
                content = change(content)
            archive.writestr(member, content)
    return packed.getvalue()


_SHEET = [["file", "label"], *([f"p{number}.jpg", label] for number, label in enumerate(CLASSES))]


def _add_table(
    row: str,
    name: str,
    make: Callable[[], bytes],
    code: ErrorCode | None = None,
    *,
    file: str = "labels.csv",
    **more,
) -> None:
    more = {"is_labelled": code is None, "images": 0 if code else 4, "source_code": code} | more
    SETS.append(SetCase(row, name, lambda: with_table(make(), file), code=code, **more))


for _image, _label in (
    ("file", "label"),
    ("Image Name", "Class"),
    ("ISIC_ID", "Diagnosis"),
    ("img_id", "diagnostic"),
    ("filename", "dx"),
    ("image_path", "ground truth"),
    ("IMAGE", "benign_malignant"),
):
    _add_table(
        _COLUMNS,
        f"columns “{_image}” and “{_label}”",
        functools.partial(
            lambda image, label: (
                csv_table(f"{image},{label}", "p{n}.jpg,{label}")
                .replace(b"others", b"malignant" if label == "benign_malignant" else b"others")
                .replace(b"nevus", b"nevus")
            ),
            _image,
            _label,
        ),
    )

for _nevus, _other in (
    ("NV", "MEL"),
    ("Melanocytic nevus", "Melanoma, NOS"),
    ("naevi", "seborrheic keratosis"),
    ("clark nevus", "ACK"),
    ("NEV", "solar lentigo"),
    ("nevus, atypical, dysplastic, or Clark", "Bowen's disease"),
):
    _add_table(
        _NAMES_OF_DIAGNOSES,
        f"“{_nevus}” and “{_other}”",
        functools.partial(
            lambda nevus, other: (
                csv_table("file;diagnosis", "p{n}.jpg;{label}")
                .replace(b"nevus", nevus.encode())
                .replace(b"others", other.encode())
            ),
            _nevus,
            _other,
        ),
    )

for _encoding in ("utf-8-sig", "utf-16", "cp1252"):
    _add_table(
        _FORM,
        f"{_encoding} text",
        functools.partial(csv_table, "file,label,notiz", "p{n}.jpg,{label},Rücken", encoding=_encoding),
    )
for _name, _table in (
    ("tabs", functools.partial(csv_table, "file\tlabel", "p{n}.jpg\t{label}")),
    ("semicolons", functools.partial(csv_table, "file;label", "p{n}.jpg;{label}")),
    ("lines that end in CR alone", functools.partial(csv_table, "file,label", "p{n}.jpg,{label}", end="\r")),
    ("lines that end in CR LF", functools.partial(csv_table, "file,label", "p{n}.jpg,{label}", end="\r\n")),
    ("a first line “sep=;”", functools.partial(csv_table, "sep=;\nfile;label", "p{n}.jpg;{label}")),
    ("a first line “sep=|”", functools.partial(csv_table, "sep=|\nfile|label", "p{n}.jpg|{label}")),
    ("an index column", functools.partial(csv_table, ",file,label", "{n},p{n}.jpg,{label}")),
    ("empty columns and rows", functools.partial(csv_table, "file,label,,", "p{n}.jpg,{label},,", ",,,\n\n")),
    ("cells in quotation marks", functools.partial(csv_table, '"file","label"', '"p{n}.jpg","{label}"')),
    ("spaces around names", functools.partial(csv_table, " file , label ", " p{n}.jpg , {label} ")),
):
    _add_table(_FORM, f"a table with {_name}", _table)
_add_table(_FORM, "an Excel file", lambda: workbook(*_SHEET), file="labels.xlsx")
_add_table(_FORM, "an Excel file called .csv", lambda: workbook(*_SHEET))
_add_table(
    _FORM, "a CSV file called .xlsx", lambda: csv_table("file,label", "p{n}.jpg,{label}"), file="labels.xlsx"
)
_add_table(
    _FORM,
    "an Excel file with a row 30,000,000",
    lambda: workbook(
        *_SHEET,
        change=lambda sheet: re.sub(rb"<dimension[^>]*>", b"", sheet).replace(
            b'<row r="5"', b'<row r="30000000"'
        ),
    ),
    ErrorCode.TABLE_TOO_LARGE,
    file="labels.xlsx",
)
_add_table(
    _FORM,
    "an Excel file packed by bzip2",
    lambda: workbook(*_SHEET, method=zipfile.ZIP_BZIP2),
    ErrorCode.UNREADABLE_TABLE,
    file="labels.xlsx",
)
_add_table(
    _FORM,
    "an Excel file with a billion laughs",
    lambda: workbook(
        *_SHEET,
        change=lambda sheet: (
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "lol">'
            + b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12))
            + b"]>"
            + sheet[sheet.index(b"<worksheet") :].replace(b"<sheetData>", b"<sheetData>&a11;")
        ),
    ),
    ErrorCode.UNREADABLE_TABLE,
    file="labels.xlsx",
)
_add_table(
    _FORM, "half an Excel file", lambda: workbook(*_SHEET)[:3000], ErrorCode.UNREADABLE_TABLE, file="l.xlsx"
)
_add_table(_FORM, "an Excel file with an empty sheet", workbook, ErrorCode.EMPTY_TABLE, file="labels.xlsx")
_add_table(
    _FORM,
    "an old Excel file",
    lambda: b"\xd0\xcf\x11\xe0" + bytes(600),
    ErrorCode.UNSUPPORTED_FORMAT,
    file="l.xlsx",
)

_PLAIN = functools.partial(csv_table, "file,label", "p{n}.jpg,{label}")
_add_table(
    _ROWS,
    "an unknown class",
    lambda: _PLAIN().replace(b"p0.jpg,nevus", b"p0.jpg,scar"),
    images=3,
    left_out={"unknown_class": 1},
)
_add_table(
    _ROWS,
    "a row without a label",
    lambda: _PLAIN().replace(b"p0.jpg,nevus", b"p0.jpg,"),
    images=3,
    left_out={"no_label": 1},
)
_add_table(_ROWS, "a row without a name", lambda: _PLAIN("\n,nevus\n"), left_out={"no_name": 1})
_add_table(_ROWS, "a row whose image is missing", lambda: _PLAIN("p9.jpg,nevus\n"), left_out={"no_image": 1})
_add_table(_ROWS, "a row twice", lambda: _PLAIN("p0.jpg,nevus\n"), left_out={"repeated_row": 1})
_add_table(
    _ROWS,
    "two labels for one image",
    lambda: _PLAIN("p0.jpg,others\n"),
    images=3,
    left_out={"contradicting_labels": 2},
)
_add_table(
    _ROWS,
    "an image without a row",
    lambda: _PLAIN().replace(b"p0.jpg,nevus\n", b""),
    images=3,
    left_out={"no_label": 1},
)
_add_table(
    _ROWS,
    "a row with too many cells",
    lambda: _PLAIN().replace(b"p0.jpg,nevus", b"p0.jpg,nevus,a,b"),
    images=3,
    left_out={"ragged_row": 1, "no_label": 1},
)
_add_table(
    _ROWS,
    "a split that nobody knows",
    lambda: csv_table("file,label,split", "p{n}.jpg,{label},test").replace(
        b"p0.jpg,nevus,test", b"p0.jpg,nevus,later"
    ),
    images=3,
    left_out={"unknown_split": 1},
)

_add_table(_TABLE, "an empty table", bytes, ErrorCode.EMPTY_TABLE)
_add_table(_TABLE, "a table of blank lines", lambda: b"\n\n\r\n", ErrorCode.EMPTY_TABLE)
_add_table(
    _TABLE,
    "a first line alone",
    lambda: b"file,label\n",
    ErrorCode.NO_IMAGES,
    source_code=ErrorCode.MANIFEST_REFUSED,
)
_add_table(
    _TABLE,
    "no column for the image",
    lambda: csv_table("what,label", "p{n}.jpg,{label}"),
    ErrorCode.MISSING_COLUMN,
)
_add_table(
    _TABLE,
    "no column for the label",
    lambda: csv_table("file,colour", "p{n}.jpg,{label}"),
    ErrorCode.MISSING_COLUMN,
)
_add_table(
    _TABLE, "no first line", lambda: csv_table("p8.jpg,nevus", "p{n}.jpg,{label}"), ErrorCode.MISSING_HEADER
)
_add_table(
    _TABLE,
    "a column twice",
    lambda: csv_table("file,label,label", "p{n}.jpg,{label},{label}"),
    ErrorCode.DUPLICATE_COLUMN,
)
_add_table(
    _TABLE,
    "rows of other lengths than the first line",
    lambda: csv_table("file,label", "p{n}.jpg,{label},x,y"),
    ErrorCode.RAGGED_TABLE,
)
_add_table(
    _TABLE,
    "a quotation mark that is never closed",
    lambda: _PLAIN().replace(b"p0.jpg", b'"p0.jpg'),
    ErrorCode.MANIFEST_REFUSED,
)
_add_table(_TABLE, "a NUL byte", lambda: _PLAIN().replace(b"p0", b"p\0"), ErrorCode.MANIFEST_REFUSED)
_add_table(
    _TABLE,
    "a NUL in UTF-16",
    lambda: _PLAIN("p\0.jpg,nevus\n", encoding="utf-16"),
    ErrorCode.MANIFEST_REFUSED,
)
_add_table(
    _TABLE,
    "UTF-16 that stops in a letter",
    lambda: _PLAIN(encoding="utf-16")[:-1],
    ErrorCode.MANIFEST_REFUSED,
)
_add_table(
    _TABLE,
    "no label that is known",
    lambda: csv_table("file,label", "p{n}.jpg,thing {n}"),
    ErrorCode.NO_IMAGES,
    source_code=ErrorCode.MANIFEST_REFUSED,
)
_add_table(
    _TABLE,
    "no image that is there",
    lambda: csv_table("file,label", "q{n}.jpg,{label}"),
    ErrorCode.NO_IMAGES,
    source_code=None,
)
_add_table(
    _TABLE, "300,000 lines", lambda: _PLAIN("\n" * 300_000), ErrorCode.TABLE_TOO_LARGE, source_code=None
)
_add_table(_TABLE, "a cell of 200 kB", lambda: _PLAIN(f"{'x' * 200_000},nevus\n"), ErrorCode.MANIFEST_REFUSED)
_add_table(_TABLE, "a photo called .csv", lambda: photos()[0], ErrorCode.MANIFEST_REFUSED)
SETS.append(
    SetCase(
        _TABLE,
        "two tables of labels",
        lambda: with_table(_PLAIN()) | {"more.csv": _PLAIN()},
        code=ErrorCode.SEVERAL_TABLES,
        source_code=ErrorCode.SEVERAL_TABLES,
    )
)
SETS.append(
    SetCase(
        _TABLE,
        "a table without images",
        lambda: {"labels.csv": _PLAIN()},
        code=ErrorCode.NO_IMAGES,
    )
)

for _name, _row in (
    ("suffix in capitals", "p{n}.JPG"),
    ("name in capitals", "P{n}.jpg"),
    ("no suffix", "p{n}"),
    ("another suffix", "p{n}.png"),
    ("a folder of Windows", "C:\\photos\\p{n}.jpg"),
    ("a folder of another machine", "/home/doc/photos/p{n}.jpg"),
    ("a folder that climbs out", "../../../photos/p{n}.jpg"),
):
    _add_table(_FOUND, f"names with {_name}", functools.partial(csv_table, "file,label", f"{_row},{{label}}"))
for _start in ("=", "+", "-", "@", "\t", "'="):
    _add_table(
        _FORMULAS,
        f"cells that start with {_start!r}",
        functools.partial(csv_table, "file,label,lesion_id", f'p{{n}}.jpg,{{label}},"{_start}cmd(1) {{n}}"'),
    )
_add_table(
    _FORMULAS,
    "HTML in every cell",
    lambda: csv_table(
        "file,label,lesion_id,source", 'p{n}.jpg,{label},<b>{n}</b>,"<script>alert(1)</script>"'
    ),
)
_add_table(
    "new ISIC export, one-hot truth, MILK10k, PAD-UFES-20, Derm7pt, HAM10000",
    "one-hot truth",
    lambda: (
        csv_table("image,MEL,NV,BCC", "p{n},{label}")
        .replace(b"nevus", b"0,1,0")
        .replace(b"others", b"1.0,0,0")
    ),
)
_add_table(
    "new ISIC export, one-hot truth, MILK10k, PAD-UFES-20, Derm7pt, HAM10000",
    "one-hot truth with two marks in a row",
    lambda: (
        csv_table("image,MEL,NV,BCC", "p{n},{label}")
        .replace(b"p0,nevus", b"p0,1,1,0")
        .replace(b"nevus", b"0,1,0")
        .replace(b"others", b"1.0,0,0")
    ),
    images=3,
    left_out={"several_marks": 1},
)
