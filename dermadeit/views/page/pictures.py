"""Pictures as data addresses inside the page: no other address of them exists that could be asked for."""

from __future__ import annotations

from pathlib import Path

from dermadeit.reporting.document import data_address


def jpeg_address(path: Path | None) -> str:
    """The address of a JPEG file; empty where there is none, or it has expired."""
    try:
        data = path.read_bytes() if path else b""
    except FileNotFoundError:
        data = b""
    return data_address(data, "jpeg") if data else ""
