"""Small pictures of known lesions, from a local copy of ISIC 2019 if the person who runs the app has one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dermadeit.errors import ImageError
from dermadeit.imaging.decode import decode_image, encode_png

FOLDER_VARIABLE = "DERMADEIT_ISIC2019"
"""Environment variable that names the folder with `ISIC_XXXXXXX.jpg` in it."""

ISIC_ADDRESS = "https://api.isic-archive.com/images/{}/"
"""Where the archive describes an image. It is linked, never fetched."""

PICTURE_SIDE = 144
"""Longest side, in pixels: sharp at the size of the page's thumbnails on a dense display."""

# Some images of the archive carry this in the file names of ISIC 2019, and nowhere else.
_SUFFIXES = (".jpg", "_downsampled.jpg")
_ISIC_ID = re.compile(r"(ISIC_\d{7})(_downsampled)?")

logger = logging.getLogger(__name__)


def case_folder() -> Path | None:
    """The folder that the environment names; None without, or if there is no such folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None
    folder = Path(named)
    if folder.is_dir():
        return folder
    logger.warning("%s names no folder, so similar cases have no pictures.", FOLDER_VARIABLE)
    return None


def isic_id(image_id: str) -> str | None:
    """The archive's public id of an image, or None for an image that isn't of the archive."""
    found = _ISIC_ID.fullmatch(image_id)
    return found and found[1]


def load_pictures(
    folder: Path | None, image_ids: Iterable[str], side: int = PICTURE_SIDE
) -> dict[str, bytes]:
    """Image id to a PNG without metadata, for those that can be had.

    Args:
        folder: Where they lie; None gives none.
        image_ids: Names of the images. What isn't of the archive is never looked for.
        side: Longest side of the pictures, in pixels.
    """
    pictures: dict[str, bytes] = {}
    if folder is None:
        return pictures
    for image_id in dict.fromkeys(image_ids):
        if not (path := _find_picture(folder, image_id)):
            continue
        try:
            picture = decode_image(path).to_pil()
        except ImageError as error:
            logger.warning("The picture of a similar case can't be read: %s", error.user_message)
            continue
        picture.thumbnail((side, side))
        pictures[image_id] = encode_png(np.asarray(picture))
    return pictures


def _find_picture(folder: Path, image_id: str) -> Path | None:
    public = isic_id(image_id)
    if not public:
        return None
    return next(filter(Path.is_file, (folder / f"{public}{end}" for end in _SUFFIXES)), None)
