"""Files of results: read, hashed, and written so that a killed process leaves the previous version intact."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dermadeit.errors import ConfigurationError, ErrorCode

_PACKAGE = Path(__file__).resolve().parent
# The wheel holds the folder inside the package, a checkout beside it.
ASSETS = _PACKAGE / "assets" if (_PACKAGE / "assets").is_dir() else _PACKAGE.parent / "assets"
"""Folder with checkpoints, figures, examples and style."""


def require_folder(folder: Path) -> None:
    """Makes a folder for results and tries to write into it, before any work is done.

    Raises:
        ConfigurationError: There can't be one, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"“{folder}” can't be used as a folder for results: {error.strerror or error}. Choose another one.",
            code=ErrorCode.NOT_WRITABLE,
        ) from error


def escape_what_cannot_be_printed() -> None:
    """Lets standard output escape letters that its code page lacks, as standard error does; once, at the start."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a hidden file beside `path`, then renames it onto `path`.

    Args:
        path: The file to create or replace. Its folder is created when missing.
        write: Called with the hidden file's path; must create the whole content there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that what a killed process left is overwritten by the next.
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented UTF-8 JSON atomically; NaN and infinity are refused with `ValueError`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """What a UTF-8 JSON file holds.

    Raises:
        OSError: It can't be read.
        ValueError: It is not JSON, or nested without end.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json_if_there(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where there is no such file. Raises as `read_json`."""
    return read_json(path) if path.is_file() else {}


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
