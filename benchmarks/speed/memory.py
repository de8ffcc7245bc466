"""How much memory a process holds while it reads photos, and whether it grows.

    python -m benchmarks.speed.memory --photos 5000

It is a process of its own, so that it has what `predict` imports and nothing else. Written is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.speed.photos import make_photos
from benchmarks.speed.row import OURS
from dermadeit.inference.zoo import load_answering
from dermadeit.reporting.format import counted

_DIFFERENT = 16
_SAMPLES = 100


def measure_memory(photos: int, checkpoint: Path | None) -> dict[str, Any]:
    """Megabytes (10^6 bytes) of this process, resident, while it reads photos one view each.

    Args:
        photos: How many.
        checkpoint: The model in place of the embedded one.
    """
    predictor = next(iter(load_answering(checkpoint, "auto").values()))
    process, sizes = psutil.Process(), []
    step = max(1, photos // _SAMPLES)
    sources = islice(cycle(make_photos(_DIFFERENT)), photos)
    for number, _ in enumerate(predictor.predict_iter(sources, 1), start=1):
        if number % step == 0:
            sizes.append(process.memory_info().rss / 1e6)
    return {
        "photos": photos,
        "after_a_tenth": sizes[len(sizes) // 10],
        "at_the_end": sizes[-1],
        "largest": max(sizes),
    }


def measure_in_another_process(photos: int, checkpoint: Path | None) -> list[dict[str, Any]]:
    """The row of the table."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", "--photos", str(photos)]
    own = ["--checkpoint", str(checkpoint)] if checkpoint else []
    done = subprocess.run([*command, *own], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    found = json.loads(done.stdout)
    growth = {
        "title": "of what it was after a tenth of the photos",
        "median": found["at_the_end"] / found["after_a_tenth"],
        "asked": "0.95 to 1.05",
    }
    return [
        {
            "title": f"Memory at the most, while {counted(photos, 'photo')} are read",
            "unit": "MB",
            "asked": "at most 1,200 MB",
            "rounds": 1,
            "arms": {OURS: {"median": found["largest"]}},
            "ratios": [growth],
            "memory": found,
        }
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and writes JSON to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1000, help="how many are read")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder in place of the embedded one")
    options = parser.parse_args(arguments)
    sys.stdout.write(json.dumps(measure_memory(options.photos, options.checkpoint)) + "\n")


if __name__ == "__main__":
    main()
