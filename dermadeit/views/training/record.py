"""What a checkpoint's own files say about how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.files import read_json_if_there
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, CONFIG_FILE, TRAINING_FILE
from dermadeit.models.specs import COMPARED_MODELS, MODEL_SPECS
from dermadeit.tasks import DIAGNOSIS, TASKS


@dataclass(frozen=True)
class TrainingRecord:
    """One checkpoint's record.

    Attributes:
        task: Key of the task that it was trained for.
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
    def settings(self) -> Mapping[str, Any]:
        """Name to value of every setting that was recorded."""
        return self.training.get("configuration", {})

    @property
    def changed_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Name to `value` and `default` of the settings that were not the defaults when it was trained.

        Of a record that does not say so (0.1), all settings, without defaults.
        """
        values = {name: {"value": value} for name, value in self.settings.items()}
        return self.training.get("changed_settings", values)


def models_with_record(root: Path = CHECKPOINT_ROOT) -> tuple[str, ...]:
    """Keys of the models that have a checkpoint, in the order in which models are compared."""
    found = {path.parent.name for depth in ("*", "*/*") for path in root.glob(f"{depth}/{CONFIG_FILE}")}
    order = [*COMPARED_MODELS, *sorted(MODEL_SPECS.keys() - set(COMPARED_MODELS))]
    return tuple(name for name in order if name in found)


def read_records(model: str, root: Path = CHECKPOINT_ROOT) -> list[TrainingRecord]:
    """The records of a model's networks: of its one network, or of one for each task; empty where there is none.

    Raises:
        OSError: A file can't be read.
        ValueError: A file is not JSON.
    """
    shared = _read_record(DIAGNOSIS.key, root / model)
    of_tasks = [shared] if shared else [_read_record(task, root / task / model) for task in TASKS]
    return [record for record in of_tasks if record]


def _read_record(task: str, folder: Path) -> TrainingRecord | None:
    config = read_json_if_there(folder / CONFIG_FILE)
    if not config:
        return None
    return TrainingRecord(task, folder.name, config, read_json_if_there(folder / TRAINING_FILE))
