"""Opens the app: `python app.py`, also the entry point of the Space.

It reads photos with the embedded checkpoints, or with one of your own: `python app.py --checkpoint FOLDER`, or the
variable `DERMADEIT_CHECKPOINT`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dermadeit.errors import DermaDeiTError
from dermadeit.inference.zoo import ModelZoo, load_answering
from dermadeit.views.application import build_app, launch_options
from dermadeit.views.page.uploads import private_cache

CHECKPOINT_VARIABLE = "DERMADEIT_CHECKPOINT"
"""Environment variable that names a checkpoint folder, for a Space, which has no command line."""


def main(arguments: Sequence[str] = ()) -> int:
    """Loads the predictors and serves the app until it is interrupted; returns the exit code."""
    folder = read_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its lines on requests that only go to this machine would drown the app's own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        predictors = load_answering(folder)
    except DermaDeiTError as error:
        sys.stderr.write(f"{error.user_message}\n")
        return 2
    if os.environ.get("SPACES_ZERO_GPU"):
        declare_gpu_function()
    # A stopped Space or container must leave no photo behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with private_cache():
        loaded = {(key, answering.checkpoint.model): answering for key, answering in predictors.items()}
        zoo = ModelZoo(loaded=loaded)
        build_app(predictors, zoo).launch(**launch_options(predictors))
    return 0


def read_arguments(arguments: Sequence[str]) -> Path | None:
    """The checkpoint folder that the command line or the environment names; None for the embedded ones."""
    parser = argparse.ArgumentParser(prog="python app.py", description="Opens the app.")
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        default=os.environ.get(CHECKPOINT_VARIABLE),
        help="a checkpoint of your own that reads the photos, as train/distill.py writes it (default: the "
        f"variable {CHECKPOINT_VARIABLE}, else the embedded checkpoints)",
    )
    named = parser.parse_args(arguments).checkpoint
    return Path(named) if named else None


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
