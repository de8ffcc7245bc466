"""Writes docs/reliability.md from the figures that the scripts here have filed, with their dates and commands.

make reliability-page
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from figures import FOLDER
from repository import ROOT

from dermadeit.files import read_json_if_there, write_atomically

PAGE = ROOT / "docs" / "reliability.md"

_OPENING = """# Reliability

<!-- Written by `make reliability-page` from tests/reliability/figures. Run the commands below to change it. -->

What the app and the commands bear. Each section was written by one command, which is named with the date of its
run and the number of processor cores that it had. What takes seconds of it runs in `make test`, the rest each
night. What each bad input gets is listed in [inputs.md](inputs.md).

"""


def reliability_page() -> str:
    """The page as Markdown."""
    return _OPENING + "\n\n".join(_section(*section) for section in _SECTIONS) + "\n"


def _section(title: str, name: str, opening: str, body: Callable[[Mapping[str, Any]], Iterable[str]]) -> str:
    figures = read_json_if_there(FOLDER / f"{name}.json")
    lines = [f"## {title}", "", opening, ""]
    if not figures:
        return "\n".join([*lines, f"Not run yet. `make {name}` does it."])
    cores = f"{figures['cores']} cores"
    lines.append(f"`{figures['command']}`, {figures['date']}, version {figures['version']}, {cores}.")
    return "\n".join([*lines, "", *body(figures)])


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    shown = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(_text(cell) for cell in row)} |" for row in shown]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def _fuzz(figures: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"{figures['inputs']:,} inputs in {figures['minutes']:.0f} minutes. What came out besides our own errors: "
        f"{len(figures['findings'])}. Largest memory of a worker: {figures['largest_memory_mb']:,.0f} MB."
    )
    yield ""
    header = ("reader", "inputs", "read", "refused", "anything else", "most seconds for one")
    keys = ("inputs", "read", "refused", "findings", "most_seconds")
    yield from _table(
        header, ([name, *(found[key] for key in keys)] for name, found in figures["readers"].items())
    )


def _attack(figures: Mapping[str, Any]) -> Iterable[str]:
    rows = (
        (title, found["attempts"], "gave way: " + found["failure"] if found["failure"] else "held")
        for title, found in figures["attacks"].items()
    )
    yield from _table(("attack", "attempts", "outcome"), rows)


def _load(figures: Mapping[str, Any]) -> Iterable[str]:
    flood = figures["flood"]
    yield from _table(
        ("figure", "value"),
        (
            ("requests", figures["requests"]),
            ("visitors at once", figures["visitors"]),
            ("answers that were not those of their photo", figures["wrong_answers"]),
            ("requests a second", figures["requests_per_second"]),
            ("median time of an answer, seconds", figures["median_s"]),
            ("95 % of answers within, seconds", figures["p95_s"]),
            ("slowest answer, seconds", figures["slowest_s"]),
            *((f"memory {when}, MB", value) for when, value in figures["memory_mb"].items()),
            (f"of {flood['requests']} requests at once: answered", flood["answered"]),
            (f"of {flood['requests']} requests at once: told to come again", flood["told to come again"]),
        ),
    )


def _soak(figures: Mapping[str, Any]) -> Iterable[str]:
    yield f"{figures['calls']:,} calls in {figures['minutes']:g} minutes."
    yield ""
    rows = (
        (name.replace("_", " "), found["second quarter"], found["last quarter"], found["most"])
        for name, found in figures["growth"].items()
    )
    yield from _table(("measure", "mean of the second quarter", "mean of the last quarter", "most"), rows)


def _faults(figures: Mapping[str, Any]) -> Iterable[str]:
    kills = []
    for name, found in figures["kills"].items():
        same = found.get("failure") or f"{found['same']} of {found['runs']}"
        kills.append((name, found["kills"], same, len(found["half"])))
    yield from _table(("work", "kills", "same result afterwards", "half files"), kills)
    yield ""
    disks = []
    for name, places in figures["disks"].items():
        for where, found in places.items():
            if isinstance(found, dict):
                disks.append((name, where, found["exit code"], found["message"]))
    yield from _table(("work", "on a", "exit code", "last line"), disks)
    if checkpoints := figures.get("checkpoints"):
        yield ""
        yield (
            f"Of {checkpoints['cases']} damaged, swapped or forged checkpoints, {checkpoints['refused']} were "
            f"refused by their name and {checkpoints['used']} could be used; {len(checkpoints['unexpected'])} "
            "not as declared."
        )
    if cache := figures.get("cache"):
        yield ""
        yield from _table(("damage to the cache of a teacher", "outcome"), cache.items())


_SECTIONS: Sequence[tuple[str, str, str, Callable[[Mapping[str, Any]], Iterable[str]]]] = (
    (
        "Changed inputs",
        "fuzz",
        "Inputs are changed at random and handed to every reader. Only our own errors may come out.",
        _fuzz,
    ),
    ("Attacks", "attack", "What a stranger may try at the running app.", _attack),
    ("Many visitors", "load", "Photos and batches at once. Answers are compared with serial ones.", _load),
    ("Long use", "soak", "Every endpoint in turn, with good and bad files.", _soak),
    (
        "Kills, disks and damage",
        "faults",
        (
            "Works are killed at random moments and run again. They write to a disk of one megabyte that is full, "
            "and to a folder that can't be written. What they read is damaged."
        ),
        _faults,
    ),
)


def main() -> int:
    """Writes the page; returns the exit code."""
    write_atomically(PAGE, lambda partial: partial.write_text(reliability_page(), encoding="utf-8"))
    sys.stdout.write(f"{PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
