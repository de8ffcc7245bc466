"""One photo read by several models for the page: what is kept of it between two events, and what is exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dermadeit.about import APP, DISCLAIMER
from dermadeit.errors import ErrorCode
from dermadeit.imaging.decode import LesionImage, shrink
from dermadeit.inference.records import ItemFailure
from dermadeit.inference.side_by_side import Agreement, ModelReading, agreement, read_with
from dermadeit.inference.zoo import ModelZoo, ZooEntry
from dermadeit.tasks import Task
from dermadeit.trust.calibration import DEFAULT_OPERATING_POINT
from dermadeit.views.comparison import photo_cards as cards
from dermadeit.views.page.failures import Failure, presentable
from dermadeit.views.page.job import Job

_MAP_SIDE = 360
"""Longest side of the photo under a heatmap, in pixels."""

_KEPT_PIXELS = 2_000_000
"""Photos of at most so many pixels are kept for the other task, as long as their result is."""

_NOT_ASKED = Failure(ErrorCode.NOT_ASKED, "The comparison was stopped before this model.")


@dataclass(frozen=True, eq=False)
class PhotoComparison:
    """What the page needs to redraw a comparison without the upload.

    Attributes:
        task: What was asked.
        photo: The photo itself where it is small enough to be kept, else None.
        preview: The photo as the heatmaps are drawn over it.
        outcomes: Name of each model that was asked to what came of it.
    """

    task: Task
    photo: LesionImage | None
    preview: LesionImage
    outcomes: Mapping[str, cards.Outcome] = field(default_factory=dict)

    @property
    def readings(self) -> tuple[ModelReading, ...]:
        """What the models that could be asked have said."""
        return tuple(outcome for outcome in self.outcomes.values() if isinstance(outcome, ModelReading))

    @property
    def agreement(self) -> Agreement:
        """How far they agree."""
        return agreement(self.task, self.readings)

    def export(self, zoo: ModelZoo, point: str) -> dict[str, Any]:
        """The result as JSON-ready values, with all that is needed to know how it came about."""
        photo = self.preview
        return {
            "disclaimer": DISCLAIMER,
            "app": APP,
            "task": self.task.key,
            "caveat": self.task.caveat,
            "operating_point": point,
            "image": {
                "sha256": photo.sha256,
                "format": photo.format,
                "ledger": list(photo.ledger),
                "warnings": list(photo.warnings),
            },
            "agreement": self.agreement.sentence,
            "models": self.records(zoo),
        }

    def records(self, zoo: ModelZoo) -> list[dict[str, Any]]:
        """What came of every compared model, those without a checkpoint too, as JSON-ready values."""
        return [self._record(entry) for entry in zoo.entries(self.task.key)]

    def _record(self, entry: ZooEntry) -> dict[str, Any]:
        outcome = self.outcomes.get(entry.name)
        if isinstance(outcome, ModelReading):
            return outcome.to_dict()
        failure = outcome or (
            Failure(ErrorCode.NO_CHECKPOINT, entry.missing) if entry.missing else _NOT_ASKED
        )
        image = self.preview
        failed = ItemFailure(
            image.name, image.sha256, self.task.key, entry.name, code=failure.code, message=failure.message
        )
        return {**failed.to_dict(), "title": entry.title}


@dataclass
class Run:
    """One photo and what is wanted of it, from its choice until another one is chosen.

    Attributes:
        source: Path of the chosen photo. A reading that had to wait is given the newest run, not its own, and must
            be able to tell.
        task_key: The task, which may change while the models are being asked.
        shown_class: Class of the heatmaps, or `comparison.photo_cards.OWN_ANSWER`.
        point: The operating point.
        again: The photo to read again for another task; taken by the reading that does.
        job: The reading, which ends after the model that is being asked; over where there is nothing to read.
    """

    source: str | None
    task_key: str
    shown_class: str = cards.OWN_ANSWER
    point: str = DEFAULT_OPERATING_POINT
    again: LesionImage | None = None
    job: Job = field(default_factory=Job)

    @property
    def is_running(self) -> bool:
        """Whether a reading is going on, or still will be."""
        return not self.job.is_over


def compare_photo(zoo: ModelZoo, task: Task, photo: LesionImage) -> Iterator[PhotoComparison]:
    """A photo read by every model that has a checkpoint; yields after each, and once before the first."""
    kept = photo if photo.width * photo.height <= _KEPT_PIXELS else None
    result = PhotoComparison(task, kept, shrink(photo, _MAP_SIDE))
    yield result
    for entry in zoo.entries(task.key):
        if entry.available:
            try:
                outcome = read_with(zoo.predictor(task.key, entry.name), photo)
            except Exception as error:
                # A model that fails must not take the others with it.
                outcome = presentable(error)
            result = replace(result, outcomes={**result.outcomes, entry.name: outcome})
            yield result
