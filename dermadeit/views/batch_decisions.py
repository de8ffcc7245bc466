"""What is decided at the threshold that is set, with the figures there, for taking away."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.tabular import write_csv
from dermadeit.files import write_json
from dermadeit.views.batch_exports import notes_of
from dermadeit.views.batch_session import LIKELIEST, Session

_COLUMNS = (
    "image_id", "file", "sha256", "task", "model", "views", "label_true", "target", "score", "calibrated", "rule",
    "threshold", "decision", "right", "verdict", "abstain_codes", "weights_sha256", "ledger", "warnings",
    "dermadeit_version", "disclaimer",
)  # fmt: skip


def write_decisions(session: Session, folder: Path) -> Path:
    """Writes the decisions of the model that is looked at, one row an image, and the figures they come to.

    Args:
        session: A labelled batch.
        folder: An empty folder of this file alone.

    Returns:
        A ZIP with `decisions.csv` and `decisions.json`.
    """
    write_csv(folder / "decisions.csv", _COLUMNS, _rows(session))
    write_json(folder / "decisions.json", _summary(session))
    packed = folder / f"dermadeit-batch-{session.result.task.key}-decisions.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("decisions.csv", "decisions.json"):
            archive.write(folder / name, name)
            (folder / name).unlink()
    return packed


def _rows(session: Session) -> Iterator[dict[str, Any]]:
    result, task, target = session.result, session.result.task, session.target
    decided = session.decisions().at(session.threshold)
    for (item, record), index in zip(session.answers(), decided, strict=True):
        decision = task.classes[index]
        yield {
            "image_id": item.image.image_id,
            "file": item.image.file,
            "sha256": record.sha256,
            "task": task.key,
            "model": session.model,
            "views": record.views,
            "label_true": item.image.label,
            "target": target,
            "score": record.probabilities[target],
            "calibrated": record.calibrated,
            "rule": session.rule,
            "threshold": session.threshold,
            "decision": decision,
            "right": decision == item.image.label,
            "verdict": record.verdict,
            "abstain_codes": " ".join(record.abstain_codes),
            "weights_sha256": result.weights[session.model],
            "ledger": " ".join(record.ledger),
            "warnings": " ".join(record.warnings),
            "dermadeit_version": VERSION,
            "disclaimer": DISCLAIMER,
        }


def _summary(session: Session) -> dict[str, Any]:
    result, task, decisions = session.result, session.result.task, session.decisions()
    decided = decisions.at(session.threshold)
    calibrated = all(record.calibrated for _, record in session.answers())
    return {
        "disclaimer": DISCLAIMER,
        "app": {"name": "DermaDeiT", "version": VERSION},
        "task": task.key,
        "model": session.model,
        "views": result.views[session.model],
        "weights_sha256": result.weights[session.model],
        "scores": "calibrated probabilities" if calibrated else "model scores; not calibrated",
        "target": session.target,
        "rule": session.rule,
        "threshold": session.threshold,
        "decided": _statement(session),
        "n": len(decided),
        "figures": decisions.figures(decided),
        "confusion_matrix": {"classes": list(task.classes), "counts": decisions.counts(decided).tolist()},
        "failed": len(result.failed(session.model)),
        "excluded": result.excluded,
        "notes": [
            *notes_of(result),
            "Answers that are withheld are decided here too; the column “verdict” marks them.",
            f"Sensitivity, specificity and predictive values are about {session.target}.",
            "Where the threshold was chosen by looking at these images, the figures flatter.",
        ],
    }


def _statement(session: Session) -> str:
    if session.rule == LIKELIEST:
        return "the most probable class"
    return f"{session.target} where its score is {session.threshold} or more, else the most probable of the others"
