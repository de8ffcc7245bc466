"""What answers were served with besides their probabilities, as a table of predictions tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.errors import ManifestError
from dermadeit.stability import Stability
from dermadeit.tabular import Table
from dermadeit.tasks import Task

_GATED_COLUMNS = {"verdict", "abstain_codes", "conformal_set"}
_VIEW_COLUMNS = {"flips", "spread"}
_VERDICTS = ("answer", "abstain")
_TRUTHS = {"true": True, "false": False, "": False}


@dataclass(frozen=True)
class Caution:
    """What one answer was served with.

    Attributes:
        calibrated: Whether its probabilities are calibrated.
        verdict: Whether it was given or withheld, as `records.Prediction.verdict`; None where that is unknown.
        abstain_codes: Why it was withheld.
        conformal_set: Keys of the classes that can't be ruled out; None where that is unknown.
        stability: How far the views agree; None where that is unknown.
        ood_score: How strange the image is to the model; None where that is unknown.
    """

    calibrated: bool = False
    verdict: str | None = None
    abstain_codes: tuple[str, ...] = ()
    conformal_set: tuple[str, ...] | None = None
    stability: Stability | None = None
    ood_score: float | None = None


def read_cautions(task: Task, views: int, table: Table, path: Path) -> tuple[Caution, ...]:
    """Reads the columns that `evaluation.write_evaluations` adds; those that are missing are taken for unknown.

    Args:
        task: What was asked.
        views: Dihedral views whose logits were averaged.
        table: Rows of one model.
        path: Where they come from, for the messages.

    Raises:
        ManifestError: A cell holds nothing that can be meant; the message names the line.
    """
    columns = set(table.columns)
    cautions = []
    for row, line in zip(table.rows, table.line_numbers, strict=True):
        try:
            calibrated = _TRUTHS[row.get("calibrated", "").strip().lower()]
            # In these columns an uncalibrated answer has no decision but the lack of one.
            gated = _gated(task, row) if calibrated and columns >= _GATED_COLUMNS else {}
            agreement = _stability(row, views) if columns >= _VIEW_COLUMNS else None
            strangeness = _number(row.get("ood_score", ""))
        except (KeyError, ValueError):
            raise ManifestError(
                f"Line {line} of “{path.name}” holds something unknown in one of the columns calibrated, verdict, "
                "conformal_set, ood_score, flips and spread. Write the table again, or leave these columns out.",
                code="unknown_value",
            ) from None
        cautions.append(Caution(calibrated, **gated, stability=agreement, ood_score=strangeness))
    return tuple(cautions)


def _gated(task: Task, row: Mapping[str, str]) -> dict[str, Any]:
    verdict, kept = row["verdict"].strip(), tuple(row["conformal_set"].split())
    if verdict not in _VERDICTS or not set(kept) <= set(task.classes):
        raise ValueError(verdict)
    codes = tuple(row["abstain_codes"].split())
    return {"verdict": verdict, "abstain_codes": codes, "conformal_set": kept}


def _stability(row: Mapping[str, str], views: int) -> Stability | None:
    spread = _number(row["spread"])
    if spread is None:
        return None
    flips = int(row["flips"])
    if not (0 <= spread <= 1 and 0 <= flips <= views and views):
        raise ValueError(flips)
    return Stability(1 - flips / views, spread, flips)


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
