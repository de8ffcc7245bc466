"""What tells that an answer is wrong: its own probability, contradicting neighbours, unsteady views, or all three?

    python -m benchmarks.evidence.error_detection MANIFEST --task binary --output error_detection.json

Reads the images of one split in all views; several tasks of one network share what was read. Similar cases come
from the checkpoint's own index; where it has none, or with `--index-images`, the images of the training split are
read for one. Each signal is scored by the AUROC of wrong against right answers. Signals are combined by a logistic
regression whose score of a lesion comes from the other four fifths of the lesions. Intervals resample lesions;
each signal is also compared with the answer's own probability on the same resamples. Alongside: how often a turned
image flips the answer, and how often the answer is wrong where the neighbours contradict it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from dermadeit.data.dataset import naming_the_image
from dermadeit.data.manifest import ManifestRow, read_source
from dermadeit.errors import DermaDeiTError, TableError
from dermadeit.evaluation.robustness import sample_lesions
from dermadeit.files import write_json
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.inference.predictor import BATCH_IMAGES, Predictor, load_predictor
from dermadeit.metrics.classification import (
    INTERVAL_METHOD,
    RESAMPLES,
    classification_metrics,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.metrics.shares import Shares, stability_figures
from dermadeit.tasks import DIAGNOSIS, TASKS, Task
from dermadeit.trust.neighbours import VOTERS, Neighbour, NeighbourIndex, disagreeing_share, disagrees
from dermadeit.trust.stability import flipped, spreads

logger = logging.getLogger("benchmarks.evidence.error_detection")

FOLDS = 5
BASELINE = "probability"
COMBINATIONS = (
    (BASELINE,),
    ("neighbours",),
    ("views",),
    (BASELINE, "neighbours"),
    (BASELINE, "views"),
    (BASELINE, "neighbours", "views"),
)
"""Signals that are scored together."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What the model says of N images in V views.

    Attributes:
        view_logits: float [N, V, K], for the K classes of the task.
        logits: float [N, K], of all views together.
        tokens: float32 [N, D], distillation tokens of the unturned images.
        labels: int [N], true class indices.
        lesion_groups: N names.
    """

    view_logits: np.ndarray
    logits: np.ndarray
    tokens: np.ndarray
    labels: np.ndarray
    lesion_groups: tuple[str, ...]

    @property
    def answered(self) -> np.ndarray:
        """Int [N], the most probable class of each image."""
        return self.logits.argmax(axis=1)


def read_images(
    predictor: Predictor, rows: Sequence[ManifestRow], views: int
) -> tuple[np.ndarray, np.ndarray]:
    """The network's logits of all views, float32 [N, V, C], and distillation tokens, float32 [N, D]."""
    logits, tokens = [], []
    for start in tqdm(range(0, len(rows), BATCH_IMAGES), unit="batch", disable=None):
        images = []
        for row in rows[start : start + BATCH_IMAGES]:
            with naming_the_image(row):
                images.append(decode_image(row.path))
        for outputs in predictor.outputs(images, views):
            logits.append(outputs.logits)
            tokens.append(outputs.distillation_embedding)
    return np.stack(logits), np.stack(tokens)


Outputs = dict[str, tuple[np.ndarray, np.ndarray]]
"""Image id to what `read_images` gives of the image."""


def read_once(
    predictor: Predictor, rows: Sequence[ManifestRow], views: int, read: Outputs
) -> tuple[np.ndarray, np.ndarray]:
    """As `read_images`, but only of images that are not in `read`, which gains them."""
    new = [row for row in rows if row.image_id not in read]
    if new:
        outputs = zip(*read_images(predictor, new, views), strict=True)
        read.update(zip((row.image_id for row in new), outputs, strict=True))
    logits, tokens = zip(*(read[row.image_id] for row in rows), strict=True)
    return np.stack(logits), np.stack(tokens)


def read_as_asked(predictor: Predictor, logits: np.ndarray) -> np.ndarray:
    """The network's logits, float [..., C], as those of the task that is asked, float64 [..., K]."""
    shares = predictor.checkpoint.groups.read(softmax(logits.astype(float), axis=-1))
    return np.log(np.maximum(shares, np.finfo(float).tiny))


def error_signals(
    found: Answers, neighbours: Sequence[Sequence[Neighbour]], task: Task
) -> dict[str, np.ndarray]:
    """Name of each signal to float [N], higher where an error is likelier."""
    largest = softmax(found.logits.astype(float), axis=1).max(axis=1)
    doubt = np.maximum(1 - largest, np.finfo(float).eps)
    labels = [task.classes[index] for index in found.answered]
    return {
        # As log odds, which is what a logistic regression can scale.
        BASELINE: np.log(doubt) - np.log(largest),
        "neighbours": np.array(
            [disagreeing_share(near, label, task) for near, label in zip(neighbours, labels, strict=True)]
        ),
        "views": spreads(found.view_logits, found.answered),
    }


def score_signals(
    signals: Mapping[str, np.ndarray],
    wrong: np.ndarray,
    groups: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """AUROC of wrong answers for each of `COMBINATIONS`.

    Args:
        signals: Name to float [N].
        wrong: bool [N].
        groups: N lesion names.
        seed: Decides the folds and the resamples.
        resamples: How many times the lesions are drawn.

    Returns:
        JSON-ready: the signals' names joined by “ + ” to `auroc`, its `interval`, and the `gain` over the
        probability alone with its own interval.

    Raises:
        TableError: There are too few wrong or too few right answers.
    """
    if min(wrong.sum(), (~wrong).sum()) < 2 * FOLDS:
        raise TableError(
            f"{int(wrong.sum())} of {len(wrong)} answers are wrong; at least {2 * FOLDS} wrong and as many right "
            "ones are needed. Read more images."
        )
    areas, resampled = {}, {}
    for names in COMBINATIONS:
        columns = np.stack([signals[name] for name in names], axis=1)
        score = columns[:, 0] if len(names) == 1 else _held_out_score(columns, wrong, groups, seed)
        # Ranks keep the order, and the metrics want probabilities.
        rank = rankdata(score) / (len(score) + 1)
        as_probabilities = np.stack([1 - rank, rank], axis=1)
        arguments = (wrong.astype(int), as_probabilities)
        name, classes = " + ".join(names), ("right", "wrong")
        areas[name] = classification_metrics(*arguments, classes)["roc_auc"]
        resampled[name] = resampled_figures(*arguments, groups, classes, resamples=resamples, seed=seed)[
            "roc_auc"
        ]
    intervals = percentile_intervals(resampled)
    gains = percentile_intervals({name: values - resampled[BASELINE] for name, values in resampled.items()})
    return {
        name: {"auroc": area, "interval": intervals.get(name)}
        | ({"gain": area - areas[BASELINE], "gain_interval": gains.get(name)} if name != BASELINE else {})
        for name, area in areas.items()
    }


def flag_figures(flagged: np.ndarray, wrong: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """What the flag “the neighbours contradict the answer” is worth.

    Args:
        flagged: bool [N].
        wrong: bool [N].
        groups: N lesion names.

    Returns:
        `flagged`, `wrong_where_flagged`, `wrong_elsewhere` and `errors_flagged`, each as `Shares.measure` gives
        it.
    """
    shares = Shares(groups)
    shares.add("flagged", having=flagged, among=np.ones(len(flagged)))
    shares.add("wrong_where_flagged", having=wrong, among=flagged)
    shares.add("wrong_elsewhere", having=wrong, among=~flagged)
    shares.add("errors_flagged", having=flagged, among=wrong)
    return shares.measure()


def measure_error_detection(
    predictor: Predictor,
    table: Path,
    *,
    split: str,
    views: int,
    neighbours: int,
    images: int | None,
    index_images: int | None,
    seed: int,
    read: Outputs | None = None,
) -> dict[str, Any]:
    """Reads the images and returns the whole report, JSON-ready.

    Args:
        predictor: The model, asked a task.
        table: The labelled images.
        split: Which of them are read.
        views: Dihedral views.
        neighbours: How many lesions vote.
        images: Read only about so many, whole lesions at random; None for all.
        index_images: Index about so many training images; None for the checkpoint's own index.
        seed: Of the draws and the folds.
        read: What the same network was read for before with as many views; it gains what is read now.
    """
    task = predictor.checkpoint.task
    rows = sample_lesions(read_source(table, task).select(split), images, seed).rows
    logger.info("Reading %d images in %d views", len(rows), views)
    logits, tokens = read_once(predictor, rows, views, {} if read is None else read)
    found = Answers(
        read_as_asked(predictor, logits),
        read_as_asked(predictor, logits.mean(axis=1)),
        tokens,
        np.array([task.index_of(row.label) for row in rows]),
        tuple(row.lesion_group for row in rows),
    )
    trust = predictor.checkpoint.trust
    index = trust.neighbours if trust is not None and index_images is None else None
    if index is None:
        index = _build_index(predictor, table, index_images, seed)
    near = [index.query(token, neighbours) for token in found.tokens]
    wrong = found.answered != found.labels
    flagged = np.array(
        [
            disagrees(some, task.classes[answer], task)
            for some, answer in zip(near, found.answered, strict=True)
        ]
    )
    flips = flipped(found.view_logits, found.answered).sum(axis=1)
    signals = error_signals(found, near, task)
    return {
        "task": task.key,
        "model": predictor.checkpoint.model,
        "weights_sha256": predictor.checkpoint.weights_sha256,
        "split": split,
        "views": views,
        "n": len(rows),
        "lesions": len(set(found.lesion_groups)),
        "index_images": len(index),
        "neighbours": neighbours,
        "interval_method": INTERVAL_METHOD,
        "wrong": int(wrong.sum()),
        "signals": score_signals(signals, wrong, found.lesion_groups, seed),
        "neighbours_contradict": flag_figures(flagged, wrong, found.lesion_groups),
        "stability": stability_figures(flips, signals["views"], views, found.lesion_groups),
    }


def _build_index(predictor: Predictor, table: Path, images: int | None, seed: int) -> NeighbourIndex:
    known = sample_lesions(read_source(table, DIAGNOSIS).select("train"), images, seed).rows
    logger.info("Reading %d training images", len(known))
    return NeighbourIndex.build(
        read_images(predictor, known, views=1)[1],
        [row.image_id for row in known],
        [row.label.upper() for row in known],
        [row.lesion_group for row in known],
    )


def _held_out_score(columns: np.ndarray, wrong: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray:
    """Probability that an answer is wrong, float [N], by a model that has not seen its lesion."""
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    shares = cross_val_predict(model, columns, wrong, groups=groups, cv=folds, method="predict_proba")
    return np.asarray(shares)[:, 1]


def log_report(report: Mapping[str, Any]) -> None:
    """Logs the figures as a table."""
    logger.info("%d of %d answers are wrong (%s)", report["wrong"], report["n"], report["interval_method"])
    for name, figures in report["signals"].items():
        gain = f"gain {figures['gain']:+.3f} {_bounds(figures['gain_interval'])}" if "gain" in figures else ""
        logger.info("%-33s AUROC %.3f %s  %s", name, figures["auroc"], _bounds(figures["interval"]), gain)
    for name, share in {**report["neighbours_contradict"], **report["stability"]}.items():
        if share["value"] is not None:
            logger.info("%-39s %.3f %s", name, share["value"], _bounds(share["interval"]))


def _bounds(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "[undefined]"


def main(arguments: list[str] | None = None) -> None:
    """Measures, logs a table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="CSV table with diagnoses and splits")
    parser.add_argument("--task", choices=list(TASKS), required=True, nargs="+")
    parser.add_argument(
        "--model", default="dermadeit", help="name of an embedded model, or a checkpoint folder"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--split", default="calibration", help="what is read and scored")
    parser.add_argument("--views", type=int, default=DIHEDRAL_VIEWS)
    parser.add_argument("--neighbours", type=int, default=VOTERS, help="lesions that vote")
    parser.add_argument("--images", type=int, help="read only about so many, whole lesions at random")
    parser.add_argument("--index-images", type=int, help="index about so many training images instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="a JSON file to write; {task} in it stands for the task")
    options = parser.parse_args(arguments)
    if options.output and len(options.task) > 1 and "{task}" not in options.output:
        parser.error("with several tasks, --output must hold {task}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    read_by: dict[str, Outputs] = defaultdict(dict)
    for task in options.task:
        try:
            predictor = load_predictor(task, options.model, device=options.device)
            report = measure_error_detection(
                predictor,
                options.manifest,
                split=options.split,
                views=options.views,
                neighbours=options.neighbours,
                images=options.images,
                index_images=options.index_images,
                seed=options.seed,
                read=read_by[predictor.checkpoint.weights_sha256],
            )
        except DermaDeiTError as error:
            sys.exit(error.user_message)
        log_report(report)
        if options.output:
            write_json(Path(options.output.replace("{task}", task)), report)


if __name__ == "__main__":
    main()
