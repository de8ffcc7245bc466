"""The one decoder of the app, the CLI, the API and the training: encoded bytes to 8-bit sRGB pixels.

What it did to the pixels is listed in the ledger of the `LesionImage` that it returns; what it refuses is an
`ImageError` with one of these codes:

| code | meaning |
|---|---|
| not_a_file | a URL, data URL, directory, pipe or device in place of a file |
| unreadable_file | the file is missing, or the system does not let us read it |
| empty_file | zero bytes |
| not_an_image | something else, such as a document, a video, an archive or text |
| unsupported_format | an image of a kind that is not decoded here |
| no_such_frame | another picture than the first is asked for, and the file has no such one |
| missing_package | HEIC or DICOM where the package that reads it is missing |
| truncated_image | the file stops early |
| damaged_image | the format is known but the content contradicts it |
| float_pixels | floating-point pixels, whose range nobody declares |
| too_many_bytes, too_many_pixels, too_small, too_elongated | outside the limits below |

Deep pixels are scaled by the range that the file declares: its bits per sample, 65535 for 16 bits, 4095 for
12. They are never stretched to their own minimum and maximum, because that would brighten a dark photo and
make two photos of one lesion incomparable. 12-bit data stored unscaled in 16 bits can't be distinguished
from a dark photo, so it stays dark and gets a warning. Pillow gives 16-bit colour (not grey) by its high byte.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dermadeit.errors import ErrorCode, ImageError
from dermadeit.imaging import colour, optional_formats
from dermadeit.imaging.probe import TIFF_ORIENTATION, Header, count_scans, exif_orientation, probe

MAX_BYTES = 20 * 1000 * 1000
MAX_PIXELS = 50 * 1000 * 1000
MIN_SIDE = 64
LOW_RESOLUTION_SIDE = 150
MAX_ASPECT = 4
MAX_SCANS = 100
"""Of a progressive JPEG: cameras and programs write about ten, and each goes over the whole picture."""

MAX_NAME_LENGTH = 120

READING_SIDE = 640
"""Pixels a side that are enough to read a photo: more than a network takes, and what `quality` samples."""


class _JpegFile(JpegImagePlugin.JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Skips Pillow's parsing of the EXIF block, which warns about damage that we don't care for."""


# The plugin classes themselves: `Image.open` would add a bomb check whose warning we can't keep to ourselves.
_PLUGINS = {
    "JPEG": _JpegFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations in which a photo is stored with width and height exchanged."""

_BIDI_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_FIRST_FRAME = "The file has several pictures. Only the first was read."


@dataclass(frozen=True, eq=False)
class LesionImage:
    """One decoded photo. Metadata of the file is gone; only pixels and what was done to them remain.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, 0 to 255, read-only.
        name: Display name: no folder, control or direction marks, at most 120 characters. Never a path that
            may be opened, and not escaped for HTML.
        sha256: Hex digest of the encoded bytes, or of size, mode and raw pixels for a PIL image.
        format: Format recognised from the bytes, such as "JPEG"; "memory" for a PIL image.
        ledger: What was done to the pixels, in order, as sentences.
        warnings: What a reader should know about this image, as sentences.
        full_size: Width and height of the whole photo, upright, where it was decoded smaller; else None.
    """

    pixels: np.ndarray = field(repr=False)
    name: str
    sha256: str
    format: str
    ledger: tuple[str, ...]
    warnings: tuple[str, ...]
    full_size: tuple[int, int] | None = None

    @property
    def whole_size(self) -> tuple[int, int]:
        """Width and height of the photo in pixels, upright, also where it was decoded smaller."""
        return self.full_size or (self.width, self.height)

    @property
    def short_side(self) -> int:
        """Pixels of the photo's short side, also where it was decoded smaller."""
        return min(self.whole_size)

    @property
    def width(self) -> int:
        """Width in pixels, after orientation."""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """Height in pixels, after orientation."""
        return self.pixels.shape[0]

    def to_pil(self) -> Image.Image:
        """The pixels as a new RGB image of Pillow."""
        return Image.fromarray(self.pixels)


def decode_image(
    source: bytes | bytearray | memoryview | os.PathLike | str | Image.Image,
    *,
    name: str | None = None,
    frame: int = 1,
    enough_side: int | None = None,
) -> LesionImage:
    """Decodes one photo into 8-bit sRGB.

    Args:
        source: Encoded bytes, a path of a local file, or an image already in memory. A string is a path and
            never a URL.
        name: Display name; the file's own name by default.
        frame: Which picture of a DICOM file to read, from 1 on. All other files have one.
        enough_side: A JPEG may be decoded at a half, a quarter or an eighth of its size, which is faster, as long
            as both sides keep so many pixels; None for the full size.

    Returns:
        The pixels with their ledger.

    Raises:
        ImageError: The source can't be read or is refused; the codes are listed at the top of this module.
        TypeError: `source` is none of the types above.
    """
    if isinstance(source, Image.Image):
        _check_frame(frame)
        return _decode_memory(source, name)
    if isinstance(source, str | os.PathLike):
        data = _read_file(source)
        name = os.fsdecode(source) if name is None else name
    elif isinstance(source, bytes | bytearray | memoryview):
        _check_byte_count(memoryview(source).nbytes)
        data = bytes(source)
    else:
        raise TypeError(f"decode_image takes bytes, a path or a PIL image, not {type(source).__name__}")
    sha256 = hashlib.sha256(data).hexdigest()
    notes = colour.Notes()
    try:
        header = _recognise(data)
        rgb, full_size = _decode_encoded(data, header, notes, frame, enough_side)
    except ImageError as error:
        error.sha256 = sha256
        raise
    return _finish(rgb, notes, name, sha256, header.kind, full_size)


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes pixels as a PNG file without any metadata.

    Args:
        pixels: uint8 [H, W, 3] or [H, W], 0 to 255.

    Returns:
        The bytes of the file.
    """
    buffer = io.BytesIO()
    # Level 1 halves the time of the default for a few per cent more bytes.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def sanitise_name(name: str | None) -> str:
    """A display name from an untrusted one: last component, no control or direction marks, bounded length."""
    last = re.split(r"[/\\]", (name or "").rstrip("/\\"))[-1]
    kept = "".join(
        "\ufffd" if unicodedata.category(mark) == "Cs" else mark
        for mark in last
        if unicodedata.category(mark) not in ("Cc", "Zl", "Zp") and mark not in _BIDI_MARKS
    ).strip()
    if kept in ("", ".", ".."):
        return "image"
    return kept if len(kept) <= MAX_NAME_LENGTH else kept[: MAX_NAME_LENGTH - 1] + "…"


def _read_file(path: str | os.PathLike) -> bytes:
    text = os.fspath(path)
    if isinstance(text, str) and re.match(r"data:|[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise ImageError(
            "A web address was given in place of a file. Pass the bytes of the image.",
            code=ErrorCode.NOT_A_FILE,
        )
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait forever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(text, flags), "rb") as stream:  # noqa: PTH123
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(
                    "That is a folder, pipe or device, not a file. Choose an image file.",
                    code=ErrorCode.NOT_A_FILE,
                )
            _check_byte_count(status.st_size)
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ImageError("There is no such file.", code=ErrorCode.UNREADABLE_FILE) from None
    except IsADirectoryError:
        raise ImageError(
            "That is a folder, not a file. Choose an image file.", code=ErrorCode.NOT_A_FILE
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "invalid name"
        raise ImageError(f"The file can't be read: {reason}.", code=ErrorCode.UNREADABLE_FILE) from None


def _check_byte_count(count: int) -> None:
    if count > MAX_BYTES:
        raise ImageError(
            f"The file has {count / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read. "
            "Save it as JPEG or crop it.",
            code=ErrorCode.TOO_MANY_BYTES,
        )


def _check_geometry(size: tuple[int, int]) -> None:
    width, height = size
    shown = f"The image is {width:,} × {height:,} pixels"
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{shown} ({width * height / 1e6:,.0f} megapixels); at most {MAX_PIXELS / 1e6:.0f} megapixels "
            "are read. Make it smaller or crop it.",
            code=ErrorCode.TOO_MANY_PIXELS,
        )
    if min(size) < MIN_SIDE:
        raise ImageError(
            f"{shown}; the short side must be at least {MIN_SIDE} pixels. "
            "Crop less tightly or use the original photo.",
            code=ErrorCode.TOO_SMALL,
        )
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(
            f"{shown}; the long side may be at most {MAX_ASPECT} times the short side. "
            "Crop it closer to a square around the lesion.",
            code=ErrorCode.TOO_ELONGATED,
        )


def _recognise(data: bytes) -> Header:
    _check_byte_count(len(data))
    if not data:
        raise ImageError("The file is empty (0 bytes). Choose another one.", code=ErrorCode.EMPTY_FILE)
    found = probe(data)
    if isinstance(found, Header):
        return found
    raise ImageError(
        f"This is {found.description}, not a photo. Use JPEG, PNG, WebP, TIFF, HEIC or DICOM."
        if found.description
        else "This is not an image. Use JPEG, PNG, WebP, TIFF, HEIC or DICOM.",
        code=ErrorCode.UNSUPPORTED_FORMAT if found.is_image else ErrorCode.NOT_AN_IMAGE,
    )


@contextmanager
def _refusing_damage(kind: str, count: int, *, is_whole: bool = True) -> Iterator[None]:
    """Turns whatever a decoder raises into an `ImageError`; `count` is of the encoded bytes."""
    try:
        yield
    except ImageError:
        raise
    # Decoders raise about a dozen types on damaged files, and new ones with new versions.
    except Exception as error:
        reason = str(error).lower()
        if not is_whole or "truncated" in reason or "less than expected" in reason:
            raise _truncated(kind, count) from error
        if any(words in reason for words in ("unknown pixel mode", "unsupported", "not available")):
            raise ImageError(
                f"This kind of {kind} file is not supported. Save the photo as 8-bit PNG or JPEG.",
                code=ErrorCode.UNSUPPORTED_FORMAT,
            ) from error
        raise _damaged(kind) from error


def _damaged(kind: str) -> ImageError:
    return ImageError(
        f"This {kind} file is damaged and can't be decoded. Use the original photo.",
        code=ErrorCode.DAMAGED_IMAGE,
    )


def _truncated(kind: str, count: int) -> ImageError:
    return ImageError(
        f"This {kind} file is incomplete: it ends after {count:,} bytes. Copy or upload it again.",
        code=ErrorCode.TRUNCATED_IMAGE,
    )


def _check_frame(frame: int) -> None:
    """Refuses any picture but the first of a file that is no DICOM file."""
    if frame != 1:
        raise optional_formats.no_such_frame(frame, 1)


def _decode_encoded(
    data: bytes, header: Header, notes: colour.Notes, frame: int, enough_side: int | None
) -> tuple[Image.Image, tuple[int, int] | None]:
    """Encoded bytes to an upright image of mode RGB, and its full size where it was decoded smaller."""
    kind = header.kind
    refusing_damage = partial(_refusing_damage, kind, len(data), is_whole=header.is_whole)
    if kind != "DICOM":
        _check_frame(frame)
    if kind in optional_formats.OPENERS:
        with refusing_damage():
            opened = (
                optional_formats.open_dicom(data, _check_geometry, frame)
                if kind == "DICOM"
                else optional_formats.OPENERS[kind](data, _check_geometry)
            )
            notes.ledger += opened.ledger
            notes.warnings += opened.warnings
            return colour.to_srgb(opened.picture, notes), None
    picture, full_size = _load(data, header, refusing_damage, enough_side)
    if full_size is not None:
        notes.ledger.append(
            f"Read at {picture.width:,} × {picture.height:,} of {full_size[0]:,} × {full_size[1]:,} pixels."
        )
    with refusing_damage():
        rgb = colour.to_srgb(picture, notes, bits=header.bits, min_is_white=header.min_is_white)
    if _holds_more_frames(picture):
        notes.ledger.append("First frame used.")
        notes.warnings.append(_FIRST_FRAME)
    if header.orientation is not None:
        # Pillow turns a TIFF by itself while loading it.
        return _turn(rgb, header.orientation, notes, done=True), full_size
    orientation = exif_orientation(picture.info.get("exif"))
    if full_size and orientation in _ON_ITS_SIDE:
        full_size = full_size[1], full_size[0]
    return _turn(rgb, orientation, notes), full_size


def _load(
    data: bytes,
    header: Header,
    refusing_damage: Callable[[], AbstractContextManager[None]],
    enough_side: int | None,
) -> tuple[Image.Image, tuple[int, int] | None]:
    """Runs the Pillow plugin, checking what the header declares before any pixel is decoded.

    Returns:
        The picture, and its full size where it was decoded smaller.
    """
    kind = header.kind
    if header.size:
        _check_geometry(header.size)
    if header.has_float_samples:
        raise colour.floating_point()
    if header.is_raw_ycbcr:
        # Pillow misreads these as RGB with padding.
        raise ImageError(
            "Uncompressed YCbCr TIFF files are not supported. Save the photo as PNG or JPEG.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        )
    stream = io.BytesIO(data)
    with refusing_damage():
        picture = _PLUGINS[kind](stream)
    _check_geometry(picture.size)
    if not header.is_intact:
        raise _damaged(kind) if header.is_whole else _truncated(kind, len(data))
    # libjpeg may paint a lost end grey instead of failing, so the end marker is looked for in the scan.
    if kind == "JPEG" and data.find(b"\xff\xd9", stream.tell()) < 0:
        raise _truncated(kind, len(data))
    if kind == "JPEG" and count_scans(data, 2, MAX_SCANS) > MAX_SCANS:
        raise ImageError(
            f"This JPEG file is made of more than {MAX_SCANS} scans, which takes too long to read. Save the photo "
            "again as JPEG or PNG.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        )
    full_size = picture.size
    with refusing_damage():
        if kind == "JPEG" and enough_side:
            picture.draft(None, (enough_side, enough_side))
        picture.load()
    return picture, None if picture.size == full_size else full_size


def _holds_more_frames(picture: Image.Image) -> bool:
    if "mp" in picture.info:
        return _is_multi_picture(picture)
    try:
        return bool(getattr(picture, "is_animated", False))
    # The first frame is good; a second one that can't be parsed is still a second one.
    except Exception:
        return True


def _is_multi_picture(picture: Image.Image) -> bool:
    try:
        header = picture._getmp() if isinstance(picture, JpegImagePlugin.JpegImageFile) else None
        return header is not None and header[45057] > 1
    except Exception:
        return False


def _turn(rgb: Image.Image, orientation: int, notes: colour.Notes, *, done: bool = False) -> Image.Image:
    method = _TRANSPOSITIONS.get(orientation)
    if method is None:
        return rgb
    notes.ledger.append(f"Turned upright by the camera's orientation mark ({orientation}).")
    return rgb if done else rgb.transpose(method)


def _decode_memory(picture: Image.Image, name: str | None) -> LesionImage:
    _check_geometry(picture.size)
    notes = colour.Notes(["Image taken from memory: its hash covers size, mode and pixels."])
    with _refusing_damage("in-memory", 0):
        raw = picture.tobytes()
        digest = hashlib.sha256(f"{picture.width}x{picture.height} {picture.mode} ".encode() + raw)
        if picture.palette is not None:
            digest.update(picture.palette.tobytes())
        bits = 16 if picture.mode.startswith("I") else 8
        rgb = colour.to_srgb(picture, notes, bits=bits)
    try:
        orientation = picture.getexif().get(TIFF_ORIENTATION, 1)
    # Damaged metadata says nothing about the pixels.
    except Exception:
        orientation = 1
    return _finish(_turn(rgb, orientation, notes), notes, name, digest.hexdigest(), "memory")


def _finish(
    rgb: Image.Image,
    notes: colour.Notes,
    name: str | None,
    sha256: str,
    kind: str,
    full_size: tuple[int, int] | None = None,
) -> LesionImage:
    if min(rgb.size) < LOW_RESOLUTION_SIDE:
        notes.warnings.append(
            f"Low resolution: {rgb.width} × {rgb.height} pixels. The answer is less reliable below "
            f"{LOW_RESOLUTION_SIDE} pixels."
        )
    pixels = np.asarray(rgb)
    pixels.flags.writeable = False
    return LesionImage(
        pixels, sanitise_name(name), sha256, kind, tuple(notes.ledger), tuple(notes.warnings), full_size
    )


def shrink(image: LesionImage, side: int) -> LesionImage:
    """The photo with at most `side` pixels a side."""
    picture = image.to_pil()
    picture.thumbnail((side, side))
    return replace(image, pixels=np.asarray(picture))
