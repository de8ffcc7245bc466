"""What models, classes, figures and operating points are called where people read of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dermadeit.metrics import HEADLINE_FIGURES
from dermadeit.models import MODEL_SPECS
from dermadeit.tasks import TRAINABLE_TASKS

Metrics = Mapping[str, Any]
"""The `metrics` of a `records.Evaluation`, with the name of its model as `model`."""

FIGURE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **HEADLINE_FIGURES,
        "precision_macro": "macro precision",
        "recall_macro": "macro recall",
        "average_precision": "AUPRC",
        "sensitivity_at_95_specificity": "sensitivity at 95\u00a0% specificity",
        "specificity_at_95_sensitivity": "specificity at 95\u00a0% sensitivity",
        "brier": "Brier score (lower is better)",
        "nll": "negative log-likelihood (lower is better)",
        "ece": "expected calibration error (lower is better)",
        "calibration_slope": "calibration slope (1 is best)",
    }
)
"""Each of `metrics.FIGURES` for people."""

_POINT_TITLES = {
    "sensitivity_95": "95\u00a0% sensitivity",
    "specificity_95": "95\u00a0% specificity",
    "balanced": "balanced",
    "own_threshold": "own threshold",
}


def teacher_networks(identity: str) -> str:
    """The networks of a teacher, equal ones counted, without the hashes of their weights.

    Args:
        identity: The teacher's in `training.json`, such as `deit@sha256:…+deit@sha256:…`.
    """
    networks = Counter(network.partition("@")[0] for network in identity.split("+"))
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in networks.items())


def capitalised(words: str) -> str:
    """The words with a capital first letter; the others stay as they are, unlike with `str.capitalize`."""
    return words[:1].upper() + words[1:]


def operating_point_title(key: str) -> str:
    """The name of an operating point for people."""
    return _POINT_TITLES.get(key, key.replace("_", " "))


def model_name(model: str) -> str:
    """A model's name for people."""
    spec = MODEL_SPECS.get(model)
    return spec.title if spec else model


def model_of(metrics: Metrics) -> str:
    """The name of the model that was evaluated, for people."""
    return model_name(metrics.get("model") or "model without a name")


def class_name(metrics: Metrics, key: str) -> str:
    """The name of a class of the task that was evaluated, for people."""
    task = TRAINABLE_TASKS.get(metrics.get("task", ""))
    return task.display_names.get(key, key) if task else key
