"""Which score tells what is no skin lesion best.

    python -m benchmarks.evidence.out_of_distribution MANIFEST --not-skin FOLDER --checkpoint DIR --output ood.json

Everything is fitted on the calibration split of the checkpoint's task, thresholds on scores that are held out by
lesion. Photos of anything but skin are only ever tried. For each score and embedding the table says

- the AUROC of those photos against calibration lesions, and the share refused where 1, 2 and 3 % of the lesions
  are; at 2 % also of the photos shrunk to 84 × 84 pixels, of drawn pictures (noise, plain colours, documents,
  screens), and of the lesions of the validation split;
- the AUROC of lesions outside the task (near-OOD: AK, BKL, DF, VASC), where the task leaves them out;
- the share refused of each collection's lesions where statistics and threshold come from the others: what an
  unfamiliar camera may expect. The networks themselves were trained on all collections.

The scores: maximum probability (Hendrycks and Gimpel 2017, 1610.02136), energy (Liu et al. 2020, 2010.03759),
Mahalanobis with a covariance common to the classes (Lee et al. 2018, 1807.03888), relative Mahalanobis (Ren et al.
2021, 2106.09022), the cosine distance of the k-th neighbour (Sun et al. 2022, 2204.06507) and ViM (Wang et al.
2022, 2203.10807).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.special import logsumexp, softmax
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import normalize

from dermadeit.data.manifest import ManifestRow, read_source
from dermadeit.files import write_json
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.imaging.drawn_pictures import draw_pictures
from dermadeit.models.checkpoints import Checkpoint, load_checkpoint
from dermadeit.models.classifier import recording_shallow_embeddings
from dermadeit.tasks import DIAGNOSIS, Task

logger = logging.getLogger("benchmarks.evidence.out_of_distribution")

BATCH_IMAGES = 16
FOLDS = 5
SHARES = (0.01, 0.02, 0.03)
SHARE = 0.02
CONFIDENT = 0.9
SHRUNK = (84, 84)
EMBEDDINGS = ("class", "distillation", "shallow")
NEAR = ("ak", "bkl", "df", "vasc")
"""Diagnoses asked of a task that doesn't have them. Nevi are left out: the binary task answers them first."""
OUTSIDE = -1
"""Label of a diagnosis that the task doesn't have."""

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Embeddings [N, D] and logits [N, K] to [N], higher for stranger images."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """N pictures after one pass through the network.

    Attributes:
        embeddings: Each of `EMBEDDINGS` to float32 [N, D].
        logits: float32 [N, K].
        labels: int [N], index of the class, or `OUTSIDE`.
        groups: str [N], lesions.
        sources: str [N], collections.
    """

    embeddings: Mapping[str, np.ndarray]
    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    sources: np.ndarray

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, which: np.ndarray) -> Pictures:
        """Those that a mask or indices choose."""
        embeddings = {name: values[which] for name, values in self.embeddings.items()}
        rest = (self.logits, self.labels, self.groups, self.sources)
        return Pictures(embeddings, *(values[which] for values in rest))


def energy(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Score:
    """Minus the log of the summed exponentials of the logits."""
    return lambda _, asked: -logsumexp(asked, axis=1)


def maximum_probability(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Score:
    """Minus the probability of the answer."""
    return lambda _, asked: -softmax(asked, axis=1).max(axis=1)


def mahalanobis(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Score:
    """Squared distance to the nearest class mean, in units of the common covariance."""
    classes, index = np.unique(labels, return_inverse=True)
    means = np.stack([known[labels == label].mean(axis=0) for label in classes])
    covariance, _ = ledoit_wolf(known - means[index], assume_centered=True)
    whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    return lambda asked, _: (((asked[:, None] - means) @ whiten) ** 2).sum(axis=-1).min(axis=1)


def relative_mahalanobis(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Score:
    """The same, less the squared distance to the mean of all in units of the covariance of all."""
    of_class = mahalanobis(known, labels, logits)
    of_all = mahalanobis(known, np.zeros_like(labels), logits)
    return lambda asked, _: of_class(asked, _) - of_all(asked, _)


def nearest_neighbour(rank: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Score]:
    """Minus the cosine similarity of the neighbour of a rank, from 1."""

    def fit(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Score:
        unit, place = np.asarray(normalize(known)), -min(rank, len(known))
        return lambda asked, _: -np.partition(np.asarray(normalize(asked)) @ unit.T, place, axis=1)[:, place]

    return fit


def vim(known: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> Score:
    """Length outside the space of the main components, as the logit of one more class."""
    centre = known.mean(axis=0)
    # Ascending by variance: all but the main third of the dimensions, near what the paper keeps of its networks'.
    directions = np.linalg.eigh(np.cov(known, rowvar=False))[1]
    outside = directions[:, : -(len(directions) // 3)]
    scale = logits.max(axis=1).mean() / np.linalg.norm((known - centre) @ outside, axis=1).mean()
    return lambda asked, own: (
        scale * np.linalg.norm((asked - centre) @ outside, axis=1) - logsumexp(own, axis=1)
    )


SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Score]] = {
    "mahalanobis": mahalanobis,
    "relative mahalanobis": relative_mahalanobis,
    **{f"neighbour {rank}": nearest_neighbour(rank) for rank in (1, 2, 5, 10)},
}
ROWS = (
    ("maximum probability", maximum_probability, "class"),
    ("energy", energy, "class"),
    ("vim", vim, "class"),
    *((name, fit, embedding) for embedding in EMBEDDINGS for name, fit in SCORES.items()),
)
"""Name, what fits the score on embeddings [N, D], labels [N] and logits [N, K], and the embedding."""


def read_pictures(
    checkpoint: Checkpoint, images: Iterable[LesionImage], rows: Sequence[ManifestRow] = ()
) -> Pictures:
    """Sends pictures through a network, unturned; `rows` are those of lesions, labelled by diagnosis."""
    task, remaining = checkpoint.task, iter(images)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*EMBEDDINGS, "logits")}
    while batch := list(islice(remaining, BATCH_IMAGES)):
        for name, values in _pass(checkpoint, [image.pixels for image in batch]).items():
            parts[name].append(values)
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    classes = [task.class_of_diagnosis.get(row.label.upper()) for row in rows]
    return Pictures(
        {name: arrays[name] for name in EMBEDDINGS},
        arrays["logits"],
        np.array([OUTSIDE if key is None else task.index_of(key) for key in classes]),
        np.array([row.lesion_group for row in rows]),
        np.array([row.source for row in rows]),
    )


@torch.inference_mode()
def _pass(checkpoint: Checkpoint, photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    images = torch.stack([checkpoint.preprocessing(photo) for photo in photos])
    with recording_shallow_embeddings(checkpoint.classifier) as shallow:
        class_, distillation = checkpoint.classifier.embed(images)
    logits = checkpoint.classifier.head(class_)
    tensors = {"class": class_, "distillation": distillation, "shallow": shallow[0], "logits": logits}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def held_out(fit: Callable[..., Score], embedding: str, known: Pictures) -> np.ndarray:
    """Scores [N] of known lesions, each by statistics of other lesions."""
    scores = np.empty(len(known))
    for rest, left_out in GroupKFold(FOLDS).split(scores, groups=known.groups):
        fitted = _fit(fit, embedding, known.take(rest))
        scores[left_out] = fitted(known.take(left_out))
    return scores


def compare_scores(known: Pictures, asked: Mapping[str, Pictures]) -> list[dict[str, Any]]:
    """A row for each of `ROWS`.

    Args:
        known: Lesions of the calibration split.
        asked: `not_skin`, `not_skin_shrunk`, `drawn`, `validation`, and `near` where there are any.
    """
    rows = []
    for name, fit, embedding in ROWS:
        scores = held_out(fit, embedding, known)
        fitted = _fit(fit, embedding, known)
        of = {kind: fitted(pictures) for kind, pictures in asked.items()}
        thresholds = {f"{share:.0%}": np.quantile(scores, 1 - share) for share in SHARES}
        row = {
            "score": name,
            "embedding": embedding,
            "auroc_not_skin": _auroc(scores, of["not_skin"]),
            "auroc_near": _auroc(scores, of["near"]) if "near" in of else None,
            "refused": {
                kind: {share: _share(of[kind] > threshold) for share, threshold in thresholds.items()}
                for kind in of
            },
            "refused_of_unseen_collections": _try_without_each_collection(fit, embedding, known),
        }
        rows.append(row)
        logger.info("%s", _as_line(row))
    return rows


def _try_without_each_collection(
    fit: Callable[..., Score], embedding: str, known: Pictures
) -> dict[str, float]:
    refused = {}
    for source in np.unique(known.sources):
        rest = known.take(known.sources != source)
        if len(rest):
            threshold = np.quantile(held_out(fit, embedding, rest), 1 - SHARE)
            scores = _fit(fit, embedding, rest)(known.take(known.sources == source))
            refused[str(source)] = _share(scores > threshold)
    return refused


def count_confident(checkpoint: Checkpoint, known: Pictures, near: Pictures) -> dict[str, float | bool]:
    """How often a diagnosis outside the task gets an answer of 90 % or more, from the unturned photo."""
    calibration = checkpoint.calibration
    if calibration is not None and 1 not in calibration.by_views:
        calibration = None

    def share(pictures: Pictures) -> float:
        logits = pictures.logits.astype(float)
        probabilities = (
            softmax(logits, axis=1) if calibration is None else calibration.probabilities(logits, 1)
        )
        return _share(probabilities.max(axis=1) >= CONFIDENT)

    return {"calibrated": calibration is not None, "of_the_task": share(known), "near": share(near)}


def examine(
    checkpoint: Checkpoint, rows: Sequence[ManifestRow], strange: Sequence[LesionImage]
) -> dict[str, Any]:
    """Everything about one checkpoint, JSON-ready, from labelled lesions and photos of anything but skin."""
    logger.info("%s for the task %s", checkpoint.folder.name, checkpoint.task.key)
    lesions = {}
    for split in ("calibration", "validation"):
        of_split = [row for row in rows if row.split == split and _is_read(row, checkpoint.task)]
        lesions[split] = read_pictures(checkpoint, (decode_image(row.path) for row in of_split), of_split)
    inside = {split: pictures.labels != OUTSIDE for split, pictures in lesions.items()}
    known = lesions["calibration"].take(inside["calibration"])
    near = lesions["calibration"].take(~inside["calibration"])
    shrunk = (decode_image(image.to_pil().resize(SHRUNK, Image.Resampling.LANCZOS)) for image in strange)
    asked = {
        "not_skin": read_pictures(checkpoint, strange),
        "not_skin_shrunk": read_pictures(checkpoint, shrunk),
        "drawn": read_pictures(checkpoint, map(decode_image, draw_pictures())),
        "validation": lesions["validation"].take(inside["validation"]),
    }
    if len(near):
        asked["near"] = near
    return {
        "model": checkpoint.model,
        "task": checkpoint.task.key,
        "weights_sha256": checkpoint.weights_sha256,
        "n": {"calibration": len(known), **{kind: len(pictures) for kind, pictures in asked.items()}},
        "confident_answers": count_confident(checkpoint, known, near) if len(near) else None,
        "scores": compare_scores(known, asked),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Examines each checkpoint, logs its table, and writes all of it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="a CSV with splits and ISIC 2019 diagnoses")
    parser.add_argument("--not-skin", type=Path, required=True, help="a folder of photos of anything else")
    parser.add_argument("--checkpoint", type=Path, required=True, nargs="+", help="checkpoint folders")
    parser.add_argument("--images", type=int, help="read at most so many a split, for a quick look")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    manifest = read_source(options.manifest, DIAGNOSIS)
    rows = []
    for split in ("calibration", "validation"):
        of_split = manifest.select(split).rows
        rows += of_split[:: -(-len(of_split) // options.images) if options.images else 1]
    strange = [decode_image(path) for path in sorted(options.not_skin.iterdir())]
    report = {
        "checkpoints": [examine(load_checkpoint(folder), rows, strange) for folder in options.checkpoint]
    }
    if options.output:
        write_json(options.output, report)


def _is_read(row: ManifestRow, task: Task) -> bool:
    return row.label in NEAR or row.label.upper() in task.class_of_diagnosis


def _fit(fit: Callable[..., Score], embedding: str, known: Pictures) -> Callable[[Pictures], np.ndarray]:
    score = fit(known.embeddings[embedding], known.labels, known.logits)
    return lambda pictures: score(pictures.embeddings[embedding], pictures.logits)


def _auroc(familiar: np.ndarray, strange: np.ndarray) -> float:
    truth = np.repeat((0, 1), (len(familiar), len(strange)))
    return float(roc_auc_score(truth, np.concatenate([familiar, strange])))


def _share(flags: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(flags))


def _as_line(row: Mapping[str, Any]) -> str:
    near = "" if row["auroc_near"] is None else f"  near-OOD AUROC {row['auroc_near']:.3f}"
    refused = row["refused"]
    others = "".join(f"  {kind} {shares[f'{SHARE:.0%}']:.1%}" for kind, shares in refused.items())
    unseen = "".join(
        f"  unseen {name} {share:.0%}" for name, share in row["refused_of_unseen_collections"].items()
    )
    return (
        f"{row['score']:<22}{row['embedding']:<13}AUROC {row['auroc_not_skin']:.3f}{near}  refused at "
        f"{SHARE:.0%}:{others}{unseen}"
    )


if __name__ == "__main__":
    main()
