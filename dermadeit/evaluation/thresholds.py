"""What is answered at any threshold, and how right that is, fast enough to follow a slider."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermadeit.evaluation.predictions import PredictionSet
from dermadeit.metrics.weighted import figures_of_counts
from dermadeit.tasks import Task


@dataclass(frozen=True, eq=False)
class Decisions:
    """One model's decisions on N labelled images, made anew for any threshold in well under a millisecond.

    Attributes:
        task: What was asked.
        labels: int [N], true class indices.
        probabilities: float [N, K].
        answers: int [N], what is answered without a threshold; None for the most probable classes.
    """

    task: Task
    labels: np.ndarray
    probabilities: np.ndarray
    answers: np.ndarray | None = None

    @classmethod
    def of(cls, predictions: PredictionSet) -> Decisions:
        """Those that a model's answers allow."""
        return cls(predictions.task, predictions.labels, predictions.probabilities, predictions.answers)

    @property
    def target(self) -> int:
        """Index of the class that must not be missed."""
        return self.task.index_of(self.task.target)

    def at(self, threshold: float | None) -> np.ndarray:
        """Class indices, int [N], decided as `decision.decide` does.

        Args:
            threshold: Score of the target class from which on it is answered, else the likeliest of the others;
                None for what is answered without.
        """
        if threshold is None:
            return self.probabilities.argmax(axis=1) if self.answers is None else self.answers
        others = self.probabilities.copy()
        others[:, self.target] = -1
        return np.where(self.probabilities[:, self.target] >= threshold, self.target, others.argmax(axis=1))

    def counts(self, decided: np.ndarray) -> np.ndarray:
        """Confusion matrix, int [K, K], a row for each true class."""
        num_classes = len(self.task.classes)
        cells = np.bincount(self.labels * num_classes + decided, minlength=num_classes**2)
        return cells.reshape(num_classes, num_classes)

    def figures(self, decided: np.ndarray) -> dict[str, float | None]:
        """Point figures: accuracy to kappa, then sensitivity to NPV of the target class; None where undefined."""
        counts = self.counts(decided)
        target, hits = self.target, counts[self.target, self.target]
        answered, positive, total = counts[:, target].sum(), counts[target].sum(), counts.sum()
        rejected = total - positive - answered + hits
        shares = {
            "sensitivity": (hits, positive),
            "specificity": (rejected, total - positive),
            "ppv": (hits, answered),
            "npv": (rejected, total - answered),
        }
        general = {name: float(value[0]) for name, value in figures_of_counts(counts[None]).items()}
        figures = general | {
            name: float(part / whole) if whole else float("nan") for name, (part, whole) in shares.items()
        }
        return {name: None if np.isnan(value) else value for name, value in figures.items()}
