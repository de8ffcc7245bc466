"""Docstrings of the documented API, in the shape in which Gradio passes all of them on to callers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_Handler = TypeVar("_Handler", bound=Callable[..., Any])

_RETURNS = "Returns:"
_SECTIONS = {"Args:": "Args:", "Returns:": _RETURNS, "Yields:": _RETURNS}
"""Heading of a section to the one that Gradio knows."""


def documented(handler: _Handler) -> _Handler:
    """Puts each part of a handler's docstring on one line.

    Of a parameter Gradio tells callers the first line only; the lines of what is returned it joins with commas.

    Args:
        handler: Of a public event, with a Google-style docstring. It is given back.
    """
    handler.__doc__ = _unwrapped(inspect.getdoc(handler) or "")
    return handler


def _unwrapped(docstring: str) -> str:
    lines: list[str] = []
    section = ""
    for line in docstring.splitlines():
        begun = bool(lines) and lines[-1] not in ("", section)
        if line in _SECTIONS:
            section = _SECTIONS[line]
            lines.append(section)
        elif begun and line and (section == _RETURNS or (section and line.startswith(" " * 8))):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)
