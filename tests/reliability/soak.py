"""Mixed use for a long time: memory, open files, temporary files and threads of the app stay flat.

make soak                       30 minutes, and the figures for docs/reliability.md
make soak MINUTES=2             less
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence

import httpx
import numpy as np
import psutil
from figures import write_figures
from load import make_photos, memory_of
from odd_files import predictions_table
from odd_photos import PHOTOS, quietly
from odd_sets import in_class_folders, zipped
from running_app import PATIENCE_S, RunningApp, running_app

SAMPLE_EVERY_S = 15


def measure(app: RunningApp) -> dict[str, float]:
    """What must not grow."""
    process = psutil.Process(app.process.pid)
    return {
        "memory_mb": memory_of(app),
        "open_files": process.num_fds(),
        "threads": process.num_threads(),
        "files_in_cache": len(app.kept()),
        "cache_mb": sum(path.stat().st_size for path in app.kept()) / 1e6,
    }


def use(app: RunningApp, minutes: float) -> tuple[int, list[dict[str, float]]]:
    """Uses every endpoint in turn, with good and bad files; the number of calls, and what was measured."""
    good, bad = make_photos(20), [case for case in PHOTOS if case.code]
    samples, start = [], time.monotonic()
    next_sample = start
    for calls in itertools.count():
        now = time.monotonic()
        if now >= next_sample:
            samples.append({"minute": (now - start) / 60, **measure(app)})
            next_sample = now + SAMPLE_EVERY_S
        if now - start > 60 * minutes:
            samples.append({"minute": (now - start) / 60, **measure(app)})
            return calls, samples
        photo = good[calls % len(good)]
        match calls % 8:
            case 0 | 1:
                assert app.predict(photo)["status"] == "ok"
            case 2:
                odd = bad[calls % len(bad)]
                assert app.predict(quietly(odd.make), odd.file)["error"]["code"] == odd.code
            case 3:
                assert app.call("explain", app.upload(photo), "binary", "")[0] == "complete"
            case 4:
                archive = zipped(in_class_folders())
                event, answer = app.call(
                    "evaluate", [app.upload(archive, "set.zip")], "binary", ["dermadeit"], 1
                )
                assert event == "complete", answer
            case 5:
                assert app.call("report", app.upload(photo), "binary")[0] == "complete"
            case 6:
                table = app.upload(predictions_table(count=40), "predictions.csv")
                event, answer = app.call("evaluate", [table], "binary")
                assert event in ("complete", "error"), answer
            case 7:
                assert httpx.get(app.url, timeout=PATIENCE_S).status_code == 200
    raise AssertionError("itertools.count ends")


def growth(samples: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Of each measure its mean in the second and in the last quarter: the first quarter warms up."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    return {
        name: {
            "second quarter": float(np.mean([sample[name] for sample in early])),
            "last quarter": float(np.mean([sample[name] for sample in late])),
            "most": max(sample[name] for sample in samples),
        }
        for name in samples[0]
        if name != "minute"
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Uses the app and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args(arguments)
    with running_app() as app:
        calls, samples = use(app, options.minutes)
        content = {"minutes": options.minutes, "calls": calls, "growth": growth(samples), "samples": samples}
    write_figures("soak", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
