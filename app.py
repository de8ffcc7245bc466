"""Opens the app: `python app.py`, also the entry point of the Space.

It reads photos with the embedded checkpoints, or with one of your own: `python app.py --checkpoint FOLDER`, or the
variable `DERMADEIT_CHECKPOINT`. The page is there before the networks are: they are built in the background, and a
photo that comes earlier waits for its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path

from dermadeit.errors import DermaDeiTError
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import ModelZoo, load_answering
from dermadeit.models.runtimes.choice import RUNTIME_VARIABLE, RUNTIMES, wanted_runtime
from dermadeit.views.application import build_app, launch_options
from dermadeit.views.page.uploads import private_cache

CHECKPOINT_VARIABLE = "DERMADEIT_CHECKPOINT"
"""Environment variable that names a checkpoint folder, for a Space, which has no command line."""


def main(arguments: Sequence[str] = ()) -> int:
    """Loads the predictors and serves the app until it is interrupted; returns the exit code."""
    folder, runtime = read_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its lines on requests that only go to this machine would drown the app's own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        runtime = wanted_runtime(runtime)
        predictors = load_answering(folder, runtime)
    except DermaDeiTError as error:
        sys.stderr.write(f"{error.user_message}\n")
        return 2
    if os.environ.get("SPACES_ZERO_GPU"):
        declare_gpu_function()
    # A stopped Space or container must leave no photo behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with private_cache():
        loaded = {(key, answering.checkpoint.model): answering for key, answering in predictors.items()}
        zoo = ModelZoo(loaded=loaded, runtime=runtime)
        threading.Thread(target=build_networks, args=[predictors.values()], daemon=True).start()
        build_app(predictors, zoo).launch(**launch_options(predictors))
    return 0


def build_networks(predictors: Iterable[Predictor]) -> None:
    """Builds what reads photos, then what draws heatmaps. A failure waits for the photo that meets it."""
    networks = {id(predictor.runtime): predictor for predictor in predictors}.values()
    for build in (Predictor.warm_up, lambda predictor: predictor.checkpoint.classifier):
        for predictor in networks:
            try:
                build(predictor)
            except Exception:
                logging.getLogger("app").exception("A network can't be built")


def read_arguments(arguments: Sequence[str]) -> tuple[Path | None, str | None]:
    """The checkpoint folder and the runtime that the command line or the environment names, None where neither."""
    parser = argparse.ArgumentParser(prog="python app.py", description="Opens the app.")
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        default=os.environ.get(CHECKPOINT_VARIABLE),
        help="a checkpoint of your own that reads the photos, as train/distill.py writes it (default: the "
        f"variable {CHECKPOINT_VARIABLE}, else the embedded checkpoints)",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what runs the networks; auto is OpenVINO where it is installed, else PyTorch (default: the variable "
        f"{RUNTIME_VARIABLE}, else auto)",
    )
    named = parser.parse_args(arguments)
    return Path(named.checkpoint) if named.checkpoint else None, named.runtime


def declare_gpu_function() -> None:
    """Meets a rule of ZeroGPU Spaces, which stop an app that declares no GPU function.

    Everything runs on the CPU: a network this small answers before a GPU would have been lent.
    """
    # A package that only Spaces have.
    spaces = import_module("spaces")

    @spaces.GPU
    def unused() -> None:
        """Declared, never called."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
