"""One long run of the page: whether it waits, runs or is over, what ends it, and how long its files stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any

from dermadeit.views.page.uploads import (
    CACHE_SECONDS,
    claim_uploads,
    hold,
    keep_alive,
    private_folder,
    release,
    unclaim,
)

_KEEP_EVERY = CACHE_SECONDS / 10


class JobState(StrEnum):
    """Where a run stands.

    It waits for its turn, runs, and is done. Its visitor may ask it to stop: what is finished by then is kept. A
    newer run of the same visitor supersedes it: nobody waits for it any more, and nothing of it may appear.
    """

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUPERSEDED = "superseded"
    DONE = "done"


@dataclass(eq=False, kw_only=True)
class Job:
    """A run, from the press of a button on.

    Events that had to wait are given the newest job of their visitor, not their own: only the first of them may
    `start` it.

    Attributes:
        state: Where it stands.
        has_begun: Whether its turn has come.
        on_stop: Called when what goes on should end early, from another thread than that of the work.
    """

    state: JobState = JobState.WAITING
    has_begun: bool = False
    on_stop: Callable[[], None] | None = None

    @classmethod
    def nothing(cls) -> Job:
        """A job of nothing, which is over."""
        return cls(state=JobState.DONE)

    @property
    def is_superseded(self) -> bool:
        """Whether nothing of it may appear any more."""
        return self.state is JobState.SUPERSEDED

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in (JobState.SUPERSEDED, JobState.DONE)

    @property
    def is_ending(self) -> bool:
        """Whether what goes on should end early."""
        return self.state in (JobState.STOPPING, JobState.SUPERSEDED)

    def start(self) -> bool:
        """Takes its turn; False where it has had one, or nobody waits for it any more."""
        if self.has_begun or self.is_over:
            return False
        self.has_begun = True
        if self.state is JobState.WAITING:
            self.state = JobState.RUNNING
        return True

    def stop(self) -> None:
        """Ends early what goes on; what is finished by then is kept."""
        if not self.is_over:
            self.state = JobState.STOPPING
            self._end_early()

    def go_on(self) -> None:
        """Says that what was asked to stop has stopped: what comes next can be stopped by itself."""
        if self.state is JobState.STOPPING:
            self.state = JobState.RUNNING if self.has_begun else JobState.WAITING

    def supersede(self) -> None:
        """Ends all of it."""
        was_over, self.state = self.is_over, JobState.SUPERSEDED
        if not was_over and self.has_begun:
            self._end_early()

    def finish(self) -> None:
        """Says that it has ended."""
        if not self.is_superseded:
            self.state = JobState.DONE

    def _end_early(self) -> None:
        if self.on_stop is not None:
            self.on_stop()


@dataclass(eq=False)
class FilesJob(Job):
    """A run with files of its own, which stay until it has ended, and then while they are looked at.

    Attributes:
        folder: Where its files lie, which nobody can guess.
        payload: What was uploaded, in its present place. Everything in it is untrusted.
    """

    folder: Path
    payload: Any = None
    _uploaded: Any = None
    _kept: float = field(default_factory=monotonic)

    @classmethod
    def begin(cls, payload: Any = None) -> FilesJob:
        """A job that may have to wait long for its turn: its files stay until then, and until `finish`."""
        folder = private_folder()
        job = cls(folder, claim_uploads(payload, folder), _uploaded=payload)
        hold(job, folder)
        return job

    def supersede(self) -> None:
        """Ends all of it. The files of a job that has not begun can be uploaded again as they are."""
        never_began = not self.is_over and not self.has_begun
        super().supersede()
        if never_began:
            if self._uploaded is not None:
                unclaim(self.payload, self._uploaded)
            release(self)

    def finish(self) -> None:
        """Says that it has ended: from now on its files stay only while they are looked at."""
        super().finish()
        release(self)

    def keep(self) -> None:
        """Keeps its files while they are in use."""
        if monotonic() - self._kept > _KEEP_EVERY:
            self._kept = monotonic()
            keep_alive(self.folder)
