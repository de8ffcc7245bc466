"""Which runtime a checkpoint gets, and when it is built: at the first photo, or ahead of it in the background."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from dermadeit.errors import ConfigurationError
from dermadeit.models.checkpoints import Checkpoint
from dermadeit.models.runtimes.openvino_import import has_openvino
from dermadeit.models.runtimes.runtime import Runtime, ViewOutputs

RUNTIME_VARIABLE = "DERMADEIT_RUNTIME"
"""Environment variable that names the runtime of the app and of `predict`, where they are not told."""

RUNTIMES = ("auto", "torch", "openvino")
"""What may be asked for: `auto` is OpenVINO on a CPU where it is installed and knows the network, else PyTorch."""

_log = logging.getLogger(__name__)


def wanted_runtime(name: str | None = None) -> str:
    """The runtime to ask for: the one that is named, else that of the environment, else `auto`.

    Raises:
        ConfigurationError: There is no such runtime.
    """
    wanted = name or os.environ.get(RUNTIME_VARIABLE) or "auto"
    if wanted not in RUNTIMES:
        raise ConfigurationError(f"There is no runtime “{wanted}”. Choose one of {', '.join(RUNTIMES)}.")
    return wanted


class ChosenRuntime:
    """The runtime of one checkpoint, built when it is first needed. The building is safe to share between threads.

    Args:
        checkpoint: Whose network is run.
        device: Where, as torch names it.
        wanted: One of `RUNTIMES`.

    Raises:
        ConfigurationError: OpenVINO is asked for where it can't be had.
    """

    def __init__(self, checkpoint: Checkpoint, device: Any, wanted: str) -> None:
        fits = str(device) == "cpu" and checkpoint.weights is not None
        if wanted == "openvino" and not (fits and has_openvino()):
            raise ConfigurationError(
                "OpenVINO is not installed. Run “pip install openvino”, or use the runtime “torch”."
                if fits
                else "OpenVINO runs networks on the CPU only. Use the runtime “torch”."
            )
        self._checkpoint = checkpoint
        self._device = device
        self._wanted = "openvino" if wanted == "auto" and fits and has_openvino() else wanted
        self._may_fall_back = wanted == "auto"
        self._built: Runtime | None = None
        self._lock = threading.Lock()

    def get(self) -> Runtime:
        """The runtime, always the same one; the first call takes a moment, seconds for PyTorch.

        Raises:
            CheckpointError: The weights don't fit the network.
        """
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    @property
    def is_ready(self) -> bool:
        """Whether it is built."""
        return self._built is not None

    @property
    def name(self) -> str:
        """What answers; before it is built, what will."""
        built = self._built
        return built.name if built else ("torch" if self._wanted == "auto" else self._wanted)

    @property
    def views_at_once(self) -> int:
        """As `Runtime.views_at_once`."""
        return self.get().views_at_once

    def run(self, pixels: np.ndarray, views: Sequence[int]) -> list[ViewOutputs]:
        """As `Runtime.run`."""
        return self.get().run(pixels, views)

    def tokens(self, pixels: np.ndarray) -> np.ndarray:
        """As `Runtime.tokens`."""
        return self.get().tokens(pixels)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """As `Runtime.logits`."""
        return self.get().logits(pixels)

    def _build(self) -> Runtime:
        checkpoint = self._checkpoint
        if self._wanted == "openvino":
            # Here and below: whichever is not used is not imported.
            from dermadeit.models.runtimes.openvino_runtime import OpenVinoRuntime

            assert checkpoint.weights is not None, "checked above"
            try:
                return OpenVinoRuntime(checkpoint.spec, checkpoint.weights, checkpoint.preprocessing)
            except (ImportError, KeyError, RuntimeError) as error:
                if not self._may_fall_back:
                    raise ConfigurationError(
                        f"OpenVINO can't run the checkpoint “{checkpoint.folder.name}”. Use the runtime “torch”."
                    ) from error
                _log.warning("OpenVINO can't run %s, PyTorch does: %s", checkpoint.folder.name, error)
        import torch

        from dermadeit.models.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(checkpoint.classifier, checkpoint.preprocessing, torch.device(self._device))
