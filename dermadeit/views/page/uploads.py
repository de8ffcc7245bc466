"""Files that browsers and API clients send: what is opened, how long it stays, and what is shown instead.

A payload names a path, and a client may name any. Only two folders are read: the one Gradio stores uploads in,
and the examples that ship with the app. An upload is deleted once it was read; what the app shows afterwards
is a re-encoded copy without metadata, which Gradio deletes with the rest of its cache.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from gradio.utils import get_upload_folder

from dermadeit.data.collection import UploadedFile
from dermadeit.errors import ErrorCode, ImageError
from dermadeit.files import ASSETS
from dermadeit.imaging.decode import (
    MAX_BYTES,
    MAX_PIXELS,
    READING_SIDE,
    LesionImage,
    decode_image,
    encode_png,
    sanitise_name,
)
from dermadeit.views.page.gradio_patches import NOT_AN_UPLOAD, keep_mcp_photos_in

EXAMPLES_FOLDER = ASSETS / "examples"

CACHE_SECONDS = 600
"""How long anything derived from an upload is kept."""

SESSION_SECONDS = 3600
"""How long a page may stand unused before its run is forgotten."""

MAX_UPLOAD_BYTES = 5 * MAX_BYTES
"""What Gradio takes. Its own refusal is a note that fades and leaves the old result, so ours should come first."""

FOLDER_MARK = "\N{DIVISION SLASH}\N{WORD JOINER}"
"""Stands for a slash in the path of a file of a folder, since browsers and Gradio keep only bare names.

It passes for a part of a name all the way and reads like a slash. The invisible half keeps it from being one of a
name that has the visible half by itself.
"""

EXPIRED = "The image is no longer here. Uploads are deleted after reading. Choose it again."

_REMEMBERED_BYTES = 3 * MAX_PIXELS
_REMEMBERED_SECONDS = 120
_SWEEP_SECONDS = 60
_CACHE_PREFIX = "dermadeit-uploads-"


@contextmanager
def open_photo(payload: object, *, whole: bool = False) -> Iterator[LesionImage]:
    """Decodes the image of a payload, and deletes the upload when the block is left, however it is left.

    Args:
        payload: The file record of a Gradio event or API call. Everything in it is untrusted.
        whole: Whether all pixels are needed. A large JPEG is otherwise decoded smaller, as every other way to a
            prediction does (`READING_SIDE`).

    Raises:
        ImageError: The payload is not an upload, or not an image that can be read.
    """
    record = payload if isinstance(payload, Mapping) else {}
    path, is_example = _permitted(record.get("path"))
    name = record.get("orig_name")
    name = name if isinstance(name, str) else path.name
    decode = partial(decode_image, path, name=name, enough_side=None if whole else READING_SIDE)
    try:
        yield decode() if is_example else _recent.open(path, name, decode)
    finally:
        if not is_example:
            path.unlink(missing_ok=True)


@contextmanager
def take_uploads(payload: object, folder: Path) -> Iterator[list[UploadedFile]]:
    """Takes the files of a payload out of Gradio's reach, and deletes them when the block is left.

    Args:
        payload: The list of file records of a Gradio event or API call. Everything in it is untrusted.
        folder: Ours; the files are moved there, so that whoever sends the same bytes can't delete them.

    Raises:
        ImageError: Something in the payload is not an upload, or is no longer there.
    """
    records = payload if isinstance(payload, list) else []
    moved: dict[Path, Path] = {}
    files = []
    try:
        for record in records:
            record = record if isinstance(record, Mapping) else {}
            path, is_example = _permitted(record.get("path"))
            if is_example:
                raise ImageError(NOT_AN_UPLOAD, code=ErrorCode.NOT_AN_UPLOAD)
            if path not in moved:
                moved[path] = _moved(path, folder)
            files.append(UploadedFile(moved[path], _name_or_path(record, path)))
        yield files
    finally:
        for path in moved.values():
            path.unlink(missing_ok=True)


@contextmanager
def take_uploads_apart(payload: object) -> Iterator[list[UploadedFile]]:
    """As `take_uploads`, into a folder of their own that goes with them."""
    folder = private_folder()
    try:
        with take_uploads(payload, folder) as files:
            yield files
    finally:
        folder.rmdir()


def claim_uploads(payload: object, folder: Path) -> object:
    """Moves the files of a payload that waits, so that whoever sends the same bytes can't delete them.

    Args:
        payload: As for `take_uploads`.
        folder: Ours, and held.

    Returns:
        The payload with the new places. What can't be moved stays as it is, for `take_uploads` to refuse.
    """
    if not isinstance(payload, list):
        return payload
    moved: dict[Path, Path] = {}
    records = []
    for record in payload:
        with suppress(ImageError, AttributeError):
            path, is_example = _permitted(record.get("path"))
            if not is_example:
                if path not in moved:
                    moved[path] = _moved(path, folder)
                record = {**record, "path": str(moved[path])}
        records.append(record)
    return records


def unclaim(payload: object, original: Any) -> None:
    """Puts the files of a payload that got no turn back to where the page knows them.

    Args:
        payload: What `claim_uploads` returned.
        original: What it was given.
    """
    if not isinstance(payload, list):
        return
    for record, before in zip(payload, original, strict=True):
        if record is before:
            continue
        place, _ = _permitted(before["path"])
        # Of two records of one file, only the first finds it.
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            # Or it would be as old as its waiting was long, and be swept.
            os.utime(Path(record["path"]).rename(place))


def hold(holder: object, folder: Path) -> None:
    """Keeps everything below a folder from the sweep for as long as its holder lives, or until `release`."""
    _held[holder] = folder


def release(holder: object) -> None:
    """Gives what a holder kept another `CACHE_SECONDS`."""
    folder = _held.pop(holder, None)
    if folder is not None:
        keep_alive(folder)


def private_folder() -> Path:
    """A new folder in the cache that nobody can guess; its files go with the cache."""
    folder = Path(get_upload_folder()) / uuid4().hex
    folder.mkdir(parents=True)
    return folder


def keep_alive(folder: Path) -> None:
    """Lets the files below `folder` stay for another `CACHE_SECONDS`."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            os.utime(path)


@contextmanager
def private_cache() -> Iterator[Path]:
    """Gives Gradio a folder of its own, in which nothing outlives `CACHE_SECONDS` nor the block.

    Gradio's own clean-up forgets some of the pictures that it has served. What an app left that was killed goes
    while the next one runs.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    stopped = threading.Event()
    if before is not None:
        Path(before).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_CACHE_PREFIX, dir=before, ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        keep_mcp_photos_in(name)
        sweeper = threading.Thread(target=_sweep_until, args=(stopped, Path(name)), daemon=True)
        sweeper.start()
        try:
            yield Path(name)
        finally:
            stopped.set()
            sweeper.join()
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def sweep(folder: Path, age: float) -> None:
    """Deletes what lies below `folder`, is older than `age` seconds, and is held by nobody."""
    limit = time.time() - age
    held = set(_held.values())
    # What is in a folder comes before the folder itself.
    for path in sorted(folder.rglob("*"), reverse=True):
        if held.intersection((path, *path.parents)):
            continue
        # A reading may have just deleted its upload; a folder may not be empty.
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.rmdir() if path.is_dir() else path.unlink()


def _sweep_until(stopped: threading.Event, folder: Path) -> None:
    abandoned = sweep_abandoned(folder)
    while not stopped.wait(_SWEEP_SECONDS):
        sweep(folder, CACHE_SECONDS)
        abandoned = sweep_abandoned(folder, abandoned)


def sweep_abandoned(folder: Path, suspected: Collection[Path] = ()) -> set[Path]:
    """Deletes caches beside ours whose app was killed: a running one touches its own at every sweep.

    Args:
        folder: Our cache.
        suspected: What the last call returned. A machine that has slept finds every cache old, so that only those
            go which are still old one sweep later.

    Returns:
        Caches that look abandoned.
    """
    os.utime(folder)
    limit, old = time.time() - CACHE_SECONDS, set()
    for cache in folder.parent.glob(f"{_CACHE_PREFIX}*"):
        with suppress(OSError):
            if cache.is_dir() and not cache.is_symlink() and cache.stat().st_mtime < limit:
                old.add(cache)
    for cache in old.intersection(suspected):
        # Another user's can't be deleted, and another app may be as quick.
        shutil.rmtree(cache, ignore_errors=True)
    return old


def list_examples() -> list[Path]:
    """The shipped example images, by name."""
    return sorted(path for path in EXAMPLES_FOLDER.glob("*.jpg") if path.is_file())


def store_png(pixels: np.ndarray) -> str:
    """Writes pixels as a PNG into the cache, under a name that nobody can guess; returns its path."""
    return _store("image.png", encode_png(pixels))


def store_json(name: str, content: Mapping[str, Any]) -> str:
    """Writes JSON into the cache, in a folder that nobody can guess; returns its path."""
    return _store(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode())


def _store(name: str, data: bytes) -> str:
    path = private_folder() / name
    path.write_bytes(data)
    return str(path)


def _name_or_path(record: Mapping[str, Any], path: Path) -> str:
    name = record.get("orig_name")
    return name.replace(FOLDER_MARK, "/") if isinstance(name, str) else path.name


def _moved(path: Path, folder: Path) -> Path:
    target = folder / uuid4().hex
    try:
        # A folder would be renamed too.
        if not path.is_file():
            raise FileNotFoundError
        target = path.rename(target)
        # Its ten minutes start anew.
        os.utime(target)
        return target
    except OSError:
        raise ImageError(EXPIRED, code=ErrorCode.UPLOAD_EXPIRED) from None


def _permitted(path: object) -> tuple[Path, bool]:
    """The real path that may be read, and whether it is a shipped example."""
    if not isinstance(path, str):
        raise ImageError(NOT_AN_UPLOAD, code=ErrorCode.NOT_AN_UPLOAD)
    try:
        real = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise ImageError(NOT_AN_UPLOAD, code=ErrorCode.NOT_AN_UPLOAD) from None
    if real.parent == EXAMPLES_FOLDER and real in list_examples():
        return real, True
    # A relative path can't come from an upload: Gradio answers those with absolute ones.
    if Path(path).is_absolute() and real.is_relative_to(Path(get_upload_folder()).resolve()):
        return real, False
    raise ImageError(NOT_AN_UPLOAD, code=ErrorCode.NOT_AN_UPLOAD)


class _RecentPhotos:
    """Remembers, in memory and for two minutes, the pixels of uploads that were read.

    Gradio names an upload by its content, so two people who send the same file share one path: whoever is
    read second would find that the first reading has deleted it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._photos: OrderedDict[Path, LesionImage] = OrderedDict()

    def open(self, path: Path, name: str, decode: Callable[[], LesionImage]) -> LesionImage:
        """Decodes an upload from disk or, when another reading has just deleted it, takes it from memory.

        What it takes from memory may be smaller than `decode` would have made it.
        """
        try:
            photo = decode()
        except ImageError:
            if path.exists():
                raise
            with self._lock:
                if path not in self._photos:
                    raise ImageError(EXPIRED, code=ErrorCode.UPLOAD_EXPIRED) from None
                return replace(self._photos[path], name=sanitise_name(name))
        self._remember(path, photo)
        return photo

    def _remember(self, path: Path, photo: LesionImage) -> None:
        with self._lock:
            self._photos[path] = photo
            self._photos.move_to_end(path)
            while sum(known.pixels.nbytes for known in self._photos.values()) > _REMEMBERED_BYTES:
                self._photos.popitem(last=False)
        # The timer must not keep alive what was pushed out.
        forgetting = threading.Timer(_REMEMBERED_SECONDS, self._forget, [path, weakref.ref(photo)])
        forgetting.daemon = True
        forgetting.start()

    def _forget(self, path: Path, photo: weakref.ref[LesionImage]) -> None:
        with self._lock:
            if path in self._photos and self._photos[path] is photo():
                del self._photos[path]


_held: weakref.WeakKeyDictionary[object, Path] = weakref.WeakKeyDictionary()
_recent = _RecentPhotos()


def source_of(payload: Any) -> str | None:
    """Path of the chosen photo, None for none."""
    path = payload.get("path") if isinstance(payload, Mapping) else None
    return path if isinstance(path, str) else None


def discard(payload: Any) -> None:
    """Deletes the upload of a photo that nobody wants read any more."""
    # Whoever sent the same bytes shares the file: once opened, it can be had from memory for them.
    with suppress(ImageError), open_photo(payload):
        pass
