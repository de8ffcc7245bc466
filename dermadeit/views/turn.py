"""What belongs to one choice of a photo."""

from __future__ import annotations

from dataclasses import dataclass, field

from dermadeit.views.decision import Choice
from dermadeit.views.reading import Reading


@dataclass
class Turn:
    """The time between two choices of a photo. What is late for its turn must not appear beside the next photo.

    Attributes:
        source: Path of the chosen photo. A reading that had to wait is given the newest turn, not its own, and
            must be able to tell.
        task_key: The task the visitor wants, which may change while the photo is being read.
        choice: What the visitor has set for the decision, which may change likewise.
        labels: The answers alone, for deciding while the heatmaps are still being drawn.
        is_over: Whether the visitor has chosen another photo since.
    """

    source: str | None
    task_key: str
    choice: Choice = field(default_factory=Choice)
    labels: Reading | None = None
    is_over: bool = False
