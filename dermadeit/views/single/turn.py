"""What belongs to one visitor, and to one choice of a photo."""

from __future__ import annotations

from dataclasses import dataclass, field

from dermadeit.inference.decision import Choice
from dermadeit.views.single.reading import Reading


@dataclass
class Turn:
    """The time between two choices of a photo. What is late for its turn must not appear beside the next photo.

    Attributes:
        source: Path of the chosen photo. A reading that had to wait is given the newest turn, not its own, and
            must be able to tell.
        task_key: The task the visitor wants, which may change while the photo is being read.
        choice: What the visitor has set for the decision, which may change likewise.
        reading: As much as is known of the photo.
        wanted: Task, class and method of the heatmap that is to be seen; None for none. One that is drawn too late
            can tell that another one was wanted since.
        is_running: Whether the photo is still being read.
        is_stopping: Whether the visitor has asked to leave the rest of the reading.
        is_over: Whether the visitor has chosen another photo since.
    """

    source: str | None
    task_key: str
    choice: Choice = field(default_factory=Choice)
    reading: Reading | None = None
    wanted: tuple[str, str, str] | None = None
    is_running: bool = False
    is_stopping: bool = False
    is_over: bool = False


@dataclass
class Visit:
    """What one visitor has open. It stays the same object, so that writing it back, which keeps it from expiring,
    can never undo what another event has just done.

    Attributes:
        turn: That of the photo that was chosen last; None before there was one.
    """

    turn: Turn | None = None

    @property
    def reading(self) -> Reading | None:
        """The finished reading of the photo; None before there is one."""
        return self.turn.reading if self.turn and not self.turn.is_running else None
