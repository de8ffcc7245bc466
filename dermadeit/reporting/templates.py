"""Documents and parts of pages from Jinja2 templates, each of which lies beside the module that fills it.

What is not marked as `Markup` is taken for text from outside: it is escaped, and characters that could hide
something are made visible.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from dermadeit.reporting import format as numbers
from dermadeit.reporting import names

_PACKAGE = Path(__file__).resolve().parents[1]
_FILTERS = (
    "any_value", "bounds", "count", "counted", "decimal", "difference", "duration", "figure", "megabytes",
    "millions", "p_value", "percent", "percent_span", "points", "setting", "signed", "signed_bounds",
)  # fmt: skip
"""The functions of `format` that templates may use."""


def render(template: str, **context: Any) -> Markup:
    """Fills a template.

    Args:
        template: Its path within the package, such as `views/single/answer_card.html`.
        context: What it asks for besides `names`, the module. A name that is missing is an error.

    Returns:
        HTML, or Markdown where the template's name ends in `.md`; only HTML is escaped.
    """
    # The template has escaped what came from outside.
    return Markup(_environment().get_template(template).render(**context))  # noqa: S704


def visible(value: Any) -> Any:
    """Anything but `Markup` as text in which control and direction characters stand as their code points."""
    return value if isinstance(value, Markup) else "".join(map(_visible_character, str(value)))


def isolated(value: Any) -> Markup:
    """A name from outside, which keeps its own direction of writing to itself."""
    return Markup("<bdi>{}</bdi>").format(visible(value))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=select_autoescape(["html"], default_for_string=True),
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(numbers, name) for name in _FILTERS} | {"isolated": isolated}
    environment.globals["names"] = names
    return environment


def _visible_character(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs"}:
        return character
    # Joiners belong to emoji and to some scripts, and hide nothing.
    return character if character in "\u200c\u200d" else f"[U+{ord(character):04X}]"
