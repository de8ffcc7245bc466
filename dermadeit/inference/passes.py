"""Who waits for a network is answered together, each with its own answer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np

from dermadeit.models.runtimes.runtime import Runtime, ViewOutputs


class _Waiting:
    """One request: N images of the same number of views, and later their outputs or why there are none."""

    def __init__(self, pixels: np.ndarray, views: int) -> None:
        self.pixels = pixels
        self.views = views
        self.outputs: list[ViewOutputs] | None = None
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.outputs is not None or self.error is not None


class PassQueue:
    """The queue in front of one network. Whoever gets the network next takes the oldest requests along.

    No thread of its own and no waiting for company: a photo alone is answered at once. A large request goes
    through in pieces, so that a single photo waits for one piece of a batch at most.

    Args:
        runtime: What runs the network.
        lock: Held during every pass.
    """

    def __init__(self, runtime: Runtime, lock: AbstractContextManager) -> None:
        self._runtime = runtime
        self._lock = lock
        self._waiting: deque[_Waiting] = deque()
        self._changing = threading.Lock()

    def submit(self, pixels: Sequence[np.ndarray], views: int) -> list[ViewOutputs]:
        """Waits for the network and gives what it says of these images.

        Args:
            pixels: N images, uint8 [3, S, S]; N may be 0.
            views: How many dihedral views of each, 1 to 8.
        """
        if not pixels:
            return []
        step = max(1, self._runtime.views_at_once // views)
        outputs = []
        for start in range(0, len(pixels), step):
            outputs += self._submit_piece(_Waiting(np.stack(pixels[start : start + step]), views))
        return outputs

    def _submit_piece(self, mine: _Waiting) -> list[ViewOutputs]:
        with self._changing:
            self._waiting.append(mine)
        while not mine.answered:
            with self._lock:
                # Somebody may have taken it along meanwhile.
                if not mine.answered:
                    self._answer(self._take_oldest())
        if mine.error is not None:
            raise mine.error
        assert mine.outputs is not None, "it is answered"
        return mine.outputs

    def _take_oldest(self) -> list[_Waiting]:
        taken, views = [], 0
        with self._changing:
            while self._waiting:
                views += len(self._waiting[0].pixels) * self._waiting[0].views
                if taken and views > self._runtime.views_at_once:
                    break
                taken.append(self._waiting.popleft())
        return taken

    def _answer(self, requests: Sequence[_Waiting]) -> None:
        try:
            pixels = np.concatenate([request.pixels for request in requests])
            counts = [request.views for request in requests for _ in request.pixels]
            outputs = iter(self._runtime.run(pixels, counts))
            for request in requests:
                request.outputs = [next(outputs) for _ in request.pixels]
        except Exception as error:
            if len(requests) == 1:
                requests[0].error = error
                return
            # One of them is to blame; the others have their answer.
            for request in requests:
                request.outputs = None
                self._answer([request])
        except BaseException:
            # Whoever is interrupted leaves the others as they were.
            with self._changing:
                self._waiting.extendleft(request for request in reversed(requests) if not request.answered)
            raise
