"""One photo read for the page: the answers of the tasks and the heatmaps of all their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.errors import PredictionError
from dermadeit.faithfulness import SaliencyCheck, check_saliency
from dermadeit.imaging import LesionImage
from dermadeit.predictor import Predictor
from dermadeit.records import ItemFailure, Prediction
from dermadeit.saliency import SaliencyMap, grad_cam
from dermadeit.tasks import BINARY, get_task

PREVIEW_SIDE = 800
"""Longest side of the pictures on the page, in pixels; the model sees the full photo."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What the page needs to redraw a result without the upload, small enough to keep for each visitor.

    Attributes:
        preview: The photo, at most `PREVIEW_SIDE` pixels a side.
        size: Width and height of the photo itself, in pixels.
        model_side: Side of the square that the photo is squashed to for the models, in pixels.
        predictions: Task key to answer.
        maps: Task key to class key to heatmap.
        checks: Task key to class key to whether that heatmap can be believed.
    """

    preview: LesionImage
    size: tuple[int, int]
    model_side: int
    predictions: Mapping[str, Prediction]
    maps: Mapping[str, Mapping[str, SaliencyMap]]
    checks: Mapping[str, Mapping[str, SaliencyCheck]]


def tasks_shown(task_key: str) -> tuple[str, ...]:
    """The tasks whose answers are shown for a chosen one: the binary reading always comes first."""
    return tuple(dict.fromkeys((BINARY.key, get_task(task_key).key)))


def predict_one(predictor: Predictor, image: LesionImage) -> Prediction:
    """The answer for one decoded photo; raises `PredictionError` where the model gives none."""
    [record] = predictor.predict([image])
    if isinstance(record, ItemFailure):
        raise PredictionError(record.message, code=record.code)
    return record


def read_labels(predictors: Mapping[str, Predictor], image: LesionImage, task_key: str) -> Reading:
    """The answers that are shown for a task, without heatmaps: as fast as it gets."""
    answers = {key: predict_one(predictors[key], image) for key in tasks_shown(task_key)}
    side = predictors[task_key].checkpoint.preprocessing.size
    return Reading(_preview(image), (image.width, image.height), side, answers, maps={}, checks={})


def with_map(
    reading: Reading, predictors: Mapping[str, Predictor], image: LesionImage, task_key: str
) -> Reading:
    """Adds the heatmap that is shown first: that of the task's answer."""
    label = reading.predictions[task_key].label
    return replace(reading, maps={task_key: {label: grad_cam(predictors[task_key], image, label)}})


def complete(reading: Reading, predictors: Mapping[str, Predictor], image: LesionImage) -> Reading:
    """Adds the missing answers, heatmaps and checks of all tasks, so that nothing needs the photo again."""
    predictions, maps, checks = dict(reading.predictions), {}, {}
    for key, predictor in predictors.items():
        if key not in predictions:
            predictions[key] = predict_one(predictor, image)
        known = reading.maps.get(key, {})
        maps[key] = {
            name: known.get(name) or grad_cam(predictor, image, name)
            for name in predictor.checkpoint.task.classes
        }
        checks[key] = {name: check_saliency(predictor, image, found) for name, found in maps[key].items()}
        label = predictions[key].label
        predictions[key] = replace(
            predictions[key],
            saliency_check={"method": maps[key][label].method, **asdict(checks[key][label])},
        )
    return replace(reading, predictions=predictions, maps=maps, checks=checks)


def export(reading: Reading, predictors: Mapping[str, Predictor], task_key: str) -> dict[str, Any]:
    """The result as JSON-ready values, with all that is needed to know how it came about."""
    width, height = reading.size
    return {
        "disclaimer": DISCLAIMER,
        "app": {"name": "DermaDeiT", "version": VERSION},
        "image": {
            "sha256": reading.preview.sha256,
            "format": reading.preview.format,
            "width": width,
            "height": height,
            "model_side": reading.model_side,
            "ledger": list(reading.preview.ledger),
            "warnings": list(reading.preview.warnings),
        },
        "scores": (
            "calibrated probabilities"
            if reading.predictions[task_key].calibrated
            else "softmax of the logits averaged over the views; not calibrated"
        ),
        "readings": [
            reading.predictions[key].to_dict()
            | {
                "weights_sha256": predictors[key].checkpoint.weights_sha256,
                "caveat": get_task(key).caveat,
            }
            for key in tasks_shown(task_key)
        ],
    }


def _preview(image: LesionImage) -> LesionImage:
    picture = image.to_pil()
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return replace(image, pixels=np.asarray(picture))
