"""Requests that wait for a network are answered together, and each gets its own answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dermadeit.inference.passes import PassQueue
from dermadeit.models.runtimes.runtime import ViewOutputs

WAIT = 60


class _Echo:
    """Answers each image with its first pixel, once for each view."""

    name = "echo"
    views_at_once = 16

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.started, self.may_go_on = threading.Event(), threading.Event()

    def run(self, pixels: np.ndarray, views: list[int]) -> list[ViewOutputs]:
        self.started.set()
        assert self.may_go_on.wait(WAIT)
        self.passes.append(list(views))
        marks = pixels[:, 0, 0, 0]
        if 255 in marks:
            raise RuntimeError("a bad image")
        nothing = np.zeros(1)
        return [
            ViewOutputs(np.full((count, 1), mark), nothing, nothing, nothing)
            for mark, count in zip(marks, views, strict=True)
        ]


def _image(mark: int) -> np.ndarray:
    return np.full((3, 2, 2), mark, dtype=np.uint8)


class _CountedQueue(PassQueue):
    """Says when so many requests are waiting."""

    def __init__(self, runtime: _Echo, expected: int) -> None:
        super().__init__(runtime, threading.Lock())
        self.all_there = threading.Barrier(expected + 1)

    def submit_counted(self, marks: list[int], views: int) -> list[list[int]]:
        self.all_there.wait(WAIT)
        return [found.logits[:, 0].tolist() for found in self.submit([_image(mark) for mark in marks], views)]


def test_every_waiting_request_gets_its_own_answer() -> None:
    runtime = _Echo()
    asked = [([number, number + 100], 1 + number % 8) for number in range(32)]
    queue = _CountedQueue(runtime, len(asked))
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(queue.submit_counted, *request) for request in asked]
        queue.all_there.wait(WAIT)
        runtime.may_go_on.set()
        answers = [future.result(WAIT) for future in futures]
    assert answers == [[[mark] * views for mark in marks] for marks, views in asked]
    assert sum(map(len, runtime.passes)) == 64
    assert all(sum(views) <= max(runtime.views_at_once, 2 * 8) for views in runtime.passes)


class _CountedLock:
    """A lock that says how many have come to it."""

    def __init__(self) -> None:
        self._lock, self.comers = threading.Lock(), threading.Semaphore(0)

    def __enter__(self) -> None:
        self.comers.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _run_behind_a_pass(requests: list[list[int]]) -> tuple[_Echo, list[list[int] | str]]:
    """Submits requests while the network is busy; all of them wait, in this order, when it is free."""
    runtime, lock = _Echo(), _CountedLock()
    runtime.may_go_on.set()
    queue = PassQueue(runtime, lock)

    def ask(marks: list[int]) -> list[int] | str:
        try:
            return [found.logits[0, 0] for found in queue.submit([_image(mark) for mark in marks], 1)]
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        with lock:
            assert lock.comers.acquire(timeout=WAIT)
            futures = []
            for marks in requests:
                futures.append(pool.submit(ask, marks))
                assert lock.comers.acquire(timeout=WAIT)
        return runtime, [future.result(WAIT) for future in futures]


def test_who_waits_is_answered_in_one_pass() -> None:
    runtime, answers = _run_behind_a_pass([[1], [2, 3], [4]])
    assert answers == [[1], [2, 3], [4]]
    assert runtime.passes == [[1, 1, 1, 1]]


def test_a_single_photo_waits_for_one_piece_of_a_batch_only() -> None:
    runtime, answers = _run_behind_a_pass([list(range(64)), [200]])
    assert answers == [list(range(64)), [200]]
    assert [len(views) for views in runtime.passes] == [16, 1, 16, 16, 16]


def test_one_bad_request_fails_alone() -> None:
    _, answers = _run_behind_a_pass([[1], [255], [3]])
    assert answers == [[1], "a bad image", [3]]


def test_nothing_asked_is_nothing_run() -> None:
    runtime = _Echo()
    assert PassQueue(runtime, threading.Lock()).submit([], 8) == []
    assert runtime.passes == []


@pytest.mark.parametrize("views", [1, 8])
def test_a_photo_of_many_views_goes_through_even_so(views: int) -> None:
    runtime = _Echo()
    runtime.views_at_once = 4
    runtime.may_go_on.set()
    [found] = PassQueue(runtime, threading.Lock()).submit([_image(7)], views)
    assert found.logits[:, 0].tolist() == [7] * views
