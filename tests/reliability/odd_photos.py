"""Photos that are damaged, disguised, too large, or of a kind that one rarely meets."""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import pydicom
from cases import PhotoCase
from encoded_images import (
    ADOBE_RGB,
    HEIGHT,
    P3,
    SRGB,
    WIDTH,
    dicom_file,
    encoded,
    photo,
    png_chunk,
    png_file,
    smooth_pixels,
    tiff_file,
)
from PIL import Image, ImageDraw, ImageFilter, PngImagePlugin

from dermadeit.errors import ErrorCode
from dermadeit.imaging.decode import MAX_BYTES

PHOTOS: list[PhotoCase] = []

GPS_MARK = b"1986:GPSMARKER"
"""Stands in the metadata of `photo_with_metadata`, and must stand nowhere else afterwards."""


def _add(row: str, name: str, make: Callable[[], bytes], code: ErrorCode | None = None, **more) -> None:
    PHOTOS.append(PhotoCase(row, name, make, code, **more))


def _encode(kind: str, mode: str = "RGB", **options) -> Callable[[], bytes]:
    return lambda: encoded(photo().convert(mode), kind, **options)


# ---------------------------------------------------------------------------------------------- usual kinds

_USUAL = "JPEG, PNG, WebP, TIFF, BMP, 8-bit RGB"

for _kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
    _add(_USUAL, _kind if _kind != "WEBP" else "WebP", _encode(_kind))
_add(_USUAL, "progressive JPEG", _encode("JPEG", progressive=True))
_add(_USUAL, "JPEG without subsampled colours", _encode("JPEG", subsampling=0))
_add(_USUAL, "JPEG in grey", _encode("JPEG", "L"))
_add(_USUAL, "lossless WebP", _encode("WEBP", lossless=True))
for _compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
    _add(
        _USUAL,
        f"TIFF compressed by {_compression.removeprefix('tiff_')}",
        _encode("TIFF", compression=_compression),
    )
_add(_USUAL, "BigTIFF", _encode("TIFF", big_tiff=True))
_add(_USUAL, "photo called .txt", _encode("JPEG"), file="photo.txt")
_add(_USUAL, "PNG called .jpg", _encode("PNG"))
_add(_USUAL, "photo without a suffix", _encode("JPEG"), file="photo")

# ------------------------------------------------------------------------------------------- orientation

_TURNED = "EXIF orientation"


def _turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(photo(), kind, exif=exif.tobytes() if kind != "TIFF" else exif)


for _number in range(2, 9):
    _add(
        _TURNED,
        f"JPEG, orientation {_number}",
        functools.partial(_turned, "JPEG", _number),
        says="Turned upright",
    )
for _kind in ("PNG", "WEBP", "TIFF"):
    _add(_TURNED, f"{_kind}, orientation 6", functools.partial(_turned, _kind, 6), says="Turned upright")
_add(_TURNED, "JPEG, orientation 9, which does not exist", functools.partial(_turned, "JPEG", 9))
_add(
    _TURNED,
    "JPEG, orientation without a value",
    lambda: encoded(
        photo(),
        "JPEG",
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 0, 0) + b"\0" * 4,
    ),
)

# --------------------------------------------------------------------------------------------- metadata

_METADATA = "EXIF, XMP, GPS and ICC metadata"


def photo_with_metadata() -> bytes:
    """A JPEG whose EXIF block names a place and a time."""
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (59.0, 19.0, 45.67), 29: GPS_MARK.decode()})
    return encoded(photo(), "JPEG", exif=exif.tobytes(), xmp=b"<x:xmpmeta>" + GPS_MARK + b"</x:xmpmeta>")


def _with_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", GPS_MARK.decode())
    text.add_itxt("XML:com.adobe.xmp", GPS_MARK.decode())
    return encoded(photo(), "PNG", pnginfo=text)


_add(_METADATA, "JPEG with a place in EXIF and XMP", photo_with_metadata)
_add(_METADATA, "PNG with texts", _with_text)
_add(_METADATA, "JPEG with a comment", _encode("JPEG", comment=GPS_MARK))
_add(_METADATA, "JPEG with an sRGB profile", _encode("JPEG", icc_profile=SRGB))
_add(_METADATA, "JPEG with a damaged EXIF block", _encode("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
_add(_METADATA, "JPEG with a damaged profile", _encode("JPEG", icc_profile=b"no profile at all" * 9))
_add(_METADATA, "JPEG with 60 kB of metadata", _encode("JPEG", exif=b"Exif\0\0II*\0" + bytes(60_000)))

# ---------------------------------------------------------------------------------------- other pixels

_ALPHA = "alpha channel, palette, LA, 1-bit"


def _see_through(mode: str = "RGBA") -> Image.Image:
    picture = photo().convert(mode)
    picture.putalpha(Image.fromarray(smooth_pixels()[..., 0]))
    return picture


_add(_ALPHA, "PNG with alpha", lambda: encoded(_see_through(), "PNG"), says="white")
_add(_ALPHA, "WebP with alpha", lambda: encoded(_see_through(), "WEBP"), says="white")
_add(_ALPHA, "TIFF with alpha", lambda: encoded(_see_through(), "TIFF"), says="white")
_add(_ALPHA, "PNG, grey with alpha", lambda: encoded(_see_through("LA"), "PNG"), says="white")
_add(_ALPHA, "PNG with a palette", _encode("PNG", "P"))
_add(
    _ALPHA,
    "PNG with a see-through colour in its palette",
    _encode("PNG", "P", transparency=3),
    says="Transparency",
)
_add(_ALPHA, "BMP with a palette", _encode("BMP", "P"))
_add(_ALPHA, "PNG of 1 bit", _encode("PNG", "1"))
_add(_ALPHA, "TIFF of 1 bit, compressed as a fax", _encode("TIFF", "1", compression="group4"))
_add(_ALPHA, "GIF", _encode("GIF", "P"))

_COLOURS = "CMYK, YCCK, wide-gamut ICC"
_add(_COLOURS, "CMYK JPEG", _encode("JPEG", "CMYK"), says="CMYK")
_add(_COLOURS, "CMYK TIFF", _encode("TIFF", "CMYK"), says="CMYK")
_add(_COLOURS, "JPEG in Display P3", _encode("JPEG", icc_profile=P3), says="profile")
_add(_COLOURS, "PNG in Adobe RGB", _encode("PNG", icc_profile=ADOBE_RGB), says="profile")
_add(_COLOURS, "TIFF in CIELAB", _encode("TIFF", "LAB"), says="Lab")

_DEEP = "16-bit grey or RGB"
_GREY16 = functools.partial(lambda: smooth_pixels()[..., 0].astype(np.uint16) * 257)
_add(
    _DEEP, "PNG, 16-bit grey", lambda: png_file(WIDTH, HEIGHT, 16, 0, _GREY16().astype(">u2")), says="16-bit"
)
_add(
    _DEEP,
    "PNG, 16-bit RGB",
    lambda: png_file(WIDTH, HEIGHT, 16, 2, (smooth_pixels().astype(np.uint16) * 257).astype(">u2")),
)
_add(_DEEP, "TIFF, 16-bit grey", lambda: tiff_file(WIDTH, HEIGHT, _GREY16().astype("<u2")), says="16-bit")
_add(
    _DEEP,
    "TIFF, 16-bit grey, zero is white",
    lambda: tiff_file(WIDTH, HEIGHT, _GREY16().astype("<u2"), t262=(0,)),
    says="Inverted",
)
_add(
    _DEEP,
    "TIFF, 12-bit values in 16 bits",
    lambda: tiff_file(WIDTH, HEIGHT, (_GREY16() // 16).astype("<u2")),
    says="16-bit",
)

_FLOAT = "float TIFF, NaN"
_add(_FLOAT, "TIFF of floating-point numbers", _encode("TIFF", "F"), ErrorCode.FLOAT_PIXELS, says="8")
_add(
    _FLOAT,
    "TIFF of NaN",
    lambda: tiff_file(WIDTH, HEIGHT, np.full((HEIGHT, WIDTH), np.nan, "<f4"), t258=(32,), t339=(3,)),
    ErrorCode.FLOAT_PIXELS,
)
_add(
    _FLOAT,
    "TIFF of infinity in 64 bits",
    lambda: tiff_file(WIDTH, HEIGHT, np.full((HEIGHT, WIDTH), np.inf, "<f8"), t258=(64,), t339=(3,)),
    ErrorCode.FLOAT_PIXELS,
)

_FRAMES = "animated or multi-page (GIF, APNG, WebP, TIFF)"


def _several(kind: str) -> bytes:
    others = [Image.fromarray(255 - smooth_pixels())]
    return encoded(photo(), kind, save_all=True, append_images=others)


for _kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
    _add(_FRAMES, f"{_kind} with two pictures", functools.partial(_several, _kind), says="several pictures")

# ------------------------------------------------------------------------------------------------- HEIC

_HEIC = "HEIC/HEIF"


def heic(*pictures: Image.Image) -> bytes:
    """A HEIC file."""
    file = pillow_heif.from_pillow(pictures[0])
    for picture in pictures[1:]:
        file.add_from_pillow(picture)
    buffer = io.BytesIO()
    file.save(buffer, quality=60)
    return buffer.getvalue()


_add(_HEIC, "HEIC", lambda: heic(photo()), file="photo.heic")
_add(_HEIC, "HEIC called .jpg", lambda: heic(photo()))
_add(
    _HEIC,
    "HEIC with two pictures",
    lambda: heic(photo(), photo()),
    says="several pictures",
    file="photo.heic",
)
_add(_HEIC, "HEIC with alpha", lambda: heic(_see_through()), says="white", file="photo.heic")
_add(_HEIC, "half a HEIC", lambda: heic(photo())[:700], ErrorCode.DAMAGED_IMAGE, file="photo.heic")
_add(_HEIC, "HEIC that is too small", lambda: heic(photo(40, 40)), ErrorCode.TOO_SMALL, file="photo.heic")

# ------------------------------------------------------------------------------------------------ DICOM

_DICOM = "DICOM"


def dicom(pixels: np.ndarray, photometric: str, syntax: str = "", **options) -> bytes:
    """A DICOM file in a transfer syntax of pydicom; uncompressed without one."""
    plain = dicom_file(pixels, photometric, **options)
    if not syntax:
        return plain
    dataset = pydicom.dcmread(io.BytesIO(plain))
    if syntax.startswith("Deflated"):
        dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    elif syntax == "JPEGBaseline8Bit":
        jpeg = encoded(Image.fromarray(pixels), "JPEG", quality=95)
        dataset.PixelData = pydicom.encaps.encapsulate([jpeg])
        dataset["PixelData"].is_undefined_length = True
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    else:
        dataset.compress(getattr(pydicom.uid, syntax), generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _add_dicom(name: str, make: Callable[[], bytes], code: ErrorCode | None = None, **more) -> None:
    _add(_DICOM, name, make, code, file="photo.dcm", **more)


def _grey() -> np.ndarray:
    return smooth_pixels()[..., 0].copy()


def _without(*keywords: str, **changed) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(smooth_pixels(), "RGB")))
    for keyword in keywords:
        delattr(dataset, keyword)
    for keyword, value in changed.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _coded_size(syntax: str, mark: bytes, after: int, size: bytes) -> bytes:
    """A DICOM file whose compressed pixels claim another size than its header."""
    data = bytearray(dicom(smooth_pixels(), "RGB", syntax))
    start = data.index(mark) + after
    data[start : start + len(size)] = size
    return bytes(data)


def _deflated_bomb() -> bytes:
    plain = dicom(smooth_pixels(), "RGB", "DeflatedExplicitVRLittleEndian")
    start = 144 + int.from_bytes(plain[140:144], "little")
    deflating = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(10_000_000)
    return plain[:start] + b"".join(deflating.compress(zeros) for _ in range(20)) + deflating.flush()


_add_dicom("RGB", lambda: dicom(smooth_pixels(), "RGB"), says="RGB")
_add_dicom("YBR_FULL", lambda: dicom(smooth_pixels(), "YBR_FULL"), says="YBR_FULL")
_add_dicom("MONOCHROME2", lambda: dicom(_grey(), "MONOCHROME2"))
_add_dicom("MONOCHROME1", lambda: dicom(_grey(), "MONOCHROME1"), says="Inverted")
_add_dicom(
    "16 bits", lambda: dicom(_grey().astype("<u2") * 257, "MONOCHROME2", bits=16), says="16-bit pixels scaled"
)
_add_dicom(
    "12 of 16 bits",
    lambda: dicom(_grey().astype("<u2") * 16, "MONOCHROME2", bits=12),
    says="12-bit pixels scaled",
)
_add_dicom(
    "two frames",
    lambda: dicom(np.stack([smooth_pixels()] * 2), "RGB", frames=2),
    says="Only the first was read",
)
for _syntax in (
    "JPEG2000Lossless",
    "JPEGLSLossless",
    "RLELossless",
    "JPEGBaseline8Bit",
    "DeflatedExplicitVRLittleEndian",
):
    _add_dicom(f"transfer syntax {_syntax}", functools.partial(dicom, smooth_pixels(), "RGB", _syntax))
_add_dicom("no pixels", lambda: _without("PixelData"), ErrorCode.UNSUPPORTED_FORMAT, says="no picture")
_add_dicom("no width", lambda: _without("Columns"), ErrorCode.DAMAGED_IMAGE)
_add_dicom(
    "no photometric interpretation", lambda: _without("PhotometricInterpretation"), ErrorCode.DAMAGED_IMAGE
)
_add_dicom(
    "65,535 × 65,535 pixels declared", lambda: _without(Rows=65535, Columns=65535), ErrorCode.TOO_MANY_PIXELS
)
_add_dicom(
    "fewer colours declared than there are",
    lambda: dicom(smooth_pixels(), "YBR_FULL_422"),
    ErrorCode.DAMAGED_IMAGE,
    says="contradicts itself",
)
_add_dicom("half a file", lambda: dicom(smooth_pixels(), "RGB")[:40_000], ErrorCode.TRUNCATED_IMAGE)
_add_dicom("only the preamble", lambda: bytes(128) + b"DICM", ErrorCode.UNSUPPORTED_FORMAT)
_add_dicom(
    "JPEG 2000 that claims 60,000 × 60,000 pixels",
    lambda: _coded_size("JPEG2000Lossless", b"\xff\x4f\xff\x51", 8, struct.pack(">II", 60000, 60000)),
    ErrorCode.TOO_MANY_PIXELS,
)
_add_dicom(
    "JPEG 2000 that claims 16,000 channels",
    lambda: _coded_size("JPEG2000Lossless", b"\xff\x4f\xff\x51", 40, struct.pack(">H", 16000)),
    ErrorCode.UNSUPPORTED_FORMAT,
)
_add_dicom(
    "JPEG-LS that claims 60,000 × 60,000 pixels",
    lambda: _coded_size("JPEGLSLossless", b"\xff\xf7", 5, struct.pack(">HH", 60000, 60000)),
    ErrorCode.TOO_MANY_PIXELS,
)
_add_dicom("deflated tags of 200 MB", _deflated_bomb, ErrorCode.TOO_MANY_BYTES, says="deflated")

# ------------------------------------------------------------------------------------------ other files

_OTHER = "SVG, PDF, HTML, video, archive named .jpg"
_PADDING = bytes(300)

for _name, _start, _words in (
    ("PDF", b"%PDF-1.7\n", "a PDF document"),
    ("PostScript", b"%!PS-Adobe-3.0\n", "a PostScript document"),
    ("ZIP", b"PK\x03\x04" + _PADDING, "a ZIP archive"),
    ("empty ZIP", b"PK\x05\x06" + _PADDING, "an empty ZIP"),
    ("gzip", b"\x1f\x8b\x08" + _PADDING, "a gzip archive"),
    ("7-Zip", b"7z\xbc\xaf\x27\x1c" + _PADDING, "a 7-Zip archive"),
    ("RAR", b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    ("bzip2", b"BZh9" + _PADDING, "a bzip2 archive"),
    ("xz", b"\xfd7zXZ\0" + _PADDING, "an xz archive"),
    ("Zstandard", b"\x28\xb5\x2f\xfd" + _PADDING, "a Zstandard archive"),
    ("tar", b"photo.jpg".ljust(257, b"\0") + b"ustar" + _PADDING, "a tar archive"),
    ("MP4", b"\0\0\0\x20ftypisom" + _PADDING, "a video"),
    ("QuickTime", b"\0\0\0\x20moov" + _PADDING, "a video"),
    ("AVI", b"RIFF\0\0\0\0AVI LIST", "a video"),
    ("Matroska", b"\x1aE\xdf\xa3" + _PADDING, "a video"),
    ("MPEG", b"\x00\x00\x01\xba" + _PADDING, "a video"),
    ("Flash video", b"FLV\x01" + _PADDING, "a video"),
    ("Windows Media", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + _PADDING, "a video"),
    ("WAV", b"RIFF\0\0\0\0WAVEfmt ", "a sound"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "an SVG drawing"),
    ("SVG in UTF-16", '<svg width="9"/>'.encode("utf-16"), "an SVG drawing"),
    ("HTML", b"\n <!DOCTYPE html><html><script>alert(1)</script></html>", "an HTML page"),
    (
        "XML with a billion laughs",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        "an XML document",
    ),
    ("CSV", b"id,label\n1,mel\n", "a text file"),
    ("JSON", b'{"photo": true}', "a text file"),
    ("Windows program", b"MZ\x90\0" + _PADDING, "a program"),
    ("Linux program", b"\x7fELF\x02" + _PADDING, "a program"),
):
    _add(_OTHER, _name, functools.partial(bytes, _start), ErrorCode.NOT_AN_IMAGE, says=_words)
for _name, _start, _words in (
    ("AVIF", b"\0\0\0\x20ftypavif" + _PADDING, "an AVIF image"),
    ("Photoshop", b"8BPS\0\x01" + _PADDING, "a Photoshop document"),
    ("JPEG XL", b"\xff\x0a" + _PADDING, "a JPEG XL image"),
    ("JPEG 2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + _PADDING, "a JPEG 2000 image"),
    ("icon", b"\x00\x00\x01\x00\x01\0" + _PADDING, "an icon"),
    ("camera raw", b"II*\0\x10\0\0\0CR\x02\0" + _PADDING, "a camera raw file"),
):
    _add(_OTHER, _name, functools.partial(bytes, _start), ErrorCode.UNSUPPORTED_FORMAT, says=_words)
_add(_OTHER, "bytes of nothing", lambda: bytes(range(128, 256)) * 4, ErrorCode.NOT_AN_IMAGE)
_add(_OTHER, "PDF behind the name of a PNG", lambda: b"%PDF-1.4\n", ErrorCode.NOT_AN_IMAGE, file="photo.png")

# ------------------------------------------------------------------------------------------------ damage

_DAMAGE = "empty, not an image, truncated"

_add(_DAMAGE, "no bytes", bytes, ErrorCode.EMPTY_FILE)
_add(_DAMAGE, "one byte", lambda: b"\xff", ErrorCode.NOT_AN_IMAGE)
_add(_DAMAGE, "20 kB of zeros", lambda: bytes(20_000), ErrorCode.NOT_AN_IMAGE)
for _kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
    for _share, _spoken in ((0.02, "a fiftieth"), (0.5, "half"), (0.99, "99 %")):
        _add(
            _DAMAGE,
            f"{_spoken} of a {_kind}",
            functools.partial(
                lambda kind, share: (data := encoded(photo(), kind))[: int(len(data) * share)], _kind, _share
            ),
            ErrorCode.TRUNCATED_IMAGE,
        )


def _zeros_at_the_end() -> bytes:
    data = encoded(photo(), "JPEG")
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def _flipped() -> bytes:
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def _png_without_pixels() -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b"")


def _tag_without_value(tag: int) -> bytes:
    """A TIFF in which a tag has no value."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    data = bytearray(tiff_file(WIDTH, HEIGHT, pixels, t258=(8,), t274=(1,)))
    place = data.index(struct.pack("<HHI", tag, 3, 1))
    data[place + 4 : place + 8] = bytes(4)
    return bytes(data)


def _tiff_in_circles() -> bytes:
    """A TIFF whose directory names itself as the next one."""
    data = bytearray(tiff_file(WIDTH, HEIGHT, np.zeros((HEIGHT, WIDTH), np.uint8), t258=(8,)))
    data[-4:] = data[4:8]
    return bytes(data)


_add(_DAMAGE, "JPEG whose end is zeros", _zeros_at_the_end, ErrorCode.TRUNCATED_IMAGE)
_add(_DAMAGE, "PNG with a wrong checksum", _flipped, ErrorCode.DAMAGED_IMAGE)
_add(_DAMAGE, "PNG without pixels", _png_without_pixels, ErrorCode.DAMAGED_IMAGE)
_add(_DAMAGE, "TIFF whose sample size has no value", functools.partial(_tag_without_value, 258), says="1-bit")
_add(_DAMAGE, "TIFF whose orientation has no value", functools.partial(_tag_without_value, 274))
_add(_DAMAGE, "TIFF whose directory names itself as the next", _tiff_in_circles)
_add(
    _DAMAGE,
    "TIFF of uncompressed YCbCr",
    lambda: tiff_file(WIDTH, HEIGHT, smooth_pixels(), t258=(8, 8, 8), t262=(6,), t277=(3,)),
    ErrorCode.UNSUPPORTED_FORMAT,
)
for _kind, _start in (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("TIFF", b"II*\0"),
    ("GIF", b"GIF89a"),
):
    _add(
        _DAMAGE,
        f"noise that begins as a {_kind}",
        functools.partial(lambda start: start + np.random.default_rng(8).bytes(400), _start),
        ErrorCode.TRUNCATED_IMAGE,
    )

# ------------------------------------------------------------------------------------------------ limits

_LARGE = "more than 50 megapixels (declared, before decoding), more than 20 MB"
_SIDE = 16000


def _bomb(kind: str) -> bytes:
    """A few bytes that declare 256 megapixels."""
    size = struct.pack("<HH", _SIDE, _SIDE)
    match kind:
        case "GIF":
            return b"GIF89a" + size + b"\0\0\0," + b"\0\0\0\0" + size + b"\0\x08\0;"
        case "BMP":
            return b"BM" + struct.pack(
                "<IIIIiiHHIIIIII", 54, 0, 54, 40, _SIDE, _SIDE, 1, 24, 0, 0, 0, 0, 0, 0
            )
        case "WebP":
            chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + 2 * (_SIDE - 1).to_bytes(3, "little")
            return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
        case "TIFF":
            return tiff_file(_SIDE, _SIDE, np.zeros(8, np.uint8), t258=(8,))
        case "JPEG":
            jpeg = bytearray(encoded(photo(), "JPEG"))
            frame = jpeg.index(b"\xff\xc0")
            jpeg[frame + 5 : frame + 9] = struct.pack(">HH", _SIDE, _SIDE)
            return bytes(jpeg)
        case _:
            header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
            pixels = png_chunk(b"IDAT", zlib.compress(bytes(99)))
            return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels


def _scans(count: int) -> bytes:
    """A progressive JPEG that goes over its picture again and again."""
    data = encoded(photo(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


for _kind in ("PNG", "GIF", "BMP", "WebP", "TIFF", "JPEG"):
    _add(
        _LARGE,
        f"{_kind} that declares 256 megapixels",
        functools.partial(_bomb, _kind),
        ErrorCode.TOO_MANY_PIXELS,
    )
_add(_LARGE, "20 MB and a byte", lambda: bytes(MAX_BYTES + 1), ErrorCode.TOO_MANY_BYTES, says="20 MB")
_add(_LARGE, "JPEG of 500 scans", lambda: _scans(500), ErrorCode.UNSUPPORTED_FORMAT, says="scans")
_add(_LARGE, "JPEG of 30 scans", lambda: _scans(20))

_SMALL = "short side under 64 pixels, aspect over 4:1"
for _width, _height, _code in (
    (1, 1, ErrorCode.TOO_SMALL),
    (63, 80, ErrorCode.TOO_SMALL),
    (40, 900, ErrorCode.TOO_SMALL),
    (401, 100, ErrorCode.TOO_ELONGATED),
    (100, 401, ErrorCode.TOO_ELONGATED),
    (400, 100, None),
):
    _add(
        _SMALL,
        f"{_width} × {_height} pixels",
        functools.partial(lambda size: encoded(Image.new("RGB", size), "PNG"), (_width, _height)),
        _code,
    )
_add(_SMALL, "64 × 64 pixels", lambda: encoded(photo(64, 64), "PNG"), says="Low resolution")
_add(_SMALL, "149 × 300 pixels", lambda: encoded(photo(149, 300), "PNG"), says="Low resolution")
_add(
    _SMALL,
    "PNG of 0 × 0 pixels",
    lambda: png_file(0, 1, 8, 2, np.zeros((1, 0), np.uint8)),
    ErrorCode.DAMAGED_IMAGE,
)

# ------------------------------------------------------------------------------------------------- gates

_UNIFORM = "uniform, black, overexposed, strongly blurred"
for _name, _colour in (
    ("black", (0, 0, 0)),
    ("white", (255, 255, 255)),
    ("uniform skin colour", (224, 172, 140)),
):
    _add(
        _UNIFORM,
        _name,
        functools.partial(lambda colour: encoded(Image.new("RGB", (320, 240), colour), "PNG"), _colour),
        is_withheld=True,
    )


def _document() -> bytes:
    """A page of text."""
    page = Image.new("RGB", (480, 640), "white")
    drawing = ImageDraw.Draw(page)
    for line in range(30):
        drawing.text((20, 20 + 20 * line), "The quick brown fox jumps over the lazy dog. " * 2, fill="black")
    return encoded(page, "PNG")


def _landscape() -> bytes:
    """Sky above grass."""
    noise = np.random.default_rng(5).normal(0, 12, (480, 640, 3))
    ground = np.where(np.arange(480)[:, None, None] < 240, (110, 160, 235), (60, 140, 50))
    picture = Image.fromarray(np.clip(ground + noise, 0, 255).astype(np.uint8))
    return encoded(picture.filter(ImageFilter.GaussianBlur(1)), "JPEG", quality=90)


_NOT_SKIN = "not skin (document, landscape, face at distance)"
_add(_NOT_SKIN, "page of text", _document, is_withheld=True)
_add(_NOT_SKIN, "sky above grass", _landscape, is_withheld=True)

# ------------------------------------------------------------------------------------------------- names

_NAMES = "file name with HTML, control characters, `../`, 300 characters, emoji, right-to-left marks"
ODD_NAMES = {
    "HTML": "<img src=x onerror=alert(1)>.jpg",
    "a quotation mark that ends an attribute": '"onmouseover="alert(1).jpg',
    "control characters": "a\x1b[31m\r\nSet-Cookie: x.jpg",
    "300 characters": "x" * 230 + "é" * 8 + ".jpg",
    "emoji": "👩‍⚕️🔬.jpg",
    "right-to-left marks": "gpj.\u202eexe\u2066.jpg",
    "a formula": "=HYPERLINK(1).jpg",
    "a percent sign and a slash as an entity": "%2e%2e%2f..&#47;a.jpg",
    "a leading dash": "--help.jpg",
    "spaces alone before the suffix": "   .jpg",
}
"""What an odd name has to the name; each can be one on disk."""
for _name, _file in ODD_NAMES.items():
    _add(_NAMES, f"a name with {_name}", _encode("JPEG"), file=_file)


def quietly(make: Callable[[], bytes]) -> bytes:
    """The bytes of a case; what writers of odd files warn of is no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
