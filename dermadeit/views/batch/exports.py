"""A batch for taking away: figures, tables and a report, each by itself and all in one ZIP."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dermadeit.about import APP, DISCLAIMER, VERSION
from dermadeit.data.tabular import write_csv
from dermadeit.evaluation.batch import BatchResult
from dermadeit.evaluation.evaluate import write_evaluations
from dermadeit.files import write_json
from dermadeit.inference.records import Evaluation
from dermadeit.reporting.drawing import model_title
from dermadeit.reporting.evaluation_report import ComparedReport, evaluation_report
from dermadeit.reporting.figures import (
    confusion_figure,
    decision_curves,
    encode_figure,
    precision_recall_curves,
    reliability_diagram,
    risk_coverage_curves,
    roc_curves,
    score_histograms,
    slice_figure,
)
from dermadeit.reporting.format import count, counted
from dermadeit.trust.gating import answer_status
from dermadeit.views.batch.model_comparison import ModelComparison
from dermadeit.views.batch.session import LIKELIEST, Session
from dermadeit.views.batch.tables import views_of

_LEFT_OUT_COLUMNS = ("file", "reason", "code", "line")
_PNG_MARK = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class DrawnFigure:
    """One figure of a batch.

    Attributes:
        name: For its files, without suffix.
        caption: For people.
        figure: The drawing.
    """

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class BatchFiles:
    """Paths of what can be taken away; the report is None without labels."""

    everything: Path
    predictions: Path
    metrics: Path
    report: Path | None


def draw_curves(result: BatchResult) -> list[DrawnFigure]:
    """The curves of a labelled batch, all models in each."""
    sets = [result.prediction_set(model) for model in result.models]
    return [
        DrawnFigure("roc", "ROC", roc_curves(sets)),
        DrawnFigure("precision_recall", "Precision and recall", precision_recall_curves(sets)),
        DrawnFigure("decision_curve", "Decision curve", decision_curves(sets)),
        DrawnFigure("scores", "Scores", score_histograms(sets)),
        DrawnFigure("reliability", "Reliability", reliability_diagram(sets)),
        DrawnFigure(
            "risk_coverage", "Errors when uncertain answers are withheld", risk_coverage_curves(sets)
        ),
    ]


def draw_matrices(result: BatchResult, evaluations: Sequence[Evaluation]) -> list[DrawnFigure]:
    """The confusion matrices and the slices of each model of a labelled batch."""
    drawn = []
    for number, evaluation in enumerate(evaluations, start=1):
        predictions, title = result.prediction_set(evaluation.model), model_title(evaluation.model)
        # A table of predictions may name its models as it likes.
        suffix = f"{number}_{re.sub('[^A-Za-z0-9-]+', '-', evaluation.model)[:40]}"
        drawn += [
            DrawnFigure(f"confusion_counts_{suffix}", f"{title}: images", confusion_figure(predictions)),
            DrawnFigure(
                f"confusion_shares_{suffix}",
                f"{title}: share of each true class",
                confusion_figure(predictions, normalised=True),
            ),
        ]
        if slices := evaluation.metrics.get("slices"):
            drawn.append(
                DrawnFigure(f"slices_{suffix}", f"{title}: accuracy by subgroup", slice_figure(slices))
            )
    return drawn


def write_files(
    result: BatchResult,
    evaluations: Sequence[Evaluation],
    figures: Sequence[DrawnFigure],
    folder: Path,
    comparison: ModelComparison | None = None,
) -> BatchFiles:
    """Writes everything that can be downloaded.

    Args:
        result: The batch.
        evaluations: One for each of its models.
        figures: What to add as PNG, SVG and in the report.
        folder: An empty folder of this batch alone.
        comparison: Of its models, where there are several.
    """
    if comparison is not None and comparison.is_finished:
        write_json(folder / "comparison.json", {"disclaimer": DISCLAIMER, "app": APP, **comparison.to_dict()})
        write_csv(folder / "disagreements.csv", *_disagreements(comparison, result))
    write_evaluations(evaluations, folder, with_origin=True)
    write_csv(
        folder / "left_out.csv",
        _LEFT_OUT_COLUMNS,
        (
            {"file": item.file, "reason": item.reason, "code": item.code, "line": item.line or None}
            for item in result.left_out
        ),
    )
    about, report = _about(result), None
    if result.labelled:
        report = folder / "report.html"
        report.write_text(_report(result, evaluations, figures, comparison), encoding="utf-8")
    for drawn in figures:
        for kind in ("png", "svg"):
            data = _with_comment(encode_figure(drawn.figure, kind), about)
            (folder / f"{drawn.name}.{kind}").write_bytes(data)
    (folder / "about.txt").write_text(about, encoding="utf-8")
    prefix = f"dermadeit-batch-{result.task.key}"
    everything = folder / f"{prefix}.zip"
    members = sorted(path for path in folder.iterdir() if path.is_file())
    with zipfile.ZipFile(everything, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in members:
            archive.write(path, path.name)
    # By itself a file has to say what it is of in its name.
    predictions, metrics = (
        (folder / name).rename(folder / f"{prefix}-{name}") for name in ("predictions.csv", "metrics.json")
    )
    return BatchFiles(
        everything, predictions, metrics, report and report.rename(folder / f"{prefix}-{report.name}")
    )


def _disagreements(
    comparison: ModelComparison, result: BatchResult
) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Columns and rows of the images that models answer differently."""
    items = {item.image.image_id: item for item in result.items}
    titles = [model.title for model in comparison.compared]
    columns = ["image_id", "file", "sha256", "label_true", "source"]
    columns += [f"{kind} {title}" for title in titles for kind in ("label", "target_score", "answer_status")]

    def rows() -> Iterator[dict[str, Any]]:
        for image in comparison.differing:
            item = items[image.image_id]
            row = {
                "image_id": image.image_id,
                "file": item.image.file,
                "sha256": item.records[0].sha256,
                "label_true": image.label,
                "source": image.source,
            }
            row |= {f"label {title}": answer for title, answer in image.answers.items()}
            row |= {f"target_score {title}": score for title, score in image.scores.items()}
            yield row | {f"answer_status {title}": image.status(title) for title in image.answers}

    return columns, rows()


def notes_of(result: BatchResult) -> list[str]:
    """What a reader of the figures must know first."""
    notes = [DISCLAIMER, *result.notes]
    if result.task.caveat:
        notes.append(result.task.caveat)
    if result.missing:
        notes.append(f"The batch was cancelled. Images not read: {count(result.missing)}.")
    if result.left_out:
        notes.append(f"Files left out: {count(len(result.left_out))}. The reasons are in left_out.csv.")
    return notes


def _report(
    result: BatchResult,
    evaluations: Sequence[Evaluation],
    figures: Sequence[DrawnFigure],
    comparison: ModelComparison | None,
) -> str:
    compared = None
    if comparison is not None and comparison.is_finished:
        compared = ComparedReport(
            comparison.paired, comparison.agreeing, len(comparison.differing), comparison.images
        )
    return evaluation_report(
        f"Evaluation of {counted(len(result.items), 'image')}: {result.task.title}",
        [
            {**evaluation.metrics, "model": evaluation.model, "class_names": result.task.display_names}
            for evaluation in evaluations
        ],
        [(drawn.caption, drawn.figure) for drawn in figures],
        [_failure(model, item, record) for model in result.models for item, record in result.failed(model)],
        notes_of(result),
        compared=compared,
    )


def _failure(model: str, item: Any, record: Any) -> Mapping[str, Any]:
    return {"file": item.image.file, "model": model, "code": record.code, "message": record.message}


def _about(result: BatchResult) -> str:
    weights = "\n".join(
        f"Weights SHA-256 of {model}: {digest or 'not available'}" for model, digest in result.weights.items()
    )
    notes = "\n".join(notes_of(result))
    return (
        f"DermaDeiT {VERSION}\nTask: {result.task.key} ({result.task.title})\nViews: {views_of(result)}\n"
        f"{weights}\n\n"
        f"{notes}\n\nThe hash of each image and its conversion are in predictions.csv.\n"
    )


def _with_comment(figure: bytes, comment: str) -> bytes:
    """A PNG or SVG file that says in itself what it is of."""
    if not figure.startswith(_PNG_MARK):
        start = figure.index(b">", figure.index(b"<svg")) + 1
        return figure[:start] + f"<desc>{escape(comment)}</desc>".encode() + figure[start:]
    # An uncompressed international text chunk, before the end chunk of 12 bytes.
    chunk = b"iTXtComment\0\0\0\0\0" + comment.encode()
    sized = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return figure[:-12] + sized + figure[-12:]


_COLUMNS = (
    "image_id", "file", "sha256", "task", "model", "views", "label_true", "target", "score", "calibrated", "rule",
    "threshold", "decision", "right", "answer_status", "verdict", "abstain_codes", "warning_codes",
    "weights_sha256", "ledger", "warnings", "dermadeit_version", "disclaimer",
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
            "answer_status": answer_status(record),
            "verdict": record.verdict,
            "abstain_codes": " ".join(record.abstain_codes),
            "warning_codes": " ".join(record.warning_codes or ()),
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
        "app": APP,
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
            "Withheld answers have a decision here too. The column “answer_status” marks them and all warnings.",
            f"Sensitivity, specificity and predictive values are about {session.target}.",
            "If the threshold was chosen on these images, the figures are too good.",
        ],
    }


def _statement(session: Session) -> str:
    if session.rule == LIKELIEST:
        return "the most probable class"
    return f"{session.target} where its score is {session.threshold} or more, else the most probable of the others"
