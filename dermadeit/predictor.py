"""Images to predictions: decoding, batching, views, and the lock around one model on one device."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from dermadeit.checkpoints import CHECKPOINT_ROOT, Checkpoint, find_checkpoint, load_checkpoint
from dermadeit.errors import ConfigurationError, ImageError
from dermadeit.imaging import LesionImage, decode_image, sanitise_name
from dermadeit.preprocessing import DIHEDRAL_VIEWS, dihedral_views
from dermadeit.records import ItemFailure, Prediction

DEFAULT_VIEWS = DIHEDRAL_VIEWS
"""Test-time augmentation views that an answer averages, unless asked otherwise."""

BATCH_IMAGES = 16

NOT_FINITE = "The model gave no usable numbers for this image. Check the checkpoint, then report this."
"""What is said of an image for which a model gives NaN or infinity."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What a batch needs of an image; the full photos of a batch would take gigabytes."""

    tensor: torch.Tensor
    name: str
    sha256: str
    ledger: tuple[str, ...]
    warnings: tuple[str, ...]


Source = str | os.PathLike | bytes | Image.Image | LesionImage


class Predictor:
    """Reads lesion images with one checkpoint. Safe to share between threads.

    Attributes:
        checkpoint: The model and what belongs to it.
        device: Where it runs.
        lock: Held during every pass through the model; hold it to run the model yourself.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> None:
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        self.lock = threading.Lock()
        checkpoint.classifier.to(self.device)

    def predict(
        self, sources: Iterable[Source], views: int = DEFAULT_VIEWS
    ) -> list[Prediction | ItemFailure]:
        """Reads images.

        Args:
            sources: Paths, encoded bytes, PIL images or decoded images.
            views: Dihedral views whose logits are averaged, 1 to 8.

        Returns:
            One record for each source, in order. An image that can't be read is an `ItemFailure` and does not
            stop the others.

        Raises:
            ConfigurationError: `views` is out of range.
        """
        return list(self.predict_iter(sources, views))

    def predict_iter(
        self, sources: Iterable[Source], views: int = DEFAULT_VIEWS
    ) -> Iterator[Prediction | ItemFailure]:
        """Like `predict`, but yields each record as soon as its batch is done and holds one batch in memory."""
        check_views(views)
        remaining = iter(sources)
        while batch := list(islice(remaining, BATCH_IMAGES)):
            yield from self._predict_batch(batch, views)

    def _logits(self, preprocessed: Sequence[torch.Tensor], views: int) -> torch.Tensor:
        """N normalised images [3, S, S] to float32 logits of every view, [N, views, K], on the CPU."""
        # [views, N, 3, S, S] goes through the model view by view, which bounds the memory.
        with self.lock, torch.inference_mode():
            per_view = [
                self.checkpoint.classifier(view.to(self.device)).float().cpu()
                for view in dihedral_views(torch.stack(list(preprocessed)), views)
            ]
        return torch.stack(per_view, dim=1)

    def _predict_batch(self, sources: Sequence[Source], views: int) -> list[Prediction | ItemFailure]:
        prepared = [self._prepare(source) for source in sources]
        tensors = [item.tensor for item in prepared if isinstance(item, _Prepared)]
        logits = iter(self._logits(tensors, views).mean(dim=1) if tensors else ())
        return [
            self._record(item, next(logits), views) if isinstance(item, _Prepared) else item
            for item in prepared
        ]

    def _prepare(self, source: Source) -> _Prepared | ItemFailure:
        try:
            image = source if isinstance(source, LesionImage) else decode_image(source)
            return _Prepared(
                self.checkpoint.preprocessing(image.pixels),
                image.name,
                image.sha256,
                image.ledger,
                image.warnings,
            )
        except ImageError as error:
            name = os.fsdecode(source) if isinstance(source, str | os.PathLike) else None
            return self._failure(sanitise_name(name), error.sha256, error.code, error.user_message)

    def _record(self, image: _Prepared, logits: torch.Tensor, views: int) -> Prediction | ItemFailure:
        if not torch.isfinite(logits).all():
            return self._failure(
                image.name,
                image.sha256,
                "non_finite_output",
                NOT_FINITE,
            )
        classes = self.checkpoint.task.classes
        probabilities = logits.double().softmax(dim=0)
        return Prediction(
            file=image.name,
            sha256=image.sha256,
            task=self.checkpoint.task.key,
            model=self.checkpoint.model,
            label=classes[int(logits.argmax())],
            probabilities=dict(zip(classes, probabilities.tolist(), strict=True)),
            logits=dict(zip(classes, logits.tolist(), strict=True)),
            views=views,
            ledger=image.ledger,
            warnings=image.warnings,
        )

    def _failure(self, file: str, sha256: str | None, code: str, message: str) -> ItemFailure:
        return ItemFailure(
            file, sha256, self.checkpoint.task.key, self.checkpoint.model, code=code, message=message
        )


def check_views(views: int) -> None:
    """Raises `ConfigurationError` unless `views` is 1 to 8."""
    if not 1 <= views <= DIHEDRAL_VIEWS:
        raise ConfigurationError(f"{views} views were asked for; choose 1 to {DIHEDRAL_VIEWS}.")


def load_predictor(
    task: str,
    model: str = "dermadeit",
    *,
    root: Path = CHECKPOINT_ROOT,
    device: str | torch.device = "cpu",
) -> Predictor:
    """Loads a checkpoint from disk, without any network.

    Args:
        task: `binary` or `multiclass`.
        model: Name of a model that has an embedded checkpoint, or the path of a checkpoint folder.
        root: Folder that holds the checkpoints as `<task>/<model>/`.
        device: Where to run.

    Raises:
        TaskError: Unknown task.
        ModelError: Unknown model.
        CheckpointError: No checkpoint, or one that can't be used.
    """
    return Predictor(load_checkpoint(find_checkpoint(task, model, root), task=task), device)
