"""HEIC and DICOM, and what is said where the packages that read them are missing."""

import io
import sys

import numpy as np
import pillow_heif
import pydicom
import pytest
from encoded_images import HEIGHT, WIDTH, dicom_file, photo, refusal, smooth_pixels
from PIL import Image

from dermadeit.errors import ImageError
from dermadeit.imaging.decode import decode_image


@pytest.mark.parametrize(
    ("content", "module", "package"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "pi_heif", "pi-heif"),
        (b"\0" * 128 + b"DICM" + b"\0" * 40, "pydicom", "pydicom"),
    ],
)
def test_missing_package_is_named(monkeypatch, content, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    refusal(content, "missing_package", package, f"pip install {package}")


def test_heic():
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
    second = decode_image(dicom_file(frames, "RGB", frames=2), frame=2)
    assert np.array_equal(second.pixels, 255 - smooth_pixels())
    assert any("2 of 2" in line for line in second.ledger)


def test_a_picture_that_the_file_lacks_is_refused():
    jpeg = io.BytesIO()
    photo().save(jpeg, "JPEG")
    for source, frame in (
        (dicom_file(smooth_pixels(), "RGB"), 2),
        (dicom_file(smooth_pixels(), "RGB"), 0),
        (jpeg.getvalue(), 2),
        (photo(), 2),
    ):
        with pytest.raises(ImageError) as refused:
            decode_image(source, frame=frame)
        assert refused.value.code == "no_such_frame"


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless", "RLELossless", "JPEGBaseline8Bit"])
def test_dicom_with_compressed_pixels(syntax):
    frames = np.stack([smooth_pixels(), 255 - smooth_pixels()])
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(frames, "RGB", frames=2)))
    if syntax == "JPEGBaseline8Bit":
        pictures = [io.BytesIO() for _ in frames]
        for pixels, picture in zip(frames, pictures, strict=True):
            Image.fromarray(pixels).save(picture, "JPEG", quality=95)
        # What is lost is lost to every reader.
        frames = np.stack([np.asarray(Image.open(picture)) for picture in pictures])
        dataset.PixelData = pydicom.encaps.encapsulate([picture.getvalue() for picture in pictures])
        dataset["PixelData"].is_undefined_length = True
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    else:
        dataset.compress(getattr(pydicom.uid, syntax), generate_instance_uid=False)
    file = io.BytesIO()
    dataset.save_as(file)
    for frame, pixels in enumerate(frames, start=1):
        read = decode_image(file.getvalue(), frame=frame).pixels.astype(int)
        assert np.abs(read - pixels).max() <= (1 if syntax == "JPEGBaseline8Bit" else 0)


def test_dicom_refusals():
    data = dicom_file(smooth_pixels(), "RGB")
    refusal(data[: len(data) // 2], "truncated_image", "DICOM")
    refusal(dicom_file(smooth_pixels(32, 32), "RGB"), "too_small")


def test_dicom_that_declares_fewer_colours_than_it_holds_is_called_a_contradiction():
    refusal(
        dicom_file(smooth_pixels(), "YBR_FULL_422"), "damaged_image", "contradicts itself", "YBR_FULL_422"
    )
