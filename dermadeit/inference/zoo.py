"""The models that are compared, each with its checkpoint of a task, or with the reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dermadeit.errors import CheckpointError, ModelError
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, find_checkpoint
from dermadeit.models.specs import COMPARED_MODELS, get_spec


@dataclass(frozen=True)
class ZooEntry:
    """One model for one task.

    Attributes:
        name: Key of `MODEL_SPECS`.
        title: Name shown to people.
        missing: Why it can't be used, with the command that makes it; empty where it can.
    """

    name: str
    title: str
    missing: str

    @property
    def available(self) -> bool:
        """Whether the zoo can load it."""
        return not self.missing


class ModelZoo:
    """Every compared model that has a checkpoint, loaded when first asked for. Safe to share between threads.

    Args:
        root: Folder that holds the checkpoints as `<task>/<model>/`.
        loaded: Predictors that are there already, by task and model.
    """

    def __init__(
        self,
        root: Path = CHECKPOINT_ROOT,
        loaded: Mapping[tuple[str, str], Predictor] | None = None,
    ) -> None:
        self._root = root
        self._loaded = dict(loaded or {})
        self._lock = threading.Lock()

    def entries(self, task: str) -> tuple[ZooEntry, ...]:
        """All compared models for a task, those without a checkpoint too; loads nothing."""
        return tuple(
            ZooEntry(name, get_spec(name).title, self._missing(task, name)) for name in COMPARED_MODELS
        )

    def predictor(self, task: str, model: str) -> Predictor:
        """The predictor of a model, always the same one.

        Raises:
            DermaDeiTError: There is no such task, model or checkpoint, or it can't be used.
        """
        with self._lock:
            # Elsewhere a model may be named by its folder. These names come from strangers.
            if model not in (*COMPARED_MODELS, *(name for _, name in self._loaded)):
                raise ModelError(f"There is no model “{model}”. Choose one of {', '.join(COMPARED_MODELS)}.")
            if (task, model) not in self._loaded:
                self._loaded[task, model] = load_predictor(task, model, root=self._root)
            return self._loaded[task, model]

    def _missing(self, task: str, name: str) -> str:
        if (task, name) in self._loaded:
            return ""
        try:
            find_checkpoint(task, name, self._root)
        except CheckpointError as error:
            return error.user_message
        return ""
