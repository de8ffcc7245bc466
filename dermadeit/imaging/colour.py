"""Pixels of any Pillow mode to 8-bit sRGB, with a note of every step that changed them."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from PIL import Image, ImageCms

from dermadeit.errors import ErrorCode, ImageError

MAX_PROFILE_BYTES = 4 * 1000 * 1000
SRGB_TOLERANCE = 2
"""A profile that moves no colour by more than this many of 255 levels counts as sRGB."""

INVERTED = "Inverted, because zero is white in this file."

_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_PROFILE_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}


@dataclass
class Notes:
    """What a decoder did to the pixels (`ledger`) and what a reader should know (`warnings`), in order."""

    ledger: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def to_srgb(picture: Image.Image, notes: Notes, *, bits: int = 8, min_is_white: bool = False) -> Image.Image:
    """Converts a loaded image to mode RGB: depth, profile, colour model, then transparency on white.

    Args:
        picture: A loaded image of any mode; not changed.
        notes: Gets one sentence for each step that changed pixels.
        bits: Bits per sample that the file declares; deep pixels are divided by 2**bits - 1.
        min_is_white: Whether zero is white in deep greyscale pixels.

    Returns:
        An image of mode RGB, which is `picture` itself when nothing had to be done.

    Raises:
        ImageError: Floating-point pixels, 32-bit integers, or a mode that is unknown here.
    """
    profile = picture.info.get("icc_profile")
    if picture.mode == "RGB" and bits <= 8 and not profile and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        raise floating_point()
    if picture.mode in _DEEP_MODES:
        picture = _scale_deep_grey(picture, bits, min_is_white, notes)
    elif bits > 8:
        notes.ledger.append(f"{bits}-bit colour scaled to 8 bit by its range of 0 to {2**bits - 1}.")
        _warn_if_dark(max(top for _, top in _extrema(picture)) < 16, bits, notes)
    if picture.has_transparency_data:
        return _on_white(picture, profile, bits, notes)
    return _opaque_to_rgb(picture, profile, notes)


def srgb_to_linear(code: np.ndarray) -> np.ndarray:
    """Codes of sRGB, float of 0 to 1 in any shape, to the light that they stand for, 0 to 1 (IEC 61966-2-1)."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_to_linear`; light above 1 gives codes above 1."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def floating_point() -> ImageError:
    """The refusal of floating-point pixels, which have no declared range and may hold NaN."""
    return ImageError(
        "This image has floating-point pixels, whose range is unknown. Convert it to 8 bit and try again.",
        code=ErrorCode.FLOAT_PIXELS,
    )


def _extrema(picture: Image.Image) -> tuple[tuple[int, int], ...]:
    extrema = picture.getextrema()
    # Pillow gives a pair of one band, and a pair of each of several.
    return cast("tuple", extrema if isinstance(extrema[0], tuple) else (extrema,))


def _scale_deep_grey(picture: Image.Image, bits: int, min_is_white: bool, notes: Notes) -> Image.Image:
    values = np.asarray(picture)
    bits = max(bits, 9)
    top = 2**bits - 1
    if bits > 16 or values.min() < 0 or values.max() > top:
        raise ImageError(
            "This image has 32-bit or signed pixels, whose range is unknown. Convert it to 8 bit.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        )
    if min_is_white:
        values = top - values
        notes.ledger.append(INVERTED)
    scaled = Image.fromarray(((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8))
    notes.ledger.append(f"{bits}-bit greyscale scaled to 8 bit by its range of 0 to {top}.")
    _warn_if_dark(bool(values.max() < 4096), bits, notes)
    if isinstance(clear := picture.info.get("transparency"), int):
        opaque = Image.fromarray(np.where(np.asarray(picture) == clear, 0, 255).astype(np.uint8))
        scaled = Image.merge("LA", (scaled, opaque))
    return scaled


def _warn_if_dark(is_dark: bool, bits: int, notes: Notes) -> None:
    if is_dark and bits == 16:
        notes.warnings.append(
            "The pixels use less than a sixteenth of their 16-bit range. If they are 12-bit data, the image "
            "is too dark here: export it as 8 bit."
        )


def _on_white(picture: Image.Image, profile: bytes | None, bits: int, notes: Notes) -> Image.Image:
    if bits > 8 and picture.mode in ("RGB", "L"):
        # The transparent colour is stored with 16 bits and can't be compared with 8-bit pixels.
        picture = picture.copy()
        picture.info.pop("transparency", None)
        return _opaque_to_rgb(picture, profile, notes)
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode == "P":
        notes.ledger.append("Palette converted to colours.")
    rgba = picture.convert("RGBA")
    alpha = rgba.getchannel("A")
    colours = rgba.convert("RGB")
    colours.info.pop("transparency", None)
    colours = _apply_profile(colours, profile, notes)
    if alpha.getextrema()[0] == 255:
        notes.ledger.append("Transparency channel without effect removed.")
        return colours
    notes.ledger.append("Transparent pixels composited on white.")
    return Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)


def _opaque_to_rgb(picture: Image.Image, profile: bytes | None, notes: Notes) -> Image.Image:
    mode = picture.mode
    if mode == "LAB":
        notes.ledger.append("Lab colours converted to sRGB.")
        return _lab_transform().apply(picture)
    if mode in ("P", "1", "YCbCr", "HSV", "RGBX"):
        source = {"P": "Palette", "1": "1-bit black and white", "RGBX": "Four-channel RGB"}.get(mode, mode)
        notes.ledger.append(f"{source} converted to RGB.")
        picture = picture.convert("RGB")
    elif mode not in ("RGB", "L", "CMYK"):
        raise ImageError(
            f"Images of the kind “{mode}” are not supported. Convert it to 8-bit RGB and try again.",
            code=ErrorCode.UNSUPPORTED_FORMAT,
        )
    picture = _apply_profile(picture, profile, notes)
    if picture.mode == "L":
        notes.ledger.append("Greyscale copied into three equal channels.")
        return picture.convert("RGB")
    if picture.mode == "CMYK":
        notes.ledger.append("CMYK converted to RGB by the plain formula: no usable profile embedded.")
        notes.warnings.append("CMYK without a usable colour profile: the colours are approximate.")
        return picture.convert("RGB")
    return picture


def _apply_profile(picture: Image.Image, profile: bytes | None, notes: Notes) -> Image.Image:
    """Converts RGB, L or CMYK through its profile to RGB, or returns it as it is without a usable one."""
    if not profile:
        return picture
    try:
        mode, transform, description = _profile_transform(profile)
        if mode == "RGB" and picture.mode == "L":
            picture = picture.convert("RGB")
        if mode != picture.mode:
            raise ImageCms.PyCMSError(f"profile for {mode}, pixels in {picture.mode}")
        if transform is None:
            return picture
        converted = transform.apply(picture)
    # A damaged profile can trip any parser in between; the pixels are still good.
    except Exception:
        notes.ledger.append("Embedded colour profile not usable; the pixels are unchanged.")
        notes.warnings.append("The embedded colour profile is damaged or does not fit: colours may be wrong.")
        return picture
    notes.ledger.append(f"Colours converted to sRGB through the embedded profile ({description}).")
    return converted


@functools.lru_cache(maxsize=8)
def _profile_transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None, str]:
    """The mode that a profile is for, its transform to sRGB (None when it is sRGB), and its description."""
    if len(profile) > MAX_PROFILE_BYTES:
        raise ImageCms.PyCMSError("profile too large")
    source = ImageCms.getOpenProfile(io.BytesIO(profile))
    described = source.profile
    assert isinstance(described, ImageCms.core.CmsProfile)
    space = described.xcolor_space.strip()
    mode = _PROFILE_SPACES[space]
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode != "CMYK":
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
        probe = Image.fromarray(grid if mode == "RGB" else np.ascontiguousarray(grid[..., 0]))
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= SRGB_TOLERANCE:
            return mode, None, "sRGB"
    text = described.profile_description or ""
    plain = "".join(mark for mark in text if mark.isascii() and mark.isprintable() and mark not in "<>&")
    return mode, transform, plain.strip()[:60] or f"{space}, unnamed"


@functools.cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
