"""The models that are compared, each with its checkpoint of a task, or with the reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermadeit.errors import CheckpointError, ModelError
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, answered_tasks, find_checkpoint, load_checkpoint
from dermadeit.models.specs import COMPARED_MODELS, get_spec
from dermadeit.tasks import DIAGNOSIS, OWN, Task, get_task


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

    Attributes:
        tasks: What can be asked, that of the predictors that are there already first. Classes of one's own stand
            alone: no other model knows them.

    Args:
        root: Folder that holds the checkpoints, as `find_checkpoint` takes it.
        loaded: Predictors that are there already, by task and model.
        runtime: What runs the others, one of `RUNTIMES`.
    """

    def __init__(
        self,
        root: Path = CHECKPOINT_ROOT,
        loaded: Mapping[tuple[str, str], Predictor] | None = None,
        runtime: str = "torch",
    ) -> None:
        self._root = root
        self._runtime = runtime
        self._loaded = dict(loaded or {})
        answered = {task: predictor.checkpoint.task for (task, _), predictor in self._loaded.items()}
        if OWN not in answered:
            answered |= {task.key: task for name in COMPARED_MODELS for task in answered_tasks(name, root)}
        self.tasks: Sequence[Task] = tuple(answered.values())
        self._lock = threading.Lock()

    def task(self, key: str) -> Task:
        """The task called `key`; raises `TaskError` for one that can't be asked here."""
        return get_task(key, {task.key: task for task in self.tasks})

    def entries(self, task: str) -> tuple[ZooEntry, ...]:
        """All compared models for a task, those without a checkpoint too; loads nothing."""
        return tuple(
            ZooEntry(name, get_spec(name).title, self._missing(task, name)) for name in self._names(task)
        )

    def predictor(self, task: str, model: str) -> Predictor:
        """The predictor of a model, always the same one.

        Raises:
            DermaDeiTError: There is no such task, model or checkpoint, or it can't be used.
        """
        with self._lock:
            # Elsewhere a model may be named by its folder. These names come from strangers.
            if model not in (names := self._names(task)):
                raise ModelError(f"There is no model “{model}”. Choose one of {', '.join(names)}.")
            if (task, model) not in self._loaded:
                self._loaded[task, model] = self._load(task, model)
            return self._loaded[task, model]

    def _names(self, task: str) -> tuple[str, ...]:
        """The models of a task, those that are compared only because they are there already first."""
        others = () if task == OWN else COMPARED_MODELS
        loaded = (name for key, name in self._loaded if key == task and name not in others)
        return (*loaded, *others)

    def _load(self, task: str, model: str) -> Predictor:
        folder = find_checkpoint(task, model, self._root)
        for other in self._loaded.values():
            # One network in memory answers all its tasks.
            if other.checkpoint.folder == folder:
                return other.for_task(task)
        return load_predictor(task, model, root=self._root, runtime=self._runtime)

    def _missing(self, task: str, name: str) -> str:
        if (task, name) in self._loaded:
            return ""
        try:
            find_checkpoint(task, name, self._root)
        except CheckpointError as error:
            return error.user_message
        return ""


def load_answering(folder: Path | None = None, runtime: str = "torch") -> dict[str, Predictor]:
    """What answers each task of the app, in the order in which the tasks are offered.

    Args:
        folder: A checkpoint that answers its tasks in place of the embedded one. One with classes of one's own
            answers alone. None for the embedded ones.
        runtime: What runs them, one of `RUNTIMES`.

    Raises:
        DermaDeiTError: The checkpoint, or an embedded one, can't be used.
    """
    answering = {} if folder is None else _by_task(Predictor(load_checkpoint(folder), runtime=runtime))
    if OWN in answering:
        return answering
    embedded = [task.key for task in answered_tasks()]
    # Without any checkpoint, the attempt says how to make one.
    for key in embedded or [DIAGNOSIS.key]:
        if key not in answering:
            # What is there already stays, and keeps its place.
            answering |= _by_task(load_predictor(key, runtime=runtime)) | answering
    return answering


def _by_task(predictor: Predictor) -> dict[str, Predictor]:
    """One network, asked each of its tasks."""
    return {task.key: predictor.for_task(task.key) for task in predictor.checkpoint.tasks}


def tasks_of(predictors: Mapping[str, Predictor]) -> dict[str, Task]:
    """Task key to the task that is asked of each predictor."""
    return {key: predictor.checkpoint.task for key, predictor in predictors.items()}
