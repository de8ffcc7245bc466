"""What one visitor's batch is, and what of it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from dermadeit.evaluation.batch import BatchItem, BatchResult
from dermadeit.evaluation.thresholds import Decisions
from dermadeit.inference.decision import OPERATING_POINT_TITLES, OWN_THRESHOLD
from dermadeit.inference.records import Evaluation, Prediction
from dermadeit.reporting.drawing import model_title
from dermadeit.reporting.format import counted
from dermadeit.reporting.names import PREDICTION_SET, score_name
from dermadeit.trust.calibration import OPERATING_POINTS, fitted_for_views
from dermadeit.trust.gating import answer_status
from dermadeit.views.batch.gallery import Picture, gallery_html, matrix_html, point_figures_html, viewer_html
from dermadeit.views.page.job import FilesJob

LIKELIEST = "likeliest"
"""Rule that answers the most probable class; the others are operating points and `OWN_THRESHOLD`."""


@dataclass(eq=False)
class Session:
    """One run, from the press of the button on, and what its visitor looks at.

    Attributes:
        job: The run itself. It can be stopped twice: while the images are read, and while they are measured.
        evaluations: Its figures, one for each model.
        model: The model that is looked at.
        rule: The way to decide, one of `rules`.
        threshold: Score of the target class from which on it is answered; None for the most probable class.
        cell: The cell of the matrix whose images are shown, true class first; None for the mistakes.
        page: The page of these images.
    """

    job: FilesJob
    evaluations: Sequence[Evaluation] = ()
    model: str = ""
    rule: str = LIKELIEST
    threshold: float | None = None
    cell: tuple[int, int] | None = None
    page: int = 0
    _result: BatchResult | None = None
    _read: dict[str, list[tuple[BatchItem, Prediction]]] = field(default_factory=dict)
    _decisions: dict[str, Decisions] = field(default_factory=dict)

    @property
    def is_read(self) -> bool:
        """Whether there is a result."""
        return self._result is not None

    @property
    def result(self) -> BatchResult:
        """What came of the reading; only once it `is_read`."""
        assert self._result is not None, "the images are still being read"
        return self._result

    def finish_reading(self, result: BatchResult) -> None:
        """Takes what came of the reading; the first model is looked at."""
        self._result, self.model = result, result.models[0]
        self.job.go_on()

    def add_note(self, note: str) -> None:
        """Adds what a reader of the figures must know first."""
        self._result = replace(self.result, notes=(*self.result.notes, note))

    def look_at(self, model: str) -> None:
        """Chooses the model whose matrix and images are shown."""
        if model in self.result.models:
            self.model, self.page = model, 0

    def pick(self, value: str) -> None:
        """Follows a button: `row,column` of the matrix, or `page number` of the images. Others do nothing."""
        if value == "mistakes":
            self.cell, self.page = None, 0
        words = value.replace("page ", "page,").split(",")
        size = len(self.result.task.classes)
        if len(words) != 2 or not words[1].isdecimal():
            return
        if words[0] == "page":
            self.page = int(words[1])
        elif words[0].isdecimal() and max(map(int, words)) < size:
            cell = (int(words[0]), int(words[1]))
            self.cell, self.page = (None if cell == self.cell else cell), 0

    def rules(self) -> list[tuple[str, str]]:
        """Names and keys of the ways to decide that the model has."""
        points = OPERATING_POINTS if self._points() else ()
        return [
            ("Most probable class", LIKELIEST),
            *((OPERATING_POINT_TITLES[name], name) for name in points),
            (OPERATING_POINT_TITLES[OWN_THRESHOLD], OWN_THRESHOLD),
        ]

    def get_threshold(self, rule: str) -> float | None:
        """The threshold of a way to decide; the present one for one's own."""
        if rule == LIKELIEST:
            return None
        points = self._points()
        if rule in points:
            return points[rule]
        return self.own_threshold

    @property
    def own_threshold(self) -> float:
        """The present threshold; for the most probable class, where one's own would begin."""
        return self.threshold if self.threshold is not None else 1 / len(self.result.task.classes)

    def decide_by(self, rule: str) -> None:
        """Chooses the way to decide; an unknown one is one's own threshold."""
        known = [key for _, key in self.rules()]
        self.rule, self.threshold = rule if rule in known else OWN_THRESHOLD, self.get_threshold(rule)

    def decide_from(self, threshold: float) -> None:
        """Sets one's own threshold."""
        # The other way around, what is no number would pass.
        self.rule, self.threshold = OWN_THRESHOLD, min(max(0.0, float(threshold)), 1.0)

    @property
    def is_unfinished(self) -> bool:
        """Whether the measuring was cancelled."""
        return any("unfinished" in evaluation.metrics for evaluation in self.evaluations)

    @property
    def target(self) -> str:
        """Key of the class that the threshold is about."""
        return self.result.task.classes[self.decisions().target]

    @property
    def score_name(self) -> str:
        """What the scores of the model may be called."""
        read = self.answers()
        return score_name(calibrated=bool(read) and read[0][1].calibrated)

    def matrix(self) -> str:
        """HTML of the confusion matrix at the threshold."""
        decisions = self.decisions()
        return matrix_html(decisions.task, decisions.counts(decisions.at(self.threshold)), self.cell)

    def point_figures(self) -> str:
        """HTML of the figures at the threshold."""
        decisions = self.decisions()
        return point_figures_html(
            decisions.task, decisions.target, decisions.figures(decisions.at(self.threshold))
        )

    def gallery(self) -> str:
        """HTML of the images of the chosen cell, else of all that are answered wrongly, the surest first."""
        task = self.result.task
        pictures = self._pictures()
        if self.cell is None:
            title = f"{counted(len(pictures), 'wrong answer')}, the most confident first"
        else:
            truth, answer = (task.display_names[task.classes[index]] for index in self.cell)
            title = f"{counted(len(pictures), 'image')}: truth {truth}, answer {answer}"
        return gallery_html(task, title, pictures, self.page, is_of_cell=self.cell is not None)

    def opened(self, value: str) -> str:
        """HTML of one of these images in large, for the button `open number`; empty where there is no such."""
        word, _, place = value.partition(" ")
        if word != "open" or not place.isdecimal():
            return ""
        pictures = self._pictures()
        return viewer_html(self.result.task, pictures, int(place)) if int(place) < len(pictures) else ""

    def table(self) -> pd.DataFrame:
        """The model's answers, one row an image."""
        task, named = self.result.task, self.score_name
        rows = []
        for item, record in self.answers():
            row: dict[str, str | float] = {"File": item.image.file}
            if self.result.labelled:
                row["Truth"] = task.display_names[item.image.label]
            row["Answer"] = task.display_names[record.label]
            if self.result.labelled:
                row["Right"] = "yes" if item.image.label == record.label else "no"
            for key, share in record.probabilities.items():
                row[f"{named}: {task.display_names[key]}"] = round(share, 4)
            if record.conformal_set is not None:
                row["Status"] = answer_status(record)
                row[PREDICTION_SET] = ", ".join(task.display_names[key] for key in record.conformal_set)
            if record.stability:
                row["Views that agree"] = round(record.stability.agreeing_share * record.views)
            rows.append(row)
        return pd.DataFrame(rows)

    def model_choices(self) -> list[tuple[str, str]]:
        """Titles and names of the models."""
        return [(model_title(name), name) for name in self.result.models]

    def evaluation(self) -> Evaluation:
        """Figures of the model that is looked at."""
        return self.evaluations[self.result.models.index(self.model)]

    def answers(self) -> list[tuple[BatchItem, Prediction]]:
        """The images that the model has answered, with its answers."""
        if self.model not in self._read:
            self._read[self.model] = self.result.read(self.model)
        return self._read[self.model]

    def decisions(self) -> Decisions:
        """What the model decides about them at any threshold; only where they are labelled."""
        if self.model not in self._decisions:
            self._decisions[self.model] = Decisions.of(self.result.prediction_set(self.model))
        return self._decisions[self.model]

    def _points(self) -> Mapping[str, float]:
        views = self.result.views[self.model]
        calibration = fitted_for_views(self.result.calibrations[self.model], views)
        if calibration is None:
            return {}
        return {name: calibration.operating_point(name, views).threshold for name in OPERATING_POINTS}

    def _pictures(self) -> list[Picture]:
        """The images that are shown, those with the highest score of what is answered first."""
        decisions = self.decisions()
        decided = decisions.at(self.threshold)
        if self.cell is None:
            wanted = decided != decisions.labels
        else:
            row, column = self.cell
            wanted = (decisions.labels == row) & (decided == column)
        indices = np.flatnonzero(wanted)
        scores = decisions.probabilities[indices, decided[indices]]
        classes, answers = self.result.task.classes, self.answers()
        return [
            (*answers[index], classes[decided[index]])
            for index in indices[np.argsort(-scores, kind="stable")]
        ]
