"""What belongs to one visitor, and to one choice of a photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dermadeit.data.patient import Patient
from dermadeit.inference.decision import DecisionSettings
from dermadeit.views.page.job import Job
from dermadeit.views.single.reading import Reading


class WantedMap(NamedTuple):
    """A heatmap that is to be seen."""

    task_key: str
    class_key: str
    method: str


@dataclass
class Turn:
    """The time between two choices of a photo. What is late for its turn must not appear beside the next photo.

    Attributes:
        source: Path of the chosen photo. A reading that had to wait is given the newest turn, not its own, and
            must be able to tell.
        task_key: The task the visitor wants, which may change while the photo is being read.
        settings: What the visitor has set for the decision, which may change likewise.
        method: A key of `SALIENCY_METHODS`, which may change likewise.
        reading: As much as is known of the photo.
        class_key: Class of the heatmap that is to be seen; None for no heatmap.
        patient: Age and sex, which may change likewise; None where neither was entered.
        is_due: Whether the answer of the chosen task is still to be shown.
        job: The reading of the photo, which is superseded when another photo is chosen. While it runs, nobody else
            adds to what is known of the photo.
    """

    source: str | None
    task_key: str
    settings: DecisionSettings = field(default_factory=DecisionSettings)
    method: str = "grad-cam"
    reading: Reading | None = None
    class_key: str | None = None
    patient: Patient | None = None
    is_due: bool = True
    job: Job = field(default_factory=Job)

    @property
    def is_running(self) -> bool:
        """Whether the photo is still being read, or still will be."""
        return self.source is not None and not self.job.is_over

    def require_reading(self) -> Reading:
        """As much as is known of the photo; only once there is something."""
        assert self.reading is not None, "the photo is still being read"
        return self.reading

    @property
    def has_answer(self) -> bool:
        """Whether the answers that are shown for the chosen task are there."""
        return self.reading is not None and self.reading.has_answers(self.task_key)

    @property
    def wanted(self) -> WantedMap | None:
        """The heatmap that is to be seen; None for none.

        One that is drawn too late can tell that another one was wanted since.
        """
        return WantedMap(self.task_key, self.class_key, self.method) if self.class_key else None

    @property
    def is_map_missing(self) -> bool:
        """Whether the heatmap that is to be seen has not been drawn and checked yet."""
        if self.reading is None or self.class_key is None:
            return False
        return (self.method, self.class_key) not in self.reading.checks.get(self.task_key, {})


@dataclass
class Visit:
    """What one visitor has open. It stays the same object, so that writing it back, which keeps it from expiring,
    can never undo what another event has just done.

    Attributes:
        turn: That of the photo that was chosen last; None before there was one.
        patient: Age and sex, as far as they were entered; None where neither was.
    """

    turn: Turn | None = None
    patient: Patient | None = None

    @property
    def reading(self) -> Reading | None:
        """What is known of the photo, which may still grow; None before there is an answer."""
        return self.turn.reading if self.turn else None
