"""HEIC and DICOM, each read by a package of its own that is imported when the first such file comes.

Both openers take the whole file and return a loaded Pillow image, upright and without metadata apart from an
ICC profile, plus ledger lines and warnings.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dermadeit.errors import ErrorCode, ImageError
from dermadeit.imaging.colour import INVERTED

MAX_INFLATED_BYTES = 160_000_000
"""What the deflated tags of a DICOM file may unpack to: the largest photo of 8 bits, and room."""

_CHUNK = 1 << 20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# After 128 bytes and “DICM” comes the element with the length of those that are never deflated.
_META_LENGTH, _META_START = slice(140, 144), 144

_JPEG_2000_SIZE = b"\xff\x4f\xff\x51"
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]\0[\x0b-\xff].(?=.{5})", re.DOTALL)
_MOST_CHANNELS = 4


class Opened(NamedTuple):
    """A loaded image with the ledger lines and warnings of its opener."""

    picture: Image.Image
    ledger: tuple[str, ...]
    warnings: tuple[str, ...]


CheckGeometry = Callable[[tuple[int, int]], None]


def _missing(package: str, kind: str) -> ImageError:
    return ImageError(
        f"Reading {kind} files needs the package {package}. Install it with “pip install {package}”, or save "
        "the photo as JPEG.",
        code=ErrorCode.MISSING_PACKAGE,
    )


def open_heic(data: bytes, check_geometry: CheckGeometry) -> Opened:
    """Decodes the primary picture of a HEIC or HEIF file; rotation is applied by the library."""
    try:
        import pi_heif
    except ImportError:
        raise _missing("pi-heif", "HEIC") from None
    container = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    check_geometry(container.size)
    decoded = container.to_pillow()
    picture = Image.frombytes(decoded.mode, decoded.size, decoded.tobytes())
    if profile := decoded.info.get("icc_profile"):
        picture.info["icc_profile"] = profile
    several = len(container) > 1
    return Opened(
        picture,
        ("Primary picture of the file used.",) if several else (),
        ("The file has several pictures. Only the primary picture was read.",) if several else (),
    )


def no_such_frame(frame: int, frames: int) -> ImageError:
    """The mistake of asking a file for a picture that it lacks; both numbers count from 1."""
    held = "one picture" if frames == 1 else f"{frames} pictures"
    return ImageError(
        f"There is no picture {frame} in this file. It has {held}.", code=ErrorCode.NO_SUCH_FRAME
    )


def open_dicom(data: bytes, check_geometry: CheckGeometry, frame: int = 1) -> Opened:
    """Decodes a frame, from 1 on, by its photometric interpretation; no tag of the file leaves this function.

    JPEG, JPEG 2000, JPEG-LS and run lengths are decoded; lossless JPEG of 1993 is not, because what decodes it is
    under the GPL.
    """
    try:
        import pydicom
        from pydicom.encaps import get_frame
        from pydicom.pixels import apply_color_lut, pixel_array
    except ImportError:
        raise _missing("pydicom", "DICOM") from None
    _check_deflated_length(data)
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise ImageError(
            "This DICOM file has floating-point pixels, whose range is unknown. Export it as 8 bit.",
            code=ErrorCode.FLOAT_PIXELS,
        )
    if "PixelData" not in dataset:
        raise ImageError(
            "This DICOM file has no picture. Choose another file.", code=ErrorCode.UNSUPPORTED_FORMAT
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= frame <= frames:
        raise no_such_frame(frame, frames)
    check_geometry((int(dataset.Columns), int(dataset.Rows)))
    photometric = str(dataset.PhotometricInterpretation)
    _check_subsampling(dataset, photometric)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_coded_size(get_frame(dataset.PixelData, frame - 1, number_of_frames=frames), check_geometry)
    try:
        # YBR becomes RGB in here; palettes and inverted greys do not.
        values = pixel_array(dataset, index=frame - 1)
    except (RuntimeError, NotImplementedError):
        raise ImageError(
            f"This DICOM file is compressed as {dataset.file_meta.TransferSyntaxUID.name}, which can't be "
            "decoded here. Export it uncompressed or as JPEG.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        ) from None
    bits = int(dataset.BitsStored)
    if photometric == "PALETTE COLOR":
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        values = apply_color_lut(values, dataset)
    elif dataset.PixelRepresentation == 1:
        values = values.astype(np.int64) + 2 ** (bits - 1)
    top = 2**bits - 1
    ledger = [f"DICOM pixels ({photometric}) decoded by their photometric interpretation."]
    if photometric == "MONOCHROME1":
        values = top - values.astype(np.int64)
        ledger.append(INVERTED)
    if bits != 8:
        values = (np.clip(values, 0, top).astype(np.uint64) * 255 + top // 2) // top
        ledger.append(f"{bits}-bit pixels scaled to 8 bit by their range of 0 to {top}.")
    warnings = ()
    if frames > 1:
        which = "first" if frame == 1 else f"number {frame}"
        ledger.append(f"Frame {frame} of {frames} used.")
        warnings = (f"The file has several frames. Only the {which} was read.",)
    return Opened(Image.fromarray(values.astype(np.uint8)), tuple(ledger), warnings)


def _check_deflated_length(data: bytes) -> None:
    """Refuses a file whose tags are deflated to more than may be read; pydicom would inflate it whole."""
    start = _META_START + int.from_bytes(data[_META_LENGTH], "little")
    if _DEFLATED not in data[:start]:
        return
    inflating, rest, length = zlib.decompressobj(-zlib.MAX_WBITS), data[start:], 0
    while rest and length <= MAX_INFLATED_BYTES:
        length += len(inflating.decompress(rest, _CHUNK))
        rest = inflating.unconsumed_tail
    if length > MAX_INFLATED_BYTES:
        raise ImageError(
            f"The pixels of this DICOM file are deflated, and have more than {MAX_INFLATED_BYTES / 1e6:.0f} MB. "
            "Export it as JPEG.",
            code=ErrorCode.TOO_MANY_BYTES,
        )


def _check_coded_size(encoded: bytes, check_geometry: CheckGeometry) -> None:
    """Checks what the JPEG, JPEG-LS or JPEG 2000 within a DICOM file says of its size: decoders believe that."""
    if encoded.startswith(_JPEG_2000_SIZE):
        right, bottom, left, top, *_, channels = struct.unpack_from(">8IH", encoded, 8)
        size = (right - left, bottom - top)
    elif encoded.startswith(b"\xff\xd8"):
        # A thumbnail among its metadata has a header too.
        headers = (
            struct.unpack_from(">HHB", encoded, found.end()) for found in _JPEG_FRAME.finditer(encoded)
        )
        height, width, channels = max(headers, default=(0, 0, 0), key=lambda header: header[0] * header[1])
        size = (width, height)
    else:
        return
    if channels > _MOST_CHANNELS:
        raise ImageError(
            f"This DICOM file has {channels} colour channels. Export it as RGB.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        )
    check_geometry(size)


def _check_subsampling(dataset: Any, photometric: str) -> None:
    """Refuses uncompressed pixels that are longer than the colours that their header declares."""
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    if (
        photometric == "YBR_FULL_422"
        and not dataset.file_meta.TransferSyntaxUID.is_compressed
        and len(dataset.PixelData) in (3 * samples, 3 * samples + 1)
    ):
        # Those who write such files mean RGB or YBR_FULL; a photo in the wrong colours must not be read.
        raise ImageError(
            "This DICOM file contradicts itself: its header says YBR_FULL_422, which halves the colours, but its "
            "pixels have the full length of RGB or YBR_FULL. Correct the photometric interpretation, or use the "
            "original photo.",
            code=ErrorCode.DAMAGED_IMAGE,
        )


OPENERS = {"HEIC": open_heic, "DICOM": open_dicom}
