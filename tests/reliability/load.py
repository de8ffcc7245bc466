"""Many visitors at once: every answer is that of its own photo, the queue is bounded, and memory stays flat.

make load                       1,000 requests of 32 visitors, and the figures for docs/reliability.md
make load REQUESTS=100          fewer
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
from encoded_images import encoded
from figures import write_figures
from odd_sets import zipped
from PIL import Image, ImageDraw
from running_app import RunningApp, running_app

PHOTOS = 50
VISITORS = 32
BATCH_EVERY = 50
"""One in so many requests is a batch of three photos."""

FLOOD = 200
"""Requests at once, more than may wait."""


def make_photos(count: int = PHOTOS) -> list[bytes]:
    """Drawn lesions, each of a colour, a place and a size of its own."""
    found = []
    for number in range(count):
        chance = np.random.default_rng(number)
        picture = Image.new("RGB", (320, 240), tuple(chance.integers(150, 240, 3).tolist()))
        x, y, radius = chance.integers(90, 230), chance.integers(80, 160), chance.integers(20, 70)
        box = [int(x - radius), int(y - radius), int(x + radius), int(y + radius)]
        ImageDraw.Draw(picture).ellipse(box, fill=tuple(chance.integers(20, 120, 3).tolist()))
        noise = chance.integers(-12, 13, (240, 320, 3))
        pixels = np.clip(np.asarray(picture).astype(int) + noise, 0, 255).astype(np.uint8)
        found.append(encoded(Image.fromarray(pixels), "JPEG", quality=90))
    return found


def memory_of(app: RunningApp) -> float:
    """Resident memory of the app and what it has started, in MB."""
    process = psutil.Process(app.process.pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6


def serve_visitors(app: RunningApp, requests: int, visitors: int = VISITORS, photos: int = PHOTOS) -> dict:
    """Serves them; raises `AssertionError` where an answer is not that of its photo."""
    encoded_photos = make_photos(photos)
    expected = [app.predict(photo) for photo in encoded_photos]
    assert len({str(record["probabilities"]) for record in expected}) > photos // 2, (
        "the answers tell them apart"
    )
    before, seconds, wrong, lock = memory_of(app), [], [], threading.Lock()

    def ask(number: int) -> None:
        chosen = (number * 7) % photos
        start = time.monotonic()
        if number % BATCH_EVERY == BATCH_EVERY - 1:
            fault = _ask_batch(app, encoded_photos, chosen)
        else:
            record = app.predict(encoded_photos[chosen], f"{number}.jpg")
            fault = "" if _same(record, expected[chosen]) else f"{number}: {record.get('error')}"
        with lock:
            seconds.append(time.monotonic() - start)
            if fault:
                wrong.append(fault)

    begin = time.monotonic()
    with ThreadPoolExecutor(visitors) as pool:
        halves = requests // 2
        list(pool.map(ask, range(halves)))
        half = memory_of(app)
        list(pool.map(ask, range(halves, requests)))
    took = time.monotonic() - begin
    assert wrong == [], wrong[:5]
    return {
        "requests": requests,
        "visitors": visitors,
        "photos": photos,
        "wrong_answers": len(wrong),
        "requests_per_second": requests / took,
        "median_s": float(np.median(seconds)),
        "p95_s": float(np.percentile(seconds, 95)),
        "slowest_s": max(seconds),
        "memory_mb": {"before": before, "half way": half, "after": memory_of(app)},
    }


def _same(record: dict, expected: dict) -> bool:
    return (
        record["sha256"] == expected["sha256"]
        and record["label"] == expected["label"]
        and all(
            abs(record["probabilities"][key] - value) < 2e-3
            for key, value in expected["probabilities"].items()
        )
    )


def _ask_batch(app: RunningApp, photos: Sequence[bytes], chosen: int) -> str:
    indices = [(chosen + step) % len(photos) for step in range(3)]
    folders = ("nevus", "nevus", "others")
    archive = zipped(
        {f"{folder}/{index}.jpg": photos[index] for folder, index in zip(folders, indices, strict=True)}
    )
    event, answer = app.call("evaluate", [app.upload(archive, "set.zip")], "binary", ["dermadeit"], 1)
    if event != "complete":
        return f"batch: {answer}"
    figures = next(iter(answer[0]["models"].values()))
    return (
        ""
        if figures["n"] + figures["failed"] == 3 and not answer[0]["failures"]
        else f"batch: {answer[0]['failures']}"
    )


def flood(app: RunningApp, requests: int = FLOOD) -> dict:
    """More requests at once than may wait: some are refused with a message, none is lost."""
    photo = make_photos(1)[0]
    record = app.upload(photo)
    outcomes: dict[str, int] = {"answered": 0, "told to come again": 0}
    messages, lock = set(), threading.Lock()

    def ask(_: int) -> None:
        try:
            event, answer = app.call("predict", record, "binary")
        except httpx.HTTPStatusError as error:
            event, answer = "error", error.response.text
        with lock:
            if event == "complete":
                outcomes["answered"] += 1
            else:
                outcomes["told to come again"] += 1
                messages.add(str(answer)[:200])

    with ThreadPoolExecutor(requests) as pool:
        list(pool.map(ask, range(requests)))
    assert sum(outcomes.values()) == requests
    assert app.is_up()
    return {"requests": requests, **outcomes, "messages": sorted(messages)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the visitors and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args(arguments)
    with running_app() as app:
        content = serve_visitors(app, options.requests)
        content["flood"] = flood(app)
    write_figures("load", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
