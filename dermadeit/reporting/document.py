"""The frame of a report: one HTML file, to be kept, mailed or printed, that needs no network and no other file."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from typing import Any

from markupsafe import Markup

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.files import ASSETS
from dermadeit.reporting.templates import render

STYLE_SHEET = ASSETS / "report.css"


def render_document(template: str, title: str, created: datetime | None, **context: Any) -> str:
    """Fills a template that extends `reporting/layout.html`.

    Args:
        template: Its path, as `templates.render` takes it.
        title: Of the document.
        created: When it was made, with a time zone; None for now.
        context: What the template asks for besides what the layout does.
    """
    date = (created or datetime.now(UTC)).isoformat(timespec="seconds")
    return render(
        template,
        title=title,
        date=date,
        disclaimer=DISCLAIMER,
        version=VERSION,
        style=_style(),
        **context,
    )


def data_address(data: bytes, kind: str) -> str:
    """A picture as an address that holds it: no other address of it exists that could be asked for.

    Args:
        data: The encoded picture.
        kind: Its type, such as `jpeg`.
    """
    return f"data:image/{kind};base64,{b64encode(data).decode('ascii')}"


@cache
def _style() -> Markup:
    # Our own file; its quotes must stay as they are.
    return Markup(STYLE_SHEET.read_text(encoding="utf-8"))  # noqa: S704
