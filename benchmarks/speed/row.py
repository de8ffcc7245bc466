"""One line of the table: what was measured in several ways, and how they compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.rounds import divide, summarise
from dermadeit.reporting.format import rounded
from dermadeit.reporting.markdown import markdown_table

PEER, OURS, FLOOR, CEILING = "peer", "ours", "floor", "ceiling"

COLUMNS: Mapping[str, str] = {
    PEER: "peer",
    OURS: "ours",
    FLOOR: "network alone, PyTorch",
    CEILING: "network alone, our runtime",
}
"""The arms that have a column of their own, and its title."""

_PER_SECOND = ("photos/s", "views/s")


@dataclass(frozen=True)
class Ratio:
    """What is divided by what, in seconds.

    Attributes:
        above: An arm.
        below: The arm that is faster the larger the ratio is.
        title: What the ratio says.
        asked: What is wanted of it, such as “at least 2”; empty for nothing.
    """

    above: str
    below: str
    title: str
    asked: str = ""


FASTER_THAN_PEER = "times as fast as the peer"
SHARE_OF_CEILING = "of the runtime's own speed"


def times_the_peer(asked: str = "") -> Ratio:
    """How many times as fast as the peer ours is."""
    return Ratio(PEER, OURS, FASTER_THAN_PEER, asked)


def make_row(
    title: str,
    unit: str,
    seconds: Mapping[str, Sequence[float]],
    ratios: Iterable[Ratio] = (),
    *,
    amount: int = 1,
    asked: str = "",
    **others: Any,
) -> dict[str, Any]:
    """A row of the report, JSON-ready.

    Args:
        title: What was measured.
        unit: `ms`, `s`, `photos/s` or `views/s`.
        seconds: Arm to the seconds of each round.
        ratios: How arms compare, within each round.
        amount: Photos or views of a round, where the unit counts them.
        asked: What is wanted of ours, such as “at most 2 s”; empty for nothing.
        others: What else the report says of it.
    """
    arms = {
        name: summarise([_in_unit(value, unit, amount) for value in rounds])
        for name, rounds in seconds.items()
    }
    return {
        "title": title,
        "unit": unit,
        "asked": asked,
        "rounds": len(next(iter(seconds.values()))),
        "arms": arms,
        "ratios": [
            {"title": ratio.title, "asked": ratio.asked}
            | summarise(divide(seconds[ratio.above], seconds[ratio.below]))
            for ratio in ratios
        ],
        **others,
    }


def _in_unit(seconds: float, unit: str, amount: int) -> float:
    if unit in _PER_SECOND:
        return amount / seconds
    return seconds * 1000 if unit == "ms" else seconds


def render_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of a report as one Markdown table; what is beside the first ratio of a row stands in lines below it."""
    lines = []
    for row in rows:
        cells = [row["title"], *(_arm_text(row, arm) for arm in COLUMNS)]
        compared = [_ratio_cells(ratio) for ratio in row["ratios"]]
        if row["asked"] or not compared:
            compared.insert(0, ("", row["asked"]))
        for number, last in enumerate(compared):
            lines.append([*(cells if number == 0 else [""] * len(cells)), *last])
    return markdown_table(["", *COLUMNS.values(), "ratio", "asked"], lines)


def _arm_text(row: Mapping[str, Any], arm: str) -> str:
    found = row["arms"].get(arm)
    return f"{rounded(found['median'])} {row['unit']}" if found else ""


def _ratio_cells(ratio: Mapping[str, Any]) -> tuple[str, str]:
    low, high = ratio.get("interval") or (None, None)
    between = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
    return f"{ratio['median']:.2f}{between} {ratio['title']}", ratio["asked"]
