"""The one place that imports OpenVINO."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_CONVERTER = "openvino.tools.ovc"

_lock = threading.Lock()


def has_openvino() -> bool:
    """Whether it is installed."""
    return find_spec("openvino") is not None


def openvino() -> ModuleType:
    """OpenVINO without its model converter, which reports every import to a server of its makers.

    A name that is None in `sys.modules` can't be imported (Python says so); OpenVINO then does without it.
    """
    with _lock:
        if "openvino" not in sys.modules and _CONVERTER not in sys.modules:
            sys.modules[_CONVERTER] = None  # type: ignore[assignment]
            try:
                return import_module("openvino")
            finally:
                del sys.modules[_CONVERTER]
    return import_module("openvino")
