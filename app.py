"""Opens the app with the embedded checkpoints: `python app.py`, also the entry point of the Space."""

from __future__ import annotations

import logging
import os
import signal
import sys
from importlib import import_module

from dermadeit.errors import DermaDeiTError
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.zoo import ModelZoo
from dermadeit.models.specs import OURS
from dermadeit.tasks import TASKS
from dermadeit.views.application import build_app, launch_options
from dermadeit.views.page.uploads import private_cache


def main() -> int:
    """Loads the predictors and serves the app until it is interrupted; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Its lines on requests that only go to this machine would drown the app's own.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        predictors: dict[str, Predictor] = {key: load_predictor(key) for key in TASKS}
    except DermaDeiTError as error:
        sys.stderr.write(f"{error.user_message}\n")
        return 2
    if os.environ.get("SPACES_ZERO_GPU"):
        declare_gpu_function()
    # A stopped Space or container must leave no photo behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with private_cache():
        zoo = ModelZoo(loaded={(key, OURS): predictor for key, predictor in predictors.items()})
        build_app(predictors, zoo).launch(**launch_options(predictors))
    return 0


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
    sys.exit(main())
