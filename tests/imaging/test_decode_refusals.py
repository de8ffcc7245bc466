"""What the decoder refuses, with which code and words; nothing else ever comes out of it."""

import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from encoded_images import ADOBE_RGB, P3, SRGB, encoded, photo, png_chunk, refusal, tiff_file
from PIL import Image, ImageFile, TiffImagePlugin

from dermadeit.errors import ImageError
from dermadeit.imaging import decode as imaging
from dermadeit.imaging.decode import decode_image


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
    message = refusal(data[: int(len(data) * share)], "truncated_image", kind)
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
