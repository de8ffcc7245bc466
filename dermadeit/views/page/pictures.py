"""Pictures as data addresses inside the page: no other address of them exists that could be asked for."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path


def data_address(data: bytes, kind: str) -> str:
    """The address of an encoded picture.

    Args:
        data: The encoded picture.
        kind: Its type, such as `jpeg`.
    """
    return f"data:image/{kind};base64,{b64encode(data).decode('ascii')}"


def jpeg_address(path: Path | None) -> str:
    """The address of a JPEG file; empty where there is none, or it has expired."""
    try:
        data = path.read_bytes() if path else b""
    except FileNotFoundError:
        data = b""
    return data_address(data, "jpeg") if data else ""
