"""What a file is, from its bytes alone: never from its name, its declared type or its metadata.

`probe` looks at a few header fields of the encoded bytes, once, and decodes no pixel.
"""

from __future__ import annotations

import codecs
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX_LENGTH = 4096
"""How far into a file text formats are looked for."""

_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_STRIP_OFFSETS, TIFF_ORIENTATION = (
    258,
    259,
    262,
    273,
    274,
)
_TIFF_STRIP_BYTES, _TIFF_TILE_OFFSETS, _TIFF_TILE_BYTES, _TIFF_SAMPLE_FORMAT = 279, 324, 325, 339
_TIFF_UNCOMPRESSED, _TIFF_MIN_IS_WHITE, _TIFF_YCBCR, _TIFF_FLOAT = 1, 0, 6, 3

_BMP_HEADER_SIZES = {12, 40, 52, 56, 64, 108, 124}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"

_OTHER_MAGIC = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\x00\x00\x01\xba", "a video (MPEG)"),
    (b"\x00\x00\x01\xb3", "a video (MPEG)"),
    (b"FLV\x01", "a video (Flash)"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (Windows Media)"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"MZ", "a program"),
    (b"\x7fELF", "a program"),
)

_OTHER_IMAGES = frozenset(
    {
        "a Photoshop document",
        "a JPEG XL image",
        "a JPEG 2000 image",
        "an AVIF image",
        "an icon",
        "a camera raw file",
    }
)


@dataclass(frozen=True)
class Header:
    """What the header fields of an encoded image declare.

    Attributes:
        kind: JPEG, PNG, WEBP, TIFF, BMP, GIF, HEIC or DICOM.
        size: Declared width and height in pixels, where only this tells them before a canvas is allocated; else
            None, and the decoder knows.
        bits: Bits of a sample.
        orientation: 1 to 8 as EXIF counts them, of a TIFF file; None where the orientation is in the EXIF block,
            which `exif_orientation` reads.
        is_whole: Whether the file goes on to where its format says that it ends.
        is_intact: Whether the checksums of a PNG file fit; True for the other kinds, which have none.
        min_is_white: Whether zero means white.
        has_float_samples: Whether the samples are floating-point numbers.
        is_raw_ycbcr: Whether a TIFF file holds uncompressed YCbCr.
    """

    kind: str
    size: tuple[int, int] | None
    bits: int
    orientation: int | None
    is_whole: bool
    is_intact: bool
    min_is_white: bool
    has_float_samples: bool
    is_raw_ycbcr: bool


@dataclass(frozen=True)
class OtherFile:
    """A file that is none of the images that are decoded here.

    Attributes:
        description: What it looks like, such as “a PDF document”; None where nothing fits.
        is_image: Whether that is a picture all the same.
    """

    description: str | None
    is_image: bool


def probe(data: bytes) -> Header | OtherFile:
    """Reads the header of a file, without decoding a pixel.

    Args:
        data: The whole file.
    """
    kind = _image_format(data)
    if kind is None:
        description = _describe_other(data)
        return OtherFile(description, description in _OTHER_IMAGES)
    tags = _tiff_tags(data) if kind == "TIFF" else {}
    return Header(
        kind,
        size=_declared_webp_size(data) if kind == "WEBP" else None,
        bits=data[24] if kind == "PNG" and len(data) > 24 else max(tags.get(_TIFF_BITS, (8,))),
        orientation=tags.get(TIFF_ORIENTATION, (1,))[0] if kind == "TIFF" else None,
        is_whole=not _ends_early(data, kind, tags),
        is_intact=kind != "PNG" or _png_is_intact(data),
        min_is_white=tags.get(_TIFF_PHOTOMETRIC, (1,))[0] == _TIFF_MIN_IS_WHITE,
        has_float_samples=_TIFF_FLOAT in tags.get(_TIFF_SAMPLE_FORMAT, ()),
        is_raw_ycbcr=tags.get(_TIFF_PHOTOMETRIC) == (_TIFF_YCBCR,)
        and tags.get(_TIFF_COMPRESSION, (_TIFF_UNCOMPRESSED,)) == (_TIFF_UNCOMPRESSED,),
    )


def exif_orientation(exif: bytes | None) -> int:
    """The orientation that an EXIF block declares, 1 to 8; 1, upright, where it declares none."""
    return _tiff_tags(exif).get(TIFF_ORIENTATION, (1,))[0] if exif else 1


def count_scans(data: bytes, start: int, most: int) -> int:
    """How many passes over its picture a JPEG file is made of; a hostile one has thousands, of a few bytes each.

    Args:
        data: The whole file.
        start: Where its first scan, or a segment before it, begins.
        most: Where to stop counting.
    """
    scans, position = 0, start
    while scans <= most and (found := _JPEG_MARKER.search(data, position)):
        marker = found[1]
        if marker == _JPEG_END:
            break
        scans += marker == _JPEG_SCAN
        # What is in a segment may look like a marker.
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


def _image_format(data: bytes) -> str | None:
    """Names the image format of encoded bytes.

    Args:
        data: The whole file, or at least its first 132 bytes.

    Returns:
        One of JPEG, PNG, WEBP, TIFF, BMP, GIF, HEIC, DICOM, or None for anything else.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in _TIFF_MAGIC and data[8:10] != b"CR":
        return "TIFF"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM" and len(data) > 18 and struct.unpack_from("<I", data, 14)[0] in _BMP_HEADER_SIZES:
        return "BMP"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and b"avif" not in data[8:64]:
        return "HEIC"
    if data[128:132] == b"DICM":
        return "DICOM"
    return None


def _describe_other(data: bytes) -> str | None:
    """Says in words what bytes that `_image_format` does not know look like; None when nothing fits."""
    for magic, description in _OTHER_MAGIC:
        if data.startswith(magic):
            return description
    if data[4:8] == b"ftyp":
        return "an AVIF image" if data[8:12] in (b"avif", b"avis", b"mif1") else "a video (MP4 or QuickTime)"
    if data[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return "a video (QuickTime)"
    if data[:4] == b"RIFF":
        return "a video (AVI)" if data[8:12] == b"AVI " else "a sound or RIFF file"
    if data[:4] in _TIFF_MAGIC:
        return "a camera raw file"
    if data[257:262] == b"ustar":
        return "a tar archive"
    return _describe_text(data[:PREFIX_LENGTH])


def _describe_text(prefix: bytes) -> str | None:
    # UTF-16 text becomes readable enough without its NULs; only ASCII markup matters here.
    text = prefix.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\0", b"").lstrip().lower()
    if text.startswith(b"<"):
        if b"<svg" in text:
            return "an SVG drawing"
        if b"<!doctype html" in text or re.search(rb"<(html|head|body|script)\b", text):
            return "an HTML page"
        return "an XML document"
    if not text or re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", prefix):
        return None
    try:
        # Incremental, because the prefix may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(prefix)
    except UnicodeDecodeError:
        return None
    return "a text file"


def _declared_webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a WebP header, or None; Pillow would allocate the canvas before telling."""
    chunk = data[12:16]
    if len(data) < 30:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Integer tags of the first directory of a TIFF file or of an EXIF block.

    Args:
        data: A classic or BigTIFF file, or an EXIF block with or without its "Exif" prefix.

    Returns:
        Tag number to values, for tags of type BYTE, SHORT, LONG and LONG8 only. Whatever is malformed is
        left out; nothing is raised.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    tags: dict[int, tuple[int, ...]] = {}
    if order is None or data[:4] not in _TIFF_MAGIC:
        return tags
    big = data[:4] in (b"II+\0", b"MM\0+")
    count_code, entry_code, step, inline = ("Q", "HHQ", 20, 8) if big else ("H", "HHI", 12, 4)
    offset_code = "Q" if big else "I"
    try:
        start = struct.unpack_from(order + offset_code, data, 8 if big else 4)[0]
        entries = struct.unpack_from(order + count_code, data, start)[0]
        first = start + struct.calcsize(order + count_code)
        for position in range(first, first + step * min(entries, 1000), step):
            tag, kind, count = struct.unpack_from(order + entry_code, data, position)
            code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
            if code is None or not 0 < count <= len(data):
                continue
            size = count * struct.calcsize(order + code)
            place = position + step - inline
            if size > inline:
                place = struct.unpack_from(order + offset_code, data, place)[0]
            if place + size <= len(data):
                tags[tag] = struct.unpack_from(f"{order}{count}{code}", data, place)
    except (struct.error, OverflowError):
        return tags
    return tags


def _png_is_intact(data: bytes) -> bool:
    """Whether every critical chunk of a PNG file has its checksum and IEND comes; Pillow checks neither."""
    view, position = memoryview(data), 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return False
        is_critical = kind[:1].isupper()
        if is_critical and zlib.crc32(view[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if kind == b"IEND":
            return True
        position = end + 4
    return False


def _ends_early(data: bytes, kind: str, tags: Mapping[int, tuple[int, ...]]) -> bool:
    """Whether a file stops before its format says it should; False where the format doesn't tell."""
    if kind == "PNG":
        return b"IEND\xaeB`\x82" not in data[-64:]
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-64:]
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind == "TIFF":
        return _tiff_ends_early(data, tags)
    return False


def _tiff_ends_early(data: bytes, tags: Mapping[int, tuple[int, ...]]) -> bool:
    for offsets, sizes in (
        (_TIFF_STRIP_OFFSETS, _TIFF_STRIP_BYTES),
        (_TIFF_TILE_OFFSETS, _TIFF_TILE_BYTES),
    ):
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            if offset + size > len(data):
                return True
    # Most writers put the directory last, so a cut file has lost it altogether.
    return not tags
