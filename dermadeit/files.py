"""Writing files so that a killed process or a full disk leaves the previous version intact."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""Folder with checkpoints, figures, examples and style."""


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
