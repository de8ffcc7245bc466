"""What `calibrate` writes beside the weights: numbers in `calibration.json`, arrays in `trust.safetensors`.

Both name the weights that they were fitted for, and are refused beside any others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dermadeit.errors import CheckpointError, ErrorCode, TaskError
from dermadeit.files import read_json, write_atomically, write_json
from dermadeit.tasks import Task, readable_tasks
from dermadeit.trust.calibration import (
    Calibration,
    CalibrationsValues,
    calibrations_to_dict,
    read_calibrations,
)
from dermadeit.trust.gating import Gates, OutOfDistribution, SkinDetector
from dermadeit.trust.neighbours import NeighbourIndex
from dermadeit.trust.patient_context import (
    PatientContext,
    PatientContextValues,
    context_to_dict,
    read_context,
)

CALIBRATION_FILE = "calibration.json"
ARRAYS_FILE = "trust.safetensors"
CALIBRATE_COMMAND = "python -m dermadeit calibrate"

_FORMAT = 2
_FORMATS_READ = (1, 2)
_AGAIN = f"Run “{CALIBRATE_COMMAND}” for it again, or delete {CALIBRATION_FILE} to use it uncalibrated."


class CalibrationFile(CalibrationsValues):
    """`calibration.json`, the numbers of what was fitted for a checkpoint.

    Attributes:
        format: Version of the file's format.
        gates: As `gating.Gates.to_dict` gives them.
        report: `gates`, how many photos of each kind they withhold or warn of, and `dermadeit_version`.
        patient_context: What was fitted for age and sex; missing where nothing was.
    """

    format: int
    gates: dict[str, Any]
    report: dict[str, Any]
    patient_context: NotRequired[PatientContextValues]


@dataclass(frozen=True, eq=False)
class Trust:
    """Everything that was fitted for one checkpoint after its training.

    Attributes:
        calibrations: Key of each task that the network answers to its probabilities, operating points and
            conformal sets.
        gates: When an answer is withheld or gets a warning.
        out_of_distribution: How strange an image is.
        neighbours: The training images, to find similar ones; None where they were not indexed.
        skin: Whether an image shows skin at all; None in files of version 0.1.
        report: For people: `gates`, how many photos of each kind they withhold or warn of;
            `without_patient_context`, why there are no answers with age and sex; and `dermadeit_version`.
        patient_context: Answers with age and sex; None where they were not fitted.
    """

    calibrations: Mapping[str, Calibration]
    gates: Gates
    out_of_distribution: OutOfDistribution
    neighbours: NeighbourIndex | None
    skin: SkinDetector | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    patient_context: PatientContext | None = None


def write_trust(folder: Path, trust: Trust) -> None:
    """Writes both files. Killed at any moment, it leaves the new ones, or none that are read."""
    remove_trust(folder)
    arrays = {
        f"{part}.{name}": np.ascontiguousarray(array)
        for part, source in (
            ("ood", trust.out_of_distribution),
            ("neighbours", trust.neighbours),
            ("skin", trust.skin),
        )
        if source is not None
        for name, array in source.to_arrays().items()
    }
    calibrations = calibrations_to_dict(trust.calibrations)
    metadata = {"weights_sha256": calibrations["weights_sha256"]}
    write_atomically(folder / ARRAYS_FILE, lambda partial: save_file(arrays, partial, metadata))
    content: CalibrationFile = {
        "format": _FORMAT,
        **calibrations,
        "gates": trust.gates.to_dict(),
        "report": dict(trust.report),
    }
    if trust.patient_context is not None:
        content["patient_context"] = context_to_dict(trust.patient_context)
    write_json(folder / CALIBRATION_FILE, content)


def remove_trust(folder: Path) -> None:
    """Deletes both files where they are, the one that is read first going first."""
    (folder / CALIBRATION_FILE).unlink(missing_ok=True)
    (folder / ARRAYS_FILE).unlink(missing_ok=True)


def read_trust(folder: Path, network: Task, weights_sha256: str) -> Trust | None:
    """Reads what belongs to a checkpoint.

    Args:
        folder: The checkpoint.
        network: The task whose classes are the network's own.
        weights_sha256: Hex digest of its weights.

    Returns:
        None where it was never calibrated.

    Raises:
        CheckpointError: The files are damaged, or of other weights, another task or another version.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    values = _read_json(path)
    if values.get("format") not in _FORMATS_READ:
        raise CheckpointError(
            f"The {path.name} of the checkpoint “{folder.name}” has the format {values.get('format')}; this "
            f"version reads {' and '.join(map(str, _FORMATS_READ))}. {_AGAIN}"
        )
    try:
        calibrations = read_calibrations(values)
        context = values.get("patient_context") and read_context(values["patient_context"], values)
        gates = Gates.from_dict(values["gates"] or {})
        report = dict(values["report"])
        fitted_for = {calibration.weights_sha256 for calibration in calibrations.values()}
    except (KeyError, TypeError, ValueError, AttributeError, TaskError) as error:
        raise _damaged(path) from error
    _check_tasks(path, calibrations, network)
    arrays, arrays_sha256 = _read_arrays(folder / ARRAYS_FILE)
    if {*fitted_for, arrays_sha256} != {weights_sha256}:
        raise CheckpointError(
            f"The calibration of the checkpoint “{folder.name}” was made for other weights. {_AGAIN}",
            code=ErrorCode.WRONG_HASH,
        )
    index, skin = _part(arrays, "neighbours."), _part(arrays, "skin.")
    return Trust(
        calibrations,
        gates,
        OutOfDistribution.from_arrays(_part(arrays, "ood.")),
        NeighbourIndex.from_arrays(index) if index else None,
        SkinDetector.from_arrays(skin) if skin else None,
        report,
        context or None,
    )


def _check_tasks(path: Path, calibrations: Mapping[str, Calibration], network: Task) -> None:
    """Raises `CheckpointError` unless the network answers each task that was fitted, and its own is among them."""
    known = {task.key: task for task in readable_tasks(network)}
    fits = network.key in calibrations and all(
        key in known and (calibration.classes, calibration.network) == (known[key].classes, network.classes)
        for key, calibration in calibrations.items()
    )
    if not fits:
        raise CheckpointError(
            f"The {path.name} of the checkpoint “{path.parent.name}” is for the task "
            f"“{', '.join(calibrations)}”, not “{network.key}”. {_AGAIN}",
            code=ErrorCode.WRONG_TASK,
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(values, dict):
        raise _damaged(path)
    return values


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (  # noqa: SIM118
                file.metadata() or {}
            ).get("weights_sha256")
    # NumPy lacks some of the types that safetensors has.
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"The {path.name} of the checkpoint “{path.parent.name}” is missing or damaged. {_AGAIN}",
        code=ErrorCode.DAMAGED_CHECKPOINT,
    )
