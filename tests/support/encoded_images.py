"""Builders of encoded pictures, good and bad, that the decoder's tests share."""

import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageCms

from dermadeit.errors import ImageError
from dermadeit.imaging.decode import decode_image

WIDTH, HEIGHT = 200, 160


def smooth_pixels(width=WIDTH, height=HEIGHT):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256], -1).astype(np.uint8)


def photo(width=WIDTH, height=HEIGHT):
    return Image.fromarray(smooth_pixels(width, height))


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(source, code, *words):
    with pytest.raises(ImageError) as refused:
        decode_image(source)
    assert refused.value.code == code, refused.value.user_message
    for word in words:
        assert word in refused.value.user_message
    return refused.value


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(width, height, depth, colour_type, samples, extra=b""):
    """A PNG from big-endian rows, for depths that Pillow can't write."""
    rows = samples.reshape(height, -1).view(np.uint8).reshape(height, -1)
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra
    return (
        b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IDAT", zlib.compress(filtered)) + png_chunk(b"IEND", b"")
    )


def tiff_file(width, height, pixels, **tags):
    """An uncompressed little-endian TIFF of one strip; tag numbers as t258=(8,), every value a LONG or SHORT."""
    content = pixels.tobytes()
    fields = {256: (width,), 257: (height,), 258: (16,), 259: (1,), 262: (1,), 273: (8,), 277: (1,)}
    fields |= {278: (height,), 279: (len(content),)}
    fields |= {int(name[1:]): value for name, value in tags.items()}
    start = 8 + len(content)
    extra_at = start + 2 + 12 * len(fields) + 4
    directory, extra = struct.pack("<H", len(fields)), b""
    for tag, values in sorted(fields.items()):
        is_long = tag in (273, 279)
        packed = struct.pack(f"<{len(values)}{'I' if is_long else 'H'}", *values)
        if len(packed) > 4:
            place = struct.pack("<I", extra_at + len(extra))
            extra += packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, 4 if is_long else 3, len(values)) + place
    return b"II*\0" + struct.pack("<I", start) + content + directory + struct.pack("<I", 0) + extra


def matrix_profile(primaries, gamma, description):
    """A matrix-shaper ICC profile, version 2, from D50-adapted primaries [3, 3] in XYZ, one row a channel."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    name = description.encode() + b"\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * (4 + 4 + 2 + 1 + 67)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {key: xyz(row) for key, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for key, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += key + struct.pack(">II", offset + len(body), len(content))
        body += padded
    header = struct.pack(">I4s4s4s4s4s", 0, b"\0\0\0\0", b"\x02\x10\0\0", b"mntr", b"RGB ", b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    header = header.ljust(128, b"\0")
    return struct.pack(">I", len(header + table + body)) + (header + table + body)[4:]


ADOBE_RGB = matrix_profile(
    [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]], 2.2, "Adobe-like"
)
P3 = matrix_profile(
    [[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]], 2.2, "P3-like"
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def dicom_file(pixels, photometric, bits=8, frames=1, **extra):
    """Bytes of a DICOM file with these pixels and the name of a patient."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.PatientName = "Secret^Name"
    dataset.Rows, dataset.Columns = pixels.shape[-2 - (pixels.shape[-1] == 3) :][:2]
    dataset.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    for key, value in extra.items():
        setattr(dataset, key, value)
    dataset.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
