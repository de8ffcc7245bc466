"""What the figures hold for: processor, memory and versions. Neither names nor paths of the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from dermadeit.models.runtimes.openvino_import import has_openvino, openvino

PACKAGES = ("torch", "timm", "transformers", "grad-cam", "openvino", "pillow", "numpy", "gradio")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions, JSON-ready, and how busy it is by others."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "threads_of_torch": torch.get_num_threads(),
        "bfloat16": has_openvino() and "BF16" in _openvino_abilities(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES if name != "openvino" or has_openvino()},
    }


def processor_seconds() -> tuple[float, float]:
    """Seconds that all cores have worked since the machine's start, and what of it this process did."""
    busy = psutil.cpu_times()
    own = os.times()
    return busy.user + busy.system, own.user + own.system + own.children_user + own.children_system


def _openvino_abilities() -> list[str]:
    return openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    if found.is_file():
        for line in found.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
