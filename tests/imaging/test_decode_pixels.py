"""What the decoder makes of transparency, palettes, depth and colour: exact pixel values."""

import io

import numpy as np
import pytest
from encoded_images import (
    ADOBE_RGB,
    P3,
    SRGB,
    encoded,
    photo,
    png_chunk,
    png_file,
    refusal,
    smooth_pixels,
    tiff_file,
)
from PIL import Image, ImageCms

from dermadeit.imaging import decode as imaging
from dermadeit.imaging.decode import decode_image

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
    assert "profile not usable" in image.ledger[0]
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


def test_a_large_jpeg_is_decoded_smaller_where_that_is_enough() -> None:
    buffer = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((1600, 1300)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient.save(buffer, "JPEG", exif=exif)
    whole, smaller = (decode_image(buffer.getvalue(), enough_side=side) for side in (None, 640))
    assert (whole.width, whole.height, whole.full_size) == (1300, 1600, None)
    assert (smaller.width, smaller.height, smaller.short_side) == (650, 800, 1300)
    assert smaller.whole_size == whole.whole_size == (1300, 1600)
    assert smaller.ledger[0] == "Read at 800 × 650 of 1,600 × 1,300 pixels."
    assert (smaller.sha256, smaller.ledger[1:]) == (whole.sha256, whole.ledger)
    expected = np.asarray(whole.to_pil().resize((650, 800), Image.Resampling.BOX)).astype(int)
    assert np.abs(smaller.pixels - expected).max() <= 2
    small = decode_image(buffer.getvalue(), enough_side=1000)
    assert small.full_size is None
