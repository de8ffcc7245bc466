"""Writes docs/inputs.md from the outcomes that the cases declare, which the tests compare with what happens.

make inputs-page
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby

from cases import Case, FolderCase, PhotoCase, PredictionsCase, SetCase
from odd_files import CHECKPOINTS, CLASSES, PREDICTIONS, RECIPES
from odd_photos import PHOTOS
from odd_sets import SETS
from raw_calls import NOT_UPLOADS
from repository import ROOT

from dermadeit.errors import ErrorCode
from dermadeit.files import write_atomically

PAGE = ROOT / "docs" / "inputs.md"

_OPENING = """# What each input gets

<!-- Written by `make inputs-page` from the cases in tests/reliability. Change them there. -->

{count} bad or odd inputs, and what each of them gets. A test makes every one of them and compares. They get the
same in the app, from its endpoints, on the command line, and in a training. What is refused has a
[code](errors.md) and a message that says what to do; the other files of a batch are read all the same.

"""

_SECTIONS: Sequence[tuple[str, str, Sequence[Case]]] = (
    (
        "Photos",
        "What is done to the pixels stands in `ledger`, and what a reader should know in `warnings`.",
        PHOTOS,
    ),
    (
        "Batches, archives and tables",
        "Each comes with four good photos. Reasons for what is left out stand in the table of what was left out.",
        SETS,
    ),
    ("Tables of predictions", "Three images each.", PREDICTIONS),
    (
        "Checkpoints",
        "Each is done to the folder of a calibrated checkpoint. Only safetensors and JSON are read.",
        CHECKPOINTS,
    ),
    ("Settings and classes of one's own", "YAML files.", (*CLASSES, *RECIPES)),
)


def inputs_page() -> str:
    """The page as Markdown."""
    sections = [_section(*section) for section in _SECTIONS]
    payloads = [f"| {name} | refused: `{ErrorCode.NOT_AN_UPLOAD}` |" for name in NOT_UPLOADS]
    opening = "What a program names in place of an upload. Only files in the upload folder are opened."
    sections.append(f"## Calls of the endpoints\n\n{opening}\n\n{_table(payloads)}")
    count = len(NOT_UPLOADS) + sum(len(cases) for _, _, cases in _SECTIONS)
    return _OPENING.format(count=count) + "\n\n".join(sections) + "\n"


def _section(title: str, opening: str, cases: Sequence[Case]) -> str:
    # Some rows of the table get cases in several places.
    in_order = sorted(cases, key=lambda case: [each.row for each in cases].index(case.row))
    rows = []
    for row, of_row in groupby(in_order, key=lambda case: case.row):
        lines = [f"| {_plain(case.name)} | {_outcome(case)} |" for case in of_row]
        rows.append(f"### {row[:1].upper()}{row[1:]}\n\n{_table(lines)}")
    return "\n\n".join([f"## {title}\n\n{opening}", *rows])


def _table(lines: Iterable[str]) -> str:
    return "\n".join(["| input | outcome |", "| --- | --- |", *lines])


def _plain(name: str) -> str:
    return name.replace("|", "\\|")


def _outcome(case: Case) -> str:
    match case:
        case PhotoCase():
            said = f", saying “{case.says}”" if case.says else ""
            if case.code:
                return f"refused: `{case.code}`{said}"
            return f"read{said}" + ("; answer withheld" if case.is_withheld else "")
        case SetCase():
            return _outcome_of_set(case)
        case PredictionsCase():
            return f"refused: `{case.code}`" if case.code else f"{case.images} images compared"
        case FolderCase():
            return f"refused: `{case.code}`" if case.code else "used"


def _outcome_of_set(case: SetCase) -> str:
    if case.code:
        on_disk = case.source_code
        other = (
            "" if on_disk == case.code else f"; on the command line {f'`{on_disk}`' if on_disk else 'read'}"
        )
        return f"refused: `{case.code}`{other}"
    left_out = ", ".join(f"{count} × `{reason}`" for reason, count in case.left_out.items())
    read = f"{case.images} images {'with' if case.is_labelled else 'without'} labels"
    return f"{read}; left out: {left_out}" if left_out else read


def main() -> int:
    """Writes the page; returns the exit code."""
    write_atomically(PAGE, lambda partial: partial.write_text(inputs_page(), encoding="utf-8"))
    sys.stdout.write(f"{PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
