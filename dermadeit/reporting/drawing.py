"""The look that all figures share, and figures to SVG and PNG. Nothing here goes through pyplot's global state.

Ink is one colour, so that a page can replace it by its own text colour; what is fainter is the same ink, thinner
or more transparent.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
import threading
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from dermadeit.imaging.colour import srgb_to_linear
from dermadeit.models.specs import COMPARED_MODELS, MODEL_SPECS, model_name
from dermadeit.reporting.format import percent_mark

INK = "#16242a"
"""Text, axes, and whatever else takes the colour of the page's text."""

WIDTH = 5.4
"""Width of a figure in inches. At 72 units an inch its 10-point text stays legible on a phone."""

TEXT_POINTS, SMALL_POINTS = 10, 9
_GRID = f"{INK}26"
"""Ink at 15 % opacity."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", INK, "#e69f00", "#56b4e9")
"""Okabe and Ito's (2008) palette without its yellow; those with 3:1 contrast on light and dark pages first."""

_DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (2, 1.4)),
    (0, (7, 2, 1.5, 2)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
)
_MARKERS = ("o", "s", "^", "D", "v")

_NAME_LENGTH = 40
_PIXELS_PER_INCH = 200
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_RENDERING = threading.Lock()
_HASH_SALT = "dermadeit"


@dataclass(frozen=True)
class LineStyle:
    """How a model is drawn, in every figure.

    Attributes:
        colour: Hex colour.
        dash: matplotlib line style, so that lines differ without colour too.
        marker: matplotlib marker.
    """

    colour: str
    dash: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for a curve."""
        return {"color": self.colour, "linestyle": self.dash, "linewidth": 1.8}


def line_styles(models: Sequence[str]) -> tuple[LineStyle, ...]:
    """A style for each model. Compared models keep theirs in any company; others take what is left, in order."""
    taken = {COMPARED_MODELS.index(name) for name in models if name in COMPARED_MODELS}
    places, seen = [], set()
    for name in models:
        if name in COMPARED_MODELS and name not in seen:
            places.append(COMPARED_MODELS.index(name))
        else:
            places.append(next(place for place in range(len(taken) + 1) if place not in taken))
            taken.add(places[-1])
        seen.add(name)
    return tuple(
        LineStyle(
            _COLOURS[place % len(_COLOURS)],
            _DASHES[place % len(_DASHES)],
            _MARKERS[place % len(_MARKERS)],
        )
        for place in places
    )


def model_of_title(title: str) -> str:
    """The name of the model with a title, or the title itself where there is none."""
    return next((name for name, spec in MODEL_SPECS.items() if spec.title == title), title)


def model_title(model: str) -> str:
    """A model's name for people, fit to be drawn."""
    return drawable(model_name(model))


def drawable(name: str) -> str:
    """A name from outside without what would break a drawing: control and direction characters, and length."""
    kept = "".join(
        " " if unicodedata.category(character) in {"Cc", "Cf"} else character for character in name
    )
    kept = " ".join(kept.encode("utf-8", "replace").decode("utf-8").split())
    return kept if len(kept) <= _NAME_LENGTH else kept[: _NAME_LENGTH - 1] + "…"


def new_figure(height: float, rows: Sequence[float] = (1,), **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with panels one below the other.

    Args:
        height: In inches.
        rows: Relative height of each panel.
        options: Of `Figure.subplots`.
    """
    figure = Figure((WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06))
    figure.patch.set_alpha(0)
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=list(rows), **options)[:, 0]
    for axes in panels:
        _style(axes)
    return figure, list(panels)


def finish(figure: Figure, title: str, alt: str, *, legend: bool = False) -> Figure:
    """Adds the title and, below everything, the legend of the first panel; sets the alt text.

    Args:
        figure: What was drawn.
        title: Shown on top, at the left.
        alt: What the figure shows, in words, for those who can't see it.
        legend: Whether to name the lines.
    """
    figure.suptitle(title, x=0.015, ha="left", fontsize=TEXT_POINTS + 1, fontweight="bold", color=INK)
    if legend:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", frameon=False, fontsize=TEXT_POINTS, labelcolor=INK,
            handlelength=2.8, borderaxespad=0.2,
        )  # fmt: skip
    for text in figure.findobj(Text):
        # A dollar sign in a name is no formula.
        text.set_parse_math(False)
    figure.set_label(alt)
    return figure


def words_only(title: str, message: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure, [axes] = new_figure(1.2)
    axes.set_axis_off()
    text = "\n".join(textwrap.wrap(message, 56))
    axes.text(0, 1, text, transform=axes.transAxes, va="top", fontsize=TEXT_POINTS, color=INK)
    return finish(figure, title, f"{title}: {message}")


def alt_text(figure: Figure) -> str:
    """What a figure shows, in words."""
    return str(figure.get_label())


def inline_svg(figure: Figure) -> Markup:
    """A figure as an SVG element for a page: as wide as its place, in the page's text colour, without an id twice.

    Args:
        figure: Made by this package, so that its ink can be told from its colours.

    Returns:
        `<svg role="img" …><title>…</title>…</svg>`; the same for the same figure.
    """
    alt, drawing = alt_text(figure), _render(figure, "svg").decode("utf-8")
    body = drawing[drawing.index(">", drawing.index("<svg")) + 1 :]
    # The style element would apply to the whole page.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = body.replace(INK, "currentColor")
    prefix = f"dd{hashlib.sha256((alt + body).encode()).hexdigest()[:10]}-"
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    width, height = (round(inches * 72, 2) for inches in figure.get_size_inches())
    drawing = (
        '<svg class="dd-plot" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{prefix}title" '
        f'style="display:block;width:100%;max-width:{width * 1.5:.0f}px;height:auto" '
        f'stroke-linejoin="round" stroke-linecap="butt"><title id="{prefix}title">{escape(alt)}</title>{body}'
    ).strip()
    # Its text is escaped above, and by matplotlib.
    return Markup(drawing)  # noqa: S704


def encode_figure(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """A figure as a file on white ground, without a date or other metadata; PNG at 200 pixels an inch."""
    return _render(figure, kind, facecolor="white")


def percent_axis(axis: Axis) -> None:
    """Labels the shares along an axis as percentages, with a space before the sign as everywhere else."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: percent_mark(share)))


def readable_on(colour: Sequence[float]) -> str:
    """Black or white, whichever has more contrast on an RGB colour (WCAG's relative luminance)."""
    luminance = float(np.dot(srgb_to_linear(np.asarray(colour[:3])), (0.2126, 0.7152, 0.0722)))
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"


def _render(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = _NO_METADATA if kind == "svg" else {"Software": None}
    settings: dict[Any, str] = {"svg.fonttype": "none", "svg.hashsalt": _HASH_SALT}
    figure.patch.set_alpha(1 if "facecolor" in options else 0)
    # The settings and the filter are global to the process.
    with _RENDERING, matplotlib.rc_context(settings), warnings.catch_warnings():
        # Names in scripts that the font for measuring lacks; a page draws them with its own.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        if figure.get_layout_engine() is not None:
            # The layout moves a little each time it is run, and a figure must look the same each time.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, dpi=_PIXELS_PER_INCH, metadata=metadata, **options)
    return buffer.getvalue()


def _style(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=SMALL_POINTS, length=3, width=0.8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(TEXT_POINTS)
