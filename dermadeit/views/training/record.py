"""What a checkpoint's own files say about how it came about."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.files import read_json_if_there
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, CONFIG_FILE, TRAINING_FILE
from dermadeit.models.specs import COMPARED_MODELS, MODEL_SPECS

_CONFIGURATION_SOURCE = CHECKPOINT_ROOT.parents[1] / "train" / "configuration.py"

_NOT_A_SETTING = frozenset({"task", "model", "output", "data", "teacher_cache"})
"""Fields that say which training it is and where its files are, not how it goes."""


@dataclass(frozen=True)
class TrainingRecord:
    """One checkpoint's record.

    Attributes:
        task: Key of its task.
        model: Key of `MODEL_SPECS`.
        config: Content of its `config.json`.
        training: Content of its `training.json`; empty for a checkpoint that came without.
    """

    task: str
    model: str
    config: Mapping[str, Any]
    training: Mapping[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Hash of its weights, by its configuration."""
        return str(self.config.get("dermadeit", {}).get("weights_sha256", ""))

    @property
    def settings(self) -> dict[str, Any]:
        """Name to value of every setting that was recorded."""
        configuration = self.training.get("configuration", {})
        return {name: value for name, value in configuration.items() if name not in _NOT_A_SETTING}


def models_with_record(root: Path = CHECKPOINT_ROOT) -> tuple[str, ...]:
    """Keys of the models that have a checkpoint of any task, in the order in which models are compared."""
    found = {path.parent.name for path in root.glob(f"*/*/{CONFIG_FILE}")}
    order = [*COMPARED_MODELS, *sorted(MODEL_SPECS.keys() - set(COMPARED_MODELS))]
    return tuple(name for name in order if name in found)


def read_record(task: str, model: str, root: Path = CHECKPOINT_ROOT) -> TrainingRecord | None:
    """The record of a checkpoint, or None where there is no checkpoint.

    Raises:
        OSError: A file can't be read.
        ValueError: A file is not JSON.
    """
    folder = root / task / model
    config = read_json_if_there(folder / CONFIG_FILE)
    return TrainingRecord(task, model, config, read_json_if_there(folder / TRAINING_FILE)) if config else None


def default_settings(source: Path = _CONFIGURATION_SOURCE) -> dict[str, Any]:
    """Name to default of every setting of `TrainingConfiguration`; empty where there is no training code.

    Read from the source, since the library must not import the training programs.
    """
    if not source.is_file():
        return {}
    module = ast.parse(source.read_text(encoding="utf-8"))
    [definition] = [
        node
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingConfiguration"
    ]
    return {
        field.target.id: ast.literal_eval(field.value)
        for field in definition.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None
    }
