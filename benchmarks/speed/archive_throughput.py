"""How many photos a second `predict-archive` reads on this machine, and what a million cost at a price an hour.

Each combination reads a small and a large folder of synthetic photos. The line through both times gives the
seconds until the workers have started, and the photos a second after that. The cost is arithmetic from the latter.

Run: ``python -m benchmarks.speed.archive_throughput --workers 1 2 --price 0.10 --output throughput.json``
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.speed.machine import describe_machine
from dermadeit.data.synthetic import write_dataset
from dermadeit.files import write_json
from dermadeit.inference.archive import ArchiveRequest, predict_archive
from dermadeit.models.runtimes.choice import RUNTIMES

PICTURE_SIZE = (600, 450)
"""Of the photos of HAM10000."""

SMALL_SHARE = 0.25

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, logs a table and writes the file."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        counts = (round(options.photos * SMALL_SHARE), options.photos)
        sources = [_write_photos(Path(folder) / str(count), count) for count in counts]
        for workers, views, runtime in product(options.workers, options.views, options.runtime):
            request = ArchiveRequest(options.task, options.model, runtime, views)
            times = [_time(source, request, workers, options.gpus) for source in sources]
            row = {"workers": workers, "views": views, "runtime": runtime}
            rows.append(row | summarise(counts, times, options.price))
            logger.info("%s", ", ".join(f"{key} {value}" for key, value in rows[-1].items()))
    write_json(options.output, {"conditions": _describe(options), "runs": rows})


def summarise(counts: Sequence[int], seconds: Sequence[float], price: float) -> dict[str, Any]:
    """What two runs say of any number of photos.

    Args:
        counts: Photos of the small and the large run.
        seconds: What each took.
        price: Of an hour of this machine.

    Returns:
        Photos a second once the workers run, seconds until then, and hours and cost of a million photos.
    """
    rate = (counts[1] - counts[0]) / (seconds[1] - seconds[0])
    hours = 1e6 / rate / 3600
    return {
        "photos_per_second": round(rate, 2),
        "start_seconds": round(seconds[0] - counts[0] / rate, 1),
        "hours_per_million": round(hours, 1),
        "cost_per_million": round(hours * price, 2),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures predict-archive on this machine.")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--price", type=float, required=True, help="of an hour of this machine")
    parser.add_argument("--photos", type=int, default=2000, help="photos of the large run")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--views", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=["torch"])
    parser.add_argument("--task", default="binary")
    parser.add_argument("--model", default="dermadeit")
    parser.add_argument("--gpus", action="store_true", help="give every worker a GPU")
    return parser.parse_args(arguments)


def _write_photos(folder: Path, count: int) -> Path:
    write_dataset(folder, lesions=count, seed=0, images_per_lesion=(1, 1), size=PICTURE_SIZE)
    return folder


def _time(source: Path, request: ArchiveRequest, workers: int, gpus: bool) -> float:
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        predict_archive(str(source), output, request, workers=workers, gpus=gpus)
        return time.perf_counter() - start


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "photos": options.photos,
        "picture_size": list(PICTURE_SIZE),
        "task": options.task,
        "model": options.model,
        "gpus": options.gpus,
        "price_per_hour": options.price,
        **describe_machine(),
    }


if __name__ == "__main__":
    main()
