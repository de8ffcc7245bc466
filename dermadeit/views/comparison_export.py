"""A comparison on many images for taking away: its figures as JSON, the images with different answers as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.tabular import write_csv
from dermadeit.evaluation.batch import BatchResult
from dermadeit.evaluation.comparison import Entrant
from dermadeit.views.comparison_steps import ImagesComparison
from dermadeit.views.uploads import private_folder


def export(found: ImagesComparison, batch: BatchResult | None = None) -> dict[str, Any]:
    """A finished comparison as JSON-ready values.

    Args:
        found: The comparison.
        batch: The images behind it, where some were handed in.
    """
    content = {
        "disclaimer": DISCLAIMER,
        "app": {"name": "DermaDeiT", "version": VERSION},
        "task": found.task.key,
        "caveat": found.task.caveat,
        "labelled": found.is_labelled,
        "images": found.images,
        "models": {entrant.title: _model(found, entrant) for entrant in found.entrants},
        "comparisons": [result.to_dict() for result in found.paired],
        "kappas": [
            {"first": first, "second": second, "cohen_kappa": value}
            for (first, second), value in (found.agreeing or {}).items()
        ],
        "disagreements": len(found.differing or ()),
    }
    return content if batch is None else {**content, "batch": _batch(batch)}


def store_disagreements(found: ImagesComparison, batch: BatchResult | None = None) -> str | None:
    """Writes the images that the models answer differently into the cache; None where there is one model.

    Args:
        found: A finished comparison.
        batch: The images behind it, where some were handed in: their files and hashes are written too.
    """
    if len(found.entrants) < 2:
        return None
    titles = [entrant.title for entrant in found.entrants]
    columns = ["image_id", *(["file", "sha256"] if batch else []), "label_true", "source"]
    columns += [f"{kind} {title}" for title in titles for kind in ("label", "target_score")]
    columns += ["withheld"]
    path = private_folder() / "dermadeit-disagreements.csv"
    write_csv(path, columns, _rows(found, batch))
    return str(path)


def _model(found: ImagesComparison, entrant: Entrant) -> dict[str, Any]:
    cost = (found.costs or {}).get(entrant.title)
    return {
        "model": entrant.name,
        "views": entrant.predictions.views,
        "left_out": entrant.dropped,
        "weights_sha256": entrant.predictions.weights_sha256 or None,
        **found.figures.get(entrant.title, {}),
        "latency": cost.latency.to_dict() if cost else None,
    }


def _batch(batch: BatchResult) -> dict[str, Any]:
    return {
        "notes": list(batch.notes),
        "left_out": dict(batch.excluded),
        "failed": {model: len(batch.failed(model)) for model in batch.models},
    }


def _rows(found: ImagesComparison, batch: BatchResult | None) -> Iterator[dict[str, Any]]:
    items = {item.image.image_id: item for item in batch.items} if batch else {}
    for image in found.differing or ():
        row = {"image_id": image.image_id, "label_true": image.label, "source": image.source}
        if item := items.get(image.image_id):
            row |= {"file": item.image.file, "sha256": item.records[0].sha256}
        row |= {f"label {title}": answer for title, answer in image.answers.items()}
        row |= {f"target_score {title}": score for title, score in image.scores.items()}
        yield {**row, "withheld": ", ".join(image.withheld)}
