"""One test for each row of the input table that the decoder is responsible for; bad files are built in memory."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from dermadeit import imaging
from dermadeit.errors import ImageError
from dermadeit.imaging import decode_image, encode_png

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


# --- transparency, palettes, grey --------------------------------------------------------------------------


def on_white(colours, alpha):
    return np.rint(colours * (alpha / 255.0) + 255 * (1 - alpha / 255.0)).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white(kind):
    rgba = np.full((80, 100, 4), (200, 100, 0, 0), np.uint8)
    rgba[..., 3] = np.linspace(0, 255, 100).astype(np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = decode_image(encoded(Image.fromarray(rgba), kind, **options))
    assert np.abs(image.pixels - on_white(rgba[..., :3], rgba[..., 3:])).max() <= 1
    assert image.pixels[0, 0].tolist() == [255, 255, 255]
    assert image.pixels[0, -1].tolist() == [200, 100, 0]
    assert "white" in image.ledger[0]


def test_grey_with_alpha():
    la = np.stack([np.full((80, 100), 40), np.full((80, 100), 51)], -1).astype(np.uint8)
    bands = [Image.fromarray(la[..., band]) for band in (0, 1)]
    image = decode_image(encoded(Image.merge("LA", bands), "PNG"))
    assert image.pixels[0, 0].tolist() == [212, 212, 212]
    assert "white" in image.ledger[0]


def test_opaque_alpha_changes_nothing():
    image = decode_image(encoded(photo().convert("RGBA"), "PNG"))
    assert np.array_equal(image.pixels, smooth_pixels())
    assert "without effect" in image.ledger[0]


def palette_photo():
    picture = Image.new("P", (100, 80), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    picture.paste(1, (50, 0, 100, 80))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(kind):
    image = decode_image(encoded(palette_photo(), kind))
    assert image.pixels[0, 0].tolist() == [10, 20, 30]
    assert image.pixels[0, 99].tolist() == [200, 100, 50]
    assert "Palette" in image.ledger[0]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff\xff"])
def test_palette_with_transparency(transparency):
    image = decode_image(encoded(palette_photo(), "PNG", transparency=transparency))
    assert image.pixels[0, 0].tolist() == [255, 255, 255]
    assert image.pixels[0, 99].tolist() == [200, 100, 50]
    assert "white" in image.ledger[1]


def test_transparent_colour_of_rgb_png():
    picture = Image.new("RGB", (100, 80), (1, 2, 3))
    picture.paste((9, 9, 9), (50, 0, 100, 80))
    image = decode_image(encoded(picture, "PNG", transparency=(1, 2, 3)))
    assert image.pixels[0, 0].tolist() == [255, 255, 255]
    assert image.pixels[0, 99].tolist() == [9, 9, 9]


def test_grey_and_one_bit():
    grey = Image.fromarray(smooth_pixels()[..., 0])
    image = decode_image(encoded(grey, "PNG"))
    assert np.array_equal(image.pixels, np.repeat(smooth_pixels()[..., :1], 3, -1))
    assert "Greyscale" in image.ledger[0]
    image = decode_image(encoded(grey.point(lambda v: 255 * (v > 127), "1"), "PNG"))
    assert set(np.unique(image.pixels)) == {0, 255}
    assert "1-bit" in image.ledger[0]


def test_premultiplied_alpha_in_memory():
    rgba = Image.new("RGBA", (80, 80), (200, 100, 0, 128))
    assert (
        np.abs(decode_image(rgba.convert("RGBa")).pixels.astype(int) - decode_image(rgba).pixels).max() <= 2
    )


# --- depth -------------------------------------------------------------------------------------------------


def ramp_16():
    return np.linspace(0, 65535, 128 * 128).round().astype(np.uint16).reshape(128, 128)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_its_range(kind):
    image = decode_image(encoded(Image.fromarray(ramp_16()), kind))
    assert np.array_equal(image.pixels[..., 0], np.rint(ramp_16() / 257).astype(np.uint8))
    assert "16-bit" in image.ledger[0]
    assert "65535" in image.ledger[0]
    assert len(image.warnings) == 1  # low resolution only


def test_16_bit_big_endian_tiff_in_memory_mode():
    swapped = Image.frombytes("I;16B", (128, 128), ramp_16().astype(">u2").tobytes())
    assert np.array_equal(decode_image(swapped).pixels[..., 0], np.rint(ramp_16() / 257).astype(np.uint8))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_png(colour_type, channels):
    samples = np.zeros((100, 100, channels), ">u2")
    samples[..., 0] = 0x8000
    samples[..., -1] = 0xFFFF
    image = decode_image(png_file(100, 100, 16, colour_type, samples))
    assert image.pixels[0, 0, 0] == 128
    assert "16-bit" in image.ledger[0]


def test_16_bit_colour_tiff():
    samples = np.zeros((100, 100, 3), "<u2")
    samples[..., 0] = 0xFFFF
    image = decode_image(tiff_file(100, 100, samples, t258=(16, 16, 16), t262=(2,), t277=(3,)))
    assert image.pixels[0, 0].tolist() == [255, 0, 0]
    assert "16-bit" in image.ledger[0]


def test_16_bit_grey_where_zero_is_white():
    image = decode_image(tiff_file(128, 128, ramp_16().astype("<u2"), t262=(0,)))
    assert image.pixels[0, 0, 0] == 255
    assert image.pixels[-1, -1, 0] == 0


def test_12_bit_data_in_16_bits_is_not_stretched_but_warned_about():
    image = decode_image(encoded(Image.fromarray((ramp_16() >> 4).astype(np.uint16)), "PNG"))
    assert image.pixels.max() == 16
    assert "12-bit" in image.warnings[0]


def test_16_bit_transparent_grey():
    samples = np.zeros((100, 100), ">u2")
    samples[:, 50:] = 0x4000
    image = decode_image(png_file(100, 100, 16, 0, samples, png_chunk(b"tRNS", b"\x40\x00")))
    assert image.pixels[0, 0].tolist() == [0, 0, 0]
    assert image.pixels[0, 99].tolist() == [255, 255, 255]


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_float_tiff_is_refused(value):
    refusal(encoded(Image.fromarray(np.full((100, 100), value, np.float32)), "TIFF"), "float_pixels", "8 bit")


def test_float_rgb_half_and_double_tiff_are_refused():
    for dtype, bits, samples in (("<f4", 32, 3), ("<f2", 16, 1), ("<f8", 64, 1)):
        pixels = np.zeros((100, 100, samples), dtype)
        data = tiff_file(
            100, 100, pixels, t258=(bits,) * samples, t262=(2 if samples == 3 else 1,), t277=(samples,),
            t339=(3,) * samples,
        )  # fmt: skip
        refusal(data, "float_pixels")


def test_float_and_wide_integers_in_memory_are_refused():
    refusal(Image.fromarray(np.full((100, 100), np.nan, np.float32)), "float_pixels")
    refusal(Image.fromarray(np.full((100, 100), 70000, np.int32)), "unsupported_format")


def test_tiff_with_odd_samples_is_unsupported_not_damaged():
    refusal(
        tiff_file(100, 100, np.zeros((100, 100, 5), "<u2"), t258=(16,) * 5, t277=(5,)), "unsupported_format"
    )


def test_32_bit_tiff_is_refused():
    refusal(tiff_file(100, 100, np.zeros((100, 100), "<u4"), t258=(32,)), "unsupported_format", "8 bit")


# --- colour ------------------------------------------------------------------------------------------------


def test_srgb_profile_leaves_no_ledger():
    image = decode_image(encoded(photo(), "PNG", icc_profile=SRGB))
    assert np.array_equal(image.pixels, smooth_pixels())
    assert image.ledger == ()


@pytest.mark.parametrize(("profile", "name"), [(ADOBE_RGB, "Adobe-like"), (P3, "P3-like")])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_wide_gamut_is_converted(profile, name, kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    picture = Image.new("RGB", (160, 160), (128, 160, 128))
    image = decode_image(encoded(picture, kind, icc_profile=profile, **options))
    red, green, blue = image.pixels[80, 80].astype(int)
    # The same numbers in a wider space are a more saturated green.
    assert red < 126
    assert abs(green - 160) <= 5
    assert blue < 128
    assert name in image.ledger[0]
    assert image.warnings == ()


def test_wide_gamut_keeps_neutral_grey():
    image = decode_image(encoded(Image.new("RGB", (160, 160), (120, 120, 120)), "PNG", icc_profile=P3))
    assert np.ptp(image.pixels[0, 0].astype(int)) <= 1


def test_profile_with_alpha_is_applied_before_white():
    picture = Image.new("RGBA", (160, 160), (128, 160, 128, 0))
    picture.paste((128, 160, 128, 255), (80, 0, 160, 160))
    image = decode_image(encoded(picture, "PNG", icc_profile=P3))
    assert image.pixels[0, 0].tolist() == [255, 255, 255]
    assert image.pixels[0, 159, 0] < 126
    assert len(image.ledger) == 2


@pytest.mark.parametrize(
    "profile", [b"not a profile", SRGB[:200], b"\0" * 300, ADOBE_RGB.replace(b"RGB ", b"CMYK")]
)
def test_broken_profile_falls_back_with_a_warning(profile):
    image = decode_image(encoded(photo(), "JPEG", icc_profile=profile))
    assert "profile unusable" in image.ledger[0]
    assert "profile" in image.warnings[0]
    assert np.array_equal(image.pixels, decode_image(encoded(photo(), "JPEG")).pixels)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_profile(kind):
    # No ink is white, full black ink is black: this fails when the inversion of Adobe JPEGs is missed.
    picture = Image.new("CMYK", (160, 160), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (80, 0, 160, 160))
    image = decode_image(encoded(picture, kind, **({"quality": 100} if kind == "JPEG" else {})))
    assert image.pixels[0, 0].min() >= 253
    assert image.pixels[0, 159].max() <= 2
    assert "CMYK" in image.ledger[0]
    assert "approximate" in image.warnings[0]


def test_cmyk_goes_through_its_profile(monkeypatch):
    used = []

    class Inverting:
        def apply(self, picture):
            used.append(picture.mode)
            return Image.new("RGB", picture.size, (1, 2, 3))

    monkeypatch.setattr(imaging.colour, "_profile_transform", lambda profile: ("CMYK", Inverting(), "coated"))
    image = decode_image(encoded(Image.new("CMYK", (160, 160)), "JPEG", icc_profile=b"x"))
    assert used == ["CMYK"]
    assert image.pixels[0, 0].tolist() == [1, 2, 3]
    assert "coated" in image.ledger[0]


def test_uncompressed_ycbcr_tiff_is_refused():
    refusal(encoded(photo().convert("YCbCr"), "TIFF"), "unsupported_format", "YCbCr")


def test_compressed_ycbcr_tiff():
    picture = Image.new("RGB", (160, 160), (180, 120, 90)).convert("YCbCr")
    image = decode_image(encoded(picture, "TIFF", compression="tiff_lzw"))
    assert np.abs(image.pixels[0, 0].astype(int) - (180, 120, 90)).max() <= 4


@pytest.mark.parametrize("mode", ["LAB"])
def test_tiff_in_other_colour_models(mode):
    picture = Image.new("RGB", (160, 160), (180, 120, 90))
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        picture = to_lab.apply(picture)
    else:
        picture = picture.convert(mode)
    image = decode_image(encoded(picture, "TIFF"))
    assert np.abs(image.pixels[0, 0].astype(int) - (180, 120, 90)).max() <= 4
    assert mode.lower() in image.ledger[0].lower()


def test_hsv_in_memory():
    image = decode_image(photo().convert("HSV"))
    assert np.abs(image.pixels.astype(int) - smooth_pixels()).max() <= 8


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


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"%PDF-1.7\n", "not_an_image", "PDF"),
        (b"PK\x03\x04" + b"\0" * 60, "not_an_image", "ZIP"),
        (b"\x1f\x8b\x08" + b"\0" * 60, "not_an_image", "gzip"),
        (b"7z\xbc\xaf\x27\x1c" + b"\0" * 60, "not_an_image", "7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "not_an_image", "RAR"),
        (b"\0\0\0\x20ftypisom" + b"\0" * 60, "not_an_image", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "not_an_image", "video"),
        (b"\x1aE\xdf\xa3" + b"\0" * 60, "not_an_image", "video"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image", "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<svg/>', "not_an_image", "SVG"),
        ('<svg width="9"/>'.encode("utf-16"), "not_an_image", "SVG"),
        (b"\n <!DOCTYPE html><html></html>", "not_an_image", "HTML"),
        (b"<?xml version='1.0'?><note/>", "not_an_image", "XML"),
        (b"id,label\n1,mel\n", "not_an_image", "text"),
        (b"BMW is a car, not a bitmap", "not_an_image", "text"),
        (b"\0\0\0\x20ftypavif" + b"\0" * 60, "unsupported_format", "AVIF"),
        (b"8BPS\0\x01" + b"\0" * 60, "unsupported_format", "Photoshop"),
        (b"II*\0\x10\0\0\0CR\x02\0" + b"\0" * 60, "unsupported_format", "raw"),
        (bytes(range(128, 256)) * 4, "not_an_image", "not an image"),
        (b"", "empty_file", "empty"),
    ],
)
def test_other_files_are_named_whatever_their_extension(tmp_path, content, code, words):
    refusal(content, code, words)
    path = tmp_path / "lesion.jpg"
    path.write_bytes(content)
    assert str(tmp_path) not in refusal(path, code, words).user_message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(kind, share):
    data = encoded(photo(), kind)
    message = refusal(data[: int(len(data) * share)], "truncated_image", kind, "truncated")
    assert f"{int(len(data) * share):,}" in message.user_message


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_file_cut_at_any_of_its_last_bytes(kind):
    data = encoded(photo(), kind)
    for count in range(1, 40):
        refusal(data[:-count], "truncated_image")


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_whose_end_is_zeros_is_truncated(progressive):
    data = encoded(photo(), "JPEG", progressive=progressive)
    refusal(data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2), "truncated_image")


def test_damaged_png():
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    refusal(bytes(data), "damaged_image", "PNG", "damaged")


def test_declared_bomb_is_refused_without_decoding(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 99))
    refusal(png, "too_many_pixels", "60,000 × 60,000", "3,600 megapixels", "50 megapixels")


@pytest.mark.parametrize("side", [7072, 16000, 16383])
def test_declared_bombs_of_the_other_formats(side):
    size = struct.pack("<HH", side, side)
    gif = b"GIF89a" + size + b"\0\0\0," + b"\0\0\0\0" + size + b"\0\x08\0;"
    bmp = b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    webp = b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended
    tiff = tiff_file(side, side, np.zeros(8, np.uint8), t258=(8,))
    jpeg = bytearray(encoded(photo(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    for data in (gif, bmp, webp, tiff, bytes(jpeg)):
        refusal(data, "too_many_pixels", f"{side:,} × {side:,}")


def test_bytes_are_counted_before_reading(tmp_path):
    path = tmp_path / "large.jpg"
    with path.open("wb") as stream:
        stream.truncate(imaging.MAX_BYTES + 100_000)
    refusal(path, "too_many_bytes", "20.1 MB", "20 MB")
    refusal(bytes(imaging.MAX_BYTES + 1), "too_many_bytes", "20 MB")


def test_too_small_and_too_elongated():
    refusal(encoded(photo(63, 80), "PNG"), "too_small", "63 × 80", "64 pixels")
    refusal(encoded(photo(40, 900), "PNG"), "too_small", "40 × 900")
    refusal(encoded(photo(401, 100), "PNG"), "too_elongated", "401 × 100", "4 times")
    refusal(encoded(photo(100, 401), "PNG"), "too_elongated")
    assert decode_image(encoded(photo(400, 100), "PNG")).width == 400


def test_low_resolution_warning():
    assert decode_image(encoded(photo(150, 150), "PNG")).warnings == ()
    assert "149 × 300" in decode_image(encoded(photo(149, 300), "PNG")).warnings[0]
    assert "64 × 64" in decode_image(encoded(photo(64, 64), "PNG")).warnings[0]


@pytest.mark.parametrize(
    "source",
    ["https://example.org/a.jpg", "HTTP://x", "data:image/png;base64,AAAA", "file:///etc/passwd", "s3://b/k"],
)
def test_addresses_are_refused(source):
    refusal(source, "not_a_file", "bytes")


def test_things_that_are_no_files_are_refused_at_once(tmp_path):
    refusal(tmp_path, "not_a_file")
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    refusal(pipe, "not_a_file", "pipe")
    refusal("/dev/zero", "not_a_file", "device")
    refusal(tmp_path / "missing.jpg", "unreadable_file", "no such file")
    refusal("nul\0byte.jpg", "unreadable_file")
    refusal("x" * 5000, "unreadable_file")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\lesion.jpg", "lesion.jpg"),
        ("a\x00b\x1b[31m\n.jpg", "ab[31m.jpg"),
        ("gpj.\u202eexe\u2066.jpg", "gpj.exe.jpg"),
        ("<b>naevus</b>", "b>"),
        ("<img onerror=x>.png", "<img onerror=x>.png"),
        ("👩‍⚕️.jpg", "👩‍⚕️.jpg"),
        ("\udcff.jpg", "\ufffd.jpg"),
        ("..", "image"),
        ("", "image"),
        ("x" * 300, "x" * 119 + "…"),
    ],
)
def test_names_are_sanitised(given, shown):
    image = decode_image(encoded(photo(), "JPEG"), name=given)
    assert image.name == shown
    image.name.encode("utf-8")


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


# --- optional formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "module", "package"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "pillow_heif", "pillow-heif"),
        (b"\0" * 128 + b"DICM" + b"\0" * 40, "pydicom", "pydicom"),
    ],
)
def test_missing_package_is_named(monkeypatch, content, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    refusal(content, "missing_package", package, f"pip install {package}")


def test_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(photo()).save(buffer, quality=95)
    image = decode_image(buffer.getvalue())
    assert (image.width, image.height, image.format) == (WIDTH, HEIGHT, "HEIC")
    assert np.abs(image.pixels.astype(int) - smooth_pixels()).mean() < 8
    refusal(buffer.getvalue()[: len(buffer.getvalue()) // 2], "damaged_image", "HEIC")
    several = pillow_heif.from_pillow(photo())
    several.add_from_pillow(photo(80, 80))
    buffer = io.BytesIO()
    several.save(buffer)
    assert "primary" in decode_image(buffer.getvalue()).warnings[0]


def dicom_file(pixels, photometric, bits=8, frames=1, **extra):
    pydicom = pytest.importorskip("pydicom")
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


def test_dicom_colour_and_grey():
    image = decode_image(dicom_file(smooth_pixels(), "RGB"))
    assert np.array_equal(image.pixels, smooth_pixels())
    assert "Secret" not in repr(image)
    grey = smooth_pixels()[..., 0]
    assert np.array_equal(decode_image(dicom_file(grey, "MONOCHROME2")).pixels[..., 1], grey)
    assert np.array_equal(decode_image(dicom_file(grey, "MONOCHROME1")).pixels[..., 1], 255 - grey)
    deep = (grey.astype(np.uint16) * 16).astype("<u2")
    image = decode_image(dicom_file(deep, "MONOCHROME2", bits=12))
    assert np.abs(image.pixels[..., 0].astype(int) - grey).max() <= 1
    assert any("4095" in line for line in image.ledger)
    ycc = np.asarray(photo().convert("YCbCr"))
    image = decode_image(dicom_file(ycc, "YBR_FULL"))
    assert np.abs(image.pixels.astype(int) - smooth_pixels()).max() <= 4


def test_dicom_palette_and_frames():
    table = np.arange(256, dtype="<u2") * 257
    extra = {}
    for colour, values in (("Red", table), ("Green", table[::-1]), ("Blue", table)):
        extra[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        extra[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    grey = smooth_pixels()[..., 0]
    image = decode_image(dicom_file(grey, "PALETTE COLOR", **extra))
    assert np.array_equal(image.pixels[..., 0], grey)
    assert np.array_equal(image.pixels[..., 1], 255 - grey)
    frames = np.stack([smooth_pixels(), 255 - smooth_pixels()])
    image = decode_image(dicom_file(frames, "RGB", frames=2))
    assert np.array_equal(image.pixels, smooth_pixels())
    assert "first" in image.warnings[0]


def test_dicom_refusals():
    data = dicom_file(smooth_pixels(), "RGB")
    refusal(data[: len(data) // 2], "truncated_image", "DICOM")
    refusal(dicom_file(smooth_pixels(32, 32), "RGB"), "too_small")


# --- nothing else ever comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("silence", [False, True])
def test_damaged_bytes_give_an_image_or_an_image_error(kind, silence):
    exif = Image.Exif()
    exif[274] = 6
    options = {} if kind in ("BMP", "GIF") else {"exif": exif.tobytes(), "icc_profile": P3}
    data = encoded(photo(80, 70), kind, **options)
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if silence else "error")
        for _ in range(150):
            bad = bytearray(data)
            # Half of the damage goes to the header, where the parsers are.
            for place in rng.integers(0, len(bad) if rng.random() < 0.5 else 200, rng.integers(1, 8)):
                bad[place] = rng.integers(256)
            if rng.random() < 0.3:
                del bad[rng.integers(1, len(bad)) :]
            try:
                image = decode_image(bytes(bad))
            except ImageError as error:
                assert error.code != "image_refused"
            else:
                assert image.pixels.shape == (image.height, image.width, 3)


def test_random_bytes_behind_every_magic():
    rng = np.random.default_rng(8)
    magics = [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x50\0\0\0WEBPVP8 ",
        b"II*\0",
        b"MM\0*",
        b"MM\0+",
        b"GIF89a",
    ]
    for magic in magics:
        for _ in range(20):
            with pytest.raises(ImageError):
                decode_image(magic + rng.bytes(200))


def test_threads_agree():
    datas = [encoded(photo(), "PNG", icc_profile=profile) for profile in (P3, ADOBE_RGB, SRGB)]
    expected = [decode_image(data).pixels.tobytes() for data in datas]
    wrong = []

    def work():
        for _ in range(10):
            for data, pixels in zip(datas, expected, strict=True):
                if decode_image(data).pixels.tobytes() != pixels:
                    wrong.append(data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_pillow_globals_stay_as_they_are():
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF)
    decode_image(encoded(photo(), "JPEG"))
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, TiffImagePlugin.READ_LIBTIFF)


def test_importing_is_light():
    command = "import sys, dermadeit.imaging; print('torch' in sys.modules, 'pydicom' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]
