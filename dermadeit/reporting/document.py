"""Parts of a report as HTML: a page that loads nothing, tables, figures, lists of facts.

What is not marked as `Html` is taken for text from outside and escaped.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from html import escape
from typing import Any

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.files import ASSETS

STYLE_SHEET = ASSETS / "report.css"

# Nothing may be fetched or run, whatever a name in the report holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MARGINS = """
@page {
  size: A4;
  margin: 20mm 16mm 16mm;
  @top-left { content: "%s"; font: 600 8pt system-ui, sans-serif; color: #16242a; }
  @bottom-left { content: "DermaDeiT %s, %s"; font: 8pt system-ui, sans-serif; color: #4b5d66; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt system-ui, sans-serif; color: #4b5d66; }
}
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Anything as text: escaped, and with the characters that could hide something made visible."""
    if isinstance(value, Html):
        return value
    return Html(escape("".join(map(_visible, str(value)))))


def name(value: Any) -> Html:
    """A name from outside, which keeps its own direction of writing to itself."""
    return Html(f"<bdi>{text(value)}</bdi>")


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Several parts as one."""
    return Html(between.join(text(part) for part in parts))


def page(title: str, body: Html, created: datetime) -> str:
    """A whole document: one file that needs no network, no script and no other file.

    Args:
        title: Of the document.
        body: What follows the title.
        created: When it was made, with a time zone.
    """
    date = created.isoformat(timespec="seconds")
    margins = _MARGINS % (DISCLAIMER.replace("\\", "\\\\").replace('"', '\\"'), VERSION, date)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="DermaDeiT {VERSION}">
<meta name="date" content="{date}">
<title>{text(title)} – DermaDeiT</title>
<style>{_style()}{margins}</style>
</head>
<body>
<div class="sheet">
<header>
<div class="brand"><p><strong>DermaDeiT</strong> {VERSION}</p><p><time datetime="{date}">{date}</time></p></div>
<h1>{text(title)}</h1>
<p class="disclaimer">{text(DISCLAIMER)}</p>
</header>
<main>
{body}
</main>
</div>
</body>
</html>
"""


def section(title: Any, *parts: Any) -> Html:
    """A part of the document under a heading; nothing where it has no content."""
    content = join(parts, "\n")
    return Html(f"<section>\n<h2>{text(title)}</h2>\n{content}\n</section>") if content else Html()


def heading(title: Any) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{text(title)}</h3>")


def paragraph(content: Any, kind: str = "") -> Html:
    """A paragraph; `kind` is a class of the style sheet."""
    return Html(f'<p class="{kind}">{text(content)}</p>' if kind else f"<p>{text(content)}</p>")


def bullets(items: Iterable[Any]) -> Html:
    """A list; nothing where it has no items."""
    lines = join(Html(f"<li>{text(item)}</li>") for item in items)
    return Html(f"<ul>{lines}</ul>") if lines else Html()


def notice(title: str, items: Sequence[Any], kind: str = "note") -> Html:
    """Sentences that must not be overlooked; nothing where there are none."""
    if not items:
        return Html()
    content = paragraph(items[0]) if len(items) == 1 else bullets(items)
    return Html(f'<div class="{kind}"><p><strong>{text(title)}</strong></p>{content}</div>')


def facts(pairs: Mapping[str, Any]) -> Html:
    """What is known, each with its name."""
    lines = join(Html(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>") for key, value in pairs.items())
    return Html(f'<dl class="facts">{lines}</dl>')


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], caption: Any = "") -> Html:
    """A table whose first column names its rows. A row of one cell is the heading of those that follow."""
    head = join(Html(f'<th scope="col">{text(cell)}</th>') for cell in header)
    lines = []
    for first, *others in rows:
        if others:
            cells = join(Html(f"<td>{text(cell)}</td>") for cell in others)
            lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
        else:
            lines.append(
                f'<tr><th class="group" scope="rowgroup" colspan="{len(header)}">{text(first)}</th></tr>'
            )
    named = f"<caption>{text(caption)}</caption>" if caption else ""
    # What scrolls must be reached by keyboard too.
    label = re.sub(r"<[^>]*>", "", (caption and text(caption)) or join(header, ", "))
    return Html(
        f'<div class="wide" role="group" tabindex="0" aria-label="{label}"><table>{named}<thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def picture(title: Any, png: bytes, alt: str, note: str = "", badge: str = "") -> Html:
    """A picture inside the file, with its caption, in which a badge may stand."""
    data = base64.b64encode(png).decode("ascii")
    more = f"<br>{text(note)}" if note else ""
    return Html(
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(alt)}">'
        f"<figcaption><strong>{text(title)}</strong>{text(badge)}{more}</figcaption></figure>"
    )


def number(value: float | None, interval: Sequence[float] | None) -> Html:
    """A figure and its interval, or the word for having none."""
    if value is None:
        return Html("undefined")
    bounds = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "no interval"
    return Html(f'{value:.3f}<span class="interval">{bounds}</span>')


def point(figure: Mapping[str, Any] | None) -> Html:
    """A figure as `shares.Shares.measure` gives it: `value`, `interval` and perhaps `n`."""
    if figure is None:
        return Html("not measured")
    images = f'<span class="interval">n = {figure["n"]:,}</span>' if "n" in figure else ""
    return Html(number(figure["value"], figure.get("interval")) + images)


def digest(value: str | None) -> Html:
    """A hash in full, or the statement that there is none."""
    return Html(f"<code>{text(value)}</code>") if value else Html("not recorded")


@cache
def _style() -> str:
    return STYLE_SHEET.read_text(encoding="utf-8")


def _visible(character: str) -> str:
    """Control and direction characters as their code points."""
    if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs"}:
        return character
    # Joiners belong to emoji and to some scripts, and hide nothing.
    return character if character in "\u200c\u200d" else f"[U+{ord(character):04X}]"
