"""What one visitor's batch is, and what of it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from dermadeit.evaluation.batch import PICTURE_SIDE, THUMBNAIL_SIDE, BatchItem, BatchResult
from dermadeit.evaluation.slices import SLICED_BY, UNKNOWN
from dermadeit.evaluation.thresholds import Decisions
from dermadeit.inference.decision import OPERATING_POINT_TITLES, OWN_THRESHOLD
from dermadeit.inference.records import ABSTAIN, Evaluation, Prediction
from dermadeit.reporting.document import data_address
from dermadeit.reporting.drawing import model_title
from dermadeit.reporting.format import count, counted, decimal
from dermadeit.reporting.names import PREDICTION_SET, score_name
from dermadeit.reporting.templates import render
from dermadeit.trust.calibration import OPERATING_POINTS, fitted_for_views
from dermadeit.trust.gating import answer_status
from dermadeit.views.batch.gallery import Picture, gallery_html, matrix_html, point_figures_html, viewer_html
from dermadeit.views.batch.model_comparison import DIFFERING, ModelComparison
from dermadeit.views.page.case_pictures import load_pictures
from dermadeit.views.page.job import FilesJob
from dermadeit.views.page.pictures import jpeg_address

LIKELIEST = "likeliest"
"""Rule that answers the most probable class; the others are operating points and `OWN_THRESHOLD`."""

_LABELLED_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "batch-all-figures": "Figures",
        "batch-all-curves": "Curves",
        "batch-subgroups": "Subgroups",
        "batch-uncertainty": "Uncertainty and thresholds",
    }
)


@dataclass(eq=False)
class Session:
    """One run, from the press of the button on, and what its visitor looks at.

    Attributes:
        job: The run itself. It can be stopped twice: while the images are read, and while they are measured.
        evaluations: Its figures, one for each model.
        model: The model that is looked at.
        rule: The way to decide, one of `rules`.
        threshold: Score of the target class from which on it is answered; None for the most probable class.
        comparison: Of its models, where there are several; None before.
        cases: Folder with a local copy of ISIC 2019 for the pictures of shipped predictions, or None.
        cell: The cell of the matrix whose images are shown, true class first; None for the mistakes.
        part: Attribute and value of the subgroup whose images are shown; None for no subgroup.
        is_shipped: Whether it is about the shipped predictions, and no files.
        is_differing: Whether the images on which the models differ are shown in place of both.
        page: The page of these images.
    """

    job: FilesJob
    evaluations: Sequence[Evaluation] = ()
    model: str = ""
    rule: str = LIKELIEST
    threshold: float | None = None
    cell: tuple[int, int] | None = None
    part: tuple[str, str] | None = None
    is_differing: bool = False
    page: int = 0
    comparison: ModelComparison | None = None
    cases: Path | None = None
    is_shipped: bool = False
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
        """Follows a button: `row,column`, `mistakes`, `part attribute:value`, `page number`; others do nothing."""
        kind, _, rest = value.partition(" ")
        cell = self._cell_of(value)
        if kind == "page":
            self.page = int(rest) if rest.isdecimal() else self.page
        elif value in ("mistakes", DIFFERING):
            self._select(is_differing=value == DIFFERING)
        elif kind == "part":
            attribute, _, part = rest.partition(":")
            self._select(part=(attribute, part) if attribute in SLICED_BY else None)
        elif cell is not None:
            self._select(cell=None if cell == self.cell else cell)

    def _cell_of(self, value: str) -> tuple[int, int] | None:
        words = value.split(",")
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            return None
        row, column = map(int, words)
        return (row, column) if max(row, column) < len(self.result.task.classes) else None

    def _select(
        self,
        cell: tuple[int, int] | None = None,
        part: tuple[str, str] | None = None,
        *,
        is_differing: bool = False,
    ) -> None:
        self.cell, self.part, self.is_differing, self.page = cell, part, is_differing, 0

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

    def strip(self) -> str:
        """HTML of what stays in sight: the most important figures of the model, at the threshold."""
        decisions, metrics = self.decisions(), self.evaluation().metrics
        figures = decisions.figures(decisions.at(self.threshold))
        answers = [record for _, record in self.answers()]
        shown = [
            ("Accuracy", decimal(figures["accuracy"])),
            ("AUROC", decimal(metrics.get("roc_auc"))),
            ("Sensitivity", decimal(figures["sensitivity"])),
            ("Specificity", decimal(figures["specificity"])),
        ]
        if any(record.conformal_set is not None for record in answers):
            shown.append(("Answers withheld", count(sum(record.verdict == ABSTAIN for record in answers))))
        rule = next(title for title, key in self.rules() if key == self.rule)
        return render("views/batch/strip.html", model=model_title(self.model), rule=rule, figures=shown)

    def parts(self) -> dict[str, str]:
        """Id of each part of the results on the page to its name."""
        labelled = self.result.labelled
        return {
            "batch-downloads": "Downloads",
            "batch-images": "Matrix and images" if labelled else "Images",
            **({"batch-models-compared": "Models compared"} if self.comparison is not None else {}),
            **(_LABELLED_PARTS if labelled else {}),
            "batch-predictions": "Predictions",
            "batch-left-out": "Files not read",
        }

    def gallery(self) -> str:
        """HTML of the images that are shown: of a cell, those on which models differ, else all that are wrong."""
        task, pictures = self.result.task, self._pictures()
        way_back = "Show the worst mistakes" if self.result.labelled else "Show all images"
        if self.is_differing:
            title = f"{counted(len(pictures), 'image')} with different answers, the largest differences first"
        elif self.part is not None:
            name = f"{SLICED_BY[self.part[0]]} {self.part[1]}"
            title = f"{counted(len(pictures), 'image')}: {name}, wrong answers first"
        elif self.cell is not None:
            truth, answer = (task.display_names[task.classes[index]] for index in self.cell)
            title = f"{counted(len(pictures), 'image')}: truth {truth}, answer {answer}"
        elif self.result.labelled:
            title, way_back = f"{counted(len(pictures), 'wrong answer')}, the most confident first", ""
        else:
            title, way_back = counted(len(pictures), "image"), ""
        return gallery_html(
            task, title, pictures, self.page, self._address, way_back=way_back, **self._about_pictures()
        )

    def opened(self, value: str) -> str:
        """HTML of one of these images in large, for the button `open number`; empty where there is no such."""
        word, _, place = value.partition(" ")
        if word != "open" or not place.isdecimal():
            return ""
        pictures = self._pictures()
        if int(place) >= len(pictures):
            return ""
        return viewer_html(self.result.task, pictures, int(place), self._address, **self._about_pictures())

    def _about_pictures(self) -> dict[str, Any]:
        differing = self.comparison.differing if self.comparison and self.is_differing else ()
        return {
            "answers": {image.image_id: image for image in differing},
            "is_shipped": self.result.is_shipped,
        }

    def _address(self, item: BatchItem, is_large: bool) -> str:
        if not self.result.is_shipped:
            return jpeg_address(item.picture or item.thumbnail if is_large else item.thumbnail)
        name, side = item.image.image_id, PICTURE_SIDE if is_large else THUMBNAIL_SIDE
        loaded = load_pictures(self.cases, [name], side)
        return data_address(loaded[name], "png") if loaded else ""

    def table(self) -> pd.DataFrame:
        """The model's answers, one row an image."""
        task, named = self.result.task, self.score_name
        rows = []
        for item, record in self.answers():
            row: dict[str, str | float] = {"File": item.image.file}
            if self.result.labelled:
                row["Truth"] = task.display_names[item.image.label]
            name = task.display_names[record.label]
            row["Answer"] = f"withheld ({name})" if record.verdict == ABSTAIN else name
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
        if self.is_differing and self.comparison is not None:
            answered = {item.image.image_id: (item, record) for item, record in self.answers()}
            found = [answered[image.image_id] for image in self.comparison.differing]
            return [(item, record, record.label) for item, record in found]
        if not self.result.labelled:
            return [(item, record, record.label) for item, record in self.answers()]
        decisions = self.decisions()
        decided = decisions.at(self.threshold)
        classes, answers = self.result.task.classes, self.answers()
        if self.part is not None:
            wanted = np.array(
                [_attribute(item, self.part[0]) == self.part[1] for item, _ in answers], dtype=bool
            )
        elif self.cell is None:
            wanted = decided != decisions.labels
        else:
            row, column = self.cell
            wanted = (decisions.labels == row) & (decided == column)
        indices = np.flatnonzero(wanted)
        # Of a subgroup the wrong answers come first.
        scores = decisions.probabilities[indices, decided[indices]] + (decided != decisions.labels)[indices]
        return [
            (*answers[index], classes[decided[index]])
            for index in indices[np.argsort(-scores, kind="stable")]
        ]


def _attribute(item: BatchItem, name: str) -> str:
    return {"source": item.image.source, **item.attributes}.get(name) or UNKNOWN
