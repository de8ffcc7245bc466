"""What the decoder accepts: formats, orientation, several frames, images in memory."""

import hashlib
import io
import struct

import numpy as np
import pytest
from encoded_images import (
    HEIGHT,
    SRGB,
    WIDTH,
    encoded,
    photo,
    refusal,
    smooth_pixels,
)
from PIL import Image

from dermadeit.imaging.decode import decode_image, encode_png

# --- accepted formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_are_exact_and_leave_no_ledger(kind):
    image = decode_image(encoded(photo(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(image.pixels, smooth_pixels())
    assert (image.format, image.ledger, image.warnings) == (kind, (), ())


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression):
    assert np.array_equal(
        decode_image(encoded(photo(), "TIFF", compression=compression)).pixels, smooth_pixels()
    )


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(progressive):
    data = encoded(photo(), "JPEG", quality=95, progressive=progressive)
    image = decode_image(data, name="lesion.jpg")
    assert np.abs(image.pixels.astype(int) - smooth_pixels()).mean() < 6
    assert (image.width, image.height, image.format, image.ledger) == (WIDTH, HEIGHT, "JPEG", ())
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.name == "lesion.jpg"


def test_pixels_are_read_only_and_independent():
    image = decode_image(encoded(photo(), "PNG"))
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0, 0, 0] = 1
    assert image.pixels.dtype == np.uint8
    assert image.to_pil().mode == "RGB"


def test_path_string_bytes_and_memoryview_agree(tmp_path):
    data = encoded(photo(), "PNG")
    path = tmp_path / "lesion.wrong"
    path.write_bytes(data)
    images = [decode_image(source) for source in (path, str(path), data, bytearray(data), memoryview(data))]
    assert len({image.sha256 for image in images}) == 1
    assert [image.name for image in images[:3]] == ["lesion.wrong", "lesion.wrong", "image"]


def test_other_types_are_a_programming_error():
    with pytest.raises(TypeError):
        decode_image(io.BytesIO(b""))


# --- orientation and metadata ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "compression"),
    [("PNG", None), ("WEBP", None), ("JPEG", None), ("TIFF", None), ("TIFF", "tiff_lzw")],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, compression, orientation):
    upright = smooth_pixels()
    # How a camera stores the upright picture under each mark: the inverse of what a viewer must do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"exif": exif, "compression": compression} if kind == "TIFF" else {"exif": exif.tobytes()}
    options |= {"lossless": True} if kind == "WEBP" else {}
    options |= {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    image = decode_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, **options))
    assert image.pixels.shape == upright.shape
    assert np.abs(image.pixels.astype(int) - upright).max() <= (16 if kind == "JPEG" else 0)
    assert len(image.ledger) == (orientation > 1)
    assert orientation == 1 or f"({orientation})" in image.ledger[0]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + b"\xff" * 40]
)
def test_damaged_exif_is_ignored(exif):
    data = encoded(photo(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert decode_image(data[:2] + segment + data[2:]).ledger == ()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    assert decode_image(encoded(photo(), "JPEG", exif=exif.tobytes())).ledger == ()


def test_encode_png_has_no_metadata():
    exif = Image.Exif()
    exif[270] = "patient name"
    image = decode_image(encoded(photo(), "JPEG", exif=exif.tobytes(), icc_profile=SRGB, comment=b"secret"))
    data = encode_png(image.pixels)
    assert np.array_equal(decode_image(data).pixels, image.pixels)
    kinds, position = [], 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        kinds.append(kind)
        position += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


# --- several frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_with_a_warning(kind):
    red, blue = Image.new("RGB", (160, 160), "red"), Image.new("RGB", (160, 160), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(encoded(red, kind, save_all=True, append_images=[blue, red], **options))
    assert image.pixels[0, 0].tolist() in ([255, 0, 0], [254, 0, 0])
    assert "first" in image.warnings[0]
    assert "First frame used." in image.ledger


def test_multi_picture_jpeg():
    image = decode_image(encoded(photo(), "MPO", save_all=True, append_images=[photo(80, 80)]))
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert "first" in image.warnings[0]


def test_still_gif_has_no_warning():
    assert decode_image(encoded(photo(), "GIF")).warnings == ()


# --- images in memory --------------------------------------------------------------------------------------


def test_memory_image_says_what_its_hash_covers():
    picture = photo()
    image = decode_image(picture, name="shot")
    assert np.array_equal(image.pixels, smooth_pixels())
    assert (image.format, image.name) == ("memory", "shot")
    assert "hash" in image.ledger[0]
    assert image.sha256 == decode_image(picture.copy()).sha256
    assert image.sha256 != decode_image(picture.transpose(Image.Transpose.ROTATE_180)).sha256
    assert picture.tobytes() == photo().tobytes()


def test_lazily_opened_image_gets_orientation_and_refusals():
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(photo(), "JPEG", exif=exif.tobytes())
    with Image.open(io.BytesIO(data)) as picture:
        assert decode_image(picture).width == HEIGHT
    with Image.open(io.BytesIO(data[: len(data) // 2])) as picture:
        refusal(picture, "truncated_image")
    refusal(Image.new("RGB", (10, 10)), "too_small")
