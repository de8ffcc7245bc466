"""How much does a split by image flatter a model? The shipped network, with a memory of photos of its lesions.

    python -m benchmarks.evidence.leakage_test MANIFEST --checkpoint assets/checkpoints/dermadeit
        --task binary --features binary.npz --output assets/evidence/binary/leakage_test.json
        --results docs/results.md

A training on a split by image sees other photos of lesions that it is tested on, and can remember them. Here
nothing is trained: the photos of validation, calibration and test, whose lesions the network has not seen, are
dealt into five parts. For each part, the other four are a memory: their features and labels. An answer is a
logistic regression of the network's own log-probabilities and of the votes of the nearest photos in the memory.
It is fitted on the memory alone, each of its photos asked without itself. This is done twice: with parts of
whole lesions, as a split should be, where a photo is fitted without its lesion too; and with parts of photos at
random, as the original project's split. The difference is what remembering brings.

The features of all photos are kept in --features, so that a second call takes a minute. With --results the
tables of all tasks are written into a Markdown file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from tqdm import tqdm

from dermadeit.data.dataset import naming_the_image
from dermadeit.data.manifest import ManifestRow, check_leaks, read_source
from dermadeit.errors import ConfigurationError
from dermadeit.files import ASSETS, read_json, write_json
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.predictor import Predictor
from dermadeit.metrics.classification import (
    FIGURES,
    HEADLINE_FIGURES,
    INTERVAL_METHOD,
    RESAMPLES,
    classification_metrics,
    percentile_intervals,
    resampled_figures,
)
from dermadeit.models.checkpoints import Checkpoint, load_checkpoint
from dermadeit.models.specs import model_name
from dermadeit.reporting.format import count, decimal, difference, percent
from dermadeit.reporting.markdown import figure_text, markdown_table, write_between_marks
from dermadeit.tasks import TASKS, Task

logger = logging.getLogger("benchmarks.evidence.leakage_test")

SPLITS = ("validation", "calibration", "test")
"""Splits whose lesions the shipped networks have not learnt from."""

PARTS = 5
NEAREST = 20
TEMPERATURES = (0.003, 0.01, 0.03, 0.1)
"""How fast a vote fades with its cosine distance: from the nearest photo alone to a count."""

SMALLEST_SHARE = 1e-3
BATCH_IMAGES = 32

REPORT_FILE = "leakage_test.json"
EVIDENCE = ASSETS / "evidence"
REPORTED = ASSETS / "benchmark" / "original_reported.json"
PLACE = "leakage-test"

ABOUT = (
    "**What a memory of photos of the same lesions brings.** The shipped network, which has not seen these "
    "lesions and is not trained again, answers together with the nearest photos of a memory with known "
    "labels. Where the memory holds other lesions only, it may add a little. Where it was dealt photo by "
    "photo, as the original's split, it holds other photos of the lesion in question. A training on such a "
    "split has that memory in its weights."
)

ARMS: Mapping[str, str] = {
    "network": "network alone",
    "lesion": "with a memory, parts of whole lesions",
    "image": "with a memory, parts of photos at random",
}


@dataclass(frozen=True, eq=False)
class Features:
    """N photos after one pass through the network.

    Attributes:
        tokens: float32 [N, D], class and distillation embedding side by side, each of length 1.
        log_probabilities: float [N, K], of the task's classes.
        labels: int [N].
        lesions: str [N].
    """

    tokens: np.ndarray
    log_probabilities: np.ndarray
    labels: np.ndarray
    lesions: np.ndarray


def read_features(checkpoint: Checkpoint, rows: Sequence[ManifestRow], kept: Path | None) -> Features:
    """Sends photos through a network, unturned, unless an earlier call has kept what came out.

    Args:
        checkpoint: The network, and the task that is asked.
        rows: N photos, labelled with the task's classes.
        kept: An .npz file for tokens and logits; None to keep nothing.

    Raises:
        ConfigurationError: The file is of other weights or photos.
    """
    image_ids = np.array([row.image_id for row in rows])
    if kept is None or not kept.is_file():
        tokens, logits = _pass_all(checkpoint, rows)
        if kept is not None:
            with kept.open("wb") as file:
                np.savez_compressed(
                    file,
                    weights=np.array(checkpoint.weights_sha256),
                    image_ids=image_ids,
                    tokens=tokens,
                    logits=logits,
                )
    else:
        with np.load(kept, allow_pickle=False) as stored:
            known = np.array_equal(stored["image_ids"], image_ids)
            if not known or str(stored["weights"]) != checkpoint.weights_sha256:
                raise ConfigurationError(f"“{kept}” is of other weights or photos. Delete it.")
            tokens, logits = stored["tokens"].astype(np.float32), stored["logits"]
    probabilities = checkpoint.groups.read(np.exp(log_softmax(logits.astype(float), axis=1)))
    return Features(
        tokens,
        np.log(np.maximum(probabilities, np.finfo(float).tiny)),
        np.array([checkpoint.task.index_of(row.label) for row in rows]),
        np.array([row.lesion_group for row in rows]),
    )


def _pass_all(checkpoint: Checkpoint, rows: Sequence[ManifestRow]) -> tuple[np.ndarray, np.ndarray]:
    predictor, remaining = Predictor(checkpoint), iter(tqdm(rows, unit="photo", disable=None))
    tokens, logits = [], []
    while batch := list(islice(remaining, BATCH_IMAGES)):
        photos = []
        for row in batch:
            with naming_the_image(row):
                photos.append(decode_image(row.content()))
        seen = predictor.outputs(photos, views=1)
        # Where there is no distillation token the two are the same, which changes no likeness.
        pairs = [(one.class_embedding, one.distillation_embedding) for one in seen]
        sides = [np.asarray(normalize(np.stack(side))) for side in zip(*pairs, strict=True)]
        tokens.append(np.concatenate(sides, axis=1).astype(np.float16))
        logits += [one.logits[0] for one in seen]
    return np.concatenate(tokens).astype(np.float32), np.stack(logits)


def votes(memory: Features, asked: Features, hidden: np.ndarray, classes: int) -> np.ndarray:
    """What the photos of a memory that are nearest to each asked photo say about it.

    Args:
        memory: M photos.
        asked: N photos.
        hidden: bool [N, M], what may not be remembered.
        classes: K.

    Returns:
        Log-shares of the classes among the nearest photos, for each of `TEMPERATURES`: float [N, K · T].
    """
    known, questions = np.asarray(normalize(memory.tokens)), np.asarray(normalize(asked.tokens))
    likeness = np.where(hidden, -np.inf, questions @ known.T)
    nearest = np.argpartition(-likeness, min(NEAREST, likeness.shape[1] - 1), axis=1)[:, :NEAREST]
    own = np.take_along_axis(likeness, nearest, axis=1)
    of_class = np.eye(classes)[memory.labels[nearest]]
    found = []
    for temperature in TEMPERATURES:
        weights = np.exp((own - own.max(axis=1, keepdims=True)) / temperature)
        shares = (weights[:, :, None] * of_class).sum(axis=1) / weights.sum(axis=1, keepdims=True)
        found.append(np.log(shares + SMALLEST_SHARE))
    # How near the nearest one is says how far to believe it.
    return np.hstack([*found, found[0] * own.max(axis=1, keepdims=True)])


def answer(features: Features, task: Task, split_by: str) -> np.ndarray:
    """Probabilities of all photos, each by the memory of the other parts: float [N, K].

    Args:
        features: N photos.
        task: Of K classes.
        split_by: `lesion` or `image`: what the parts are made of, and what is never remembered.
    """
    answers = np.empty_like(features.log_probabilities)
    units = features.lesions if split_by == "lesion" else np.arange(len(features.labels))
    deal = StratifiedGroupKFold(PARTS, shuffle=True, random_state=0)
    parts = deal.split(units, features.labels, groups=units)
    for remembered, asked in parts:
        memory, questions = _take(features, remembered), _take(features, asked)
        own = units[remembered]
        inner = votes(memory, memory, own[:, None] == own[None], len(task.classes))
        outer = votes(memory, questions, np.zeros((len(asked), len(remembered)), bool), len(task.classes))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(np.hstack([memory.log_probabilities, inner]), memory.labels)
        answers[asked] = model.predict_proba(np.hstack([questions.log_probabilities, outer]))
    return answers


def _take(features: Features, which: np.ndarray) -> Features:
    return Features(
        features.tokens[which],
        features.log_probabilities[which],
        features.labels[which],
        features.lesions[which],
    )


def measure(features: Features, task: Task, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The figures of the three arms, and what a split by image adds to one by lesion."""
    answered = {
        "network": np.exp(features.log_probabilities),
        **{split_by: answer(features, task, split_by) for split_by in ("lesion", "image")},
    }
    arms, resampled = {}, {}
    for arm, probabilities in answered.items():
        found = classification_metrics(features.labels, probabilities, task.classes, target=task.target)
        resampled[arm] = resampled_figures(
            features.labels, probabilities, features.lesions.tolist(), task.classes, target=task.target,
            resamples=resamples,
        )  # fmt: skip
        arms[arm] = {
            **{name: found[name] for name in ("n", *FIGURES)},
            "intervals": percentile_intervals(resampled[arm]),
        }
        logger.info("%s, %s: accuracy %.4f", task.key, ARMS[arm], found["accuracy"])
    intervals = percentile_intervals(
        {name: resampled["image"][name] - resampled["lesion"][name] for name in FIGURES}
    )
    _, sizes = np.unique(features.lesions, return_counts=True)
    return {
        "images": len(features.labels),
        "lesions": len(sizes),
        # With five parts an image's lesion has another one in the memory in four of five cases, or more.
        "share_of_images_whose_lesion_has_several": float(sizes[sizes > 1].sum() / sizes.sum()),
        "arms": arms,
        "image_minus_lesion": {
            name: {"difference": arms["image"][name] - arms["lesion"][name], "interval": intervals.get(name)}
            for name in FIGURES
            if arms["image"][name] is not None
        },
    }


def render(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The reports of several tasks as Markdown: task to content of the file."""
    original = read_json(REPORTED)["tasks"]
    rows, gains = [], []
    for key, report in reports.items():
        title = TASKS[key].title
        for arm, name in ARMS.items():
            found = report["arms"][arm]
            rows.append([title, name, *(figure_text(found, figure) for figure in HEADLINE_FIGURES)])
        reported = next(row for row in original[key] if row["model"] == "DermaDeiT")
        figures = {"accuracy": "accuracy", "f1_macro": "f1", "cohen_kappa": "cohen_kappa"}
        rows.append(
            [
                title,
                "the original's DermaDeiT, as reported",
                *(decimal(reported[figures[name]]) if name in figures else "–" for name in HEADLINE_FIGURES),
            ]
        )
        gain = report["image_minus_lesion"]["accuracy"]
        gains.append(f"{title}: {difference(gain['difference'], gain['interval'])} of accuracy")
    first = next(iter(reports.values()))
    sizes = "; ".join(
        f"{TASKS[key].title}: {count(report['images'])} photos of {count(report['lesions'])} lesions, "
        f"{percent(report['share_of_images_whose_lesion_has_several'])} of them of a lesion with several"
        for key, report in reports.items()
    )
    caption = (
        f"{model_name(first['model'])}, one view, photos of {', '.join(SPLITS[:-1])} and {SPLITS[-1]}. {sizes}. "
        f"Parts of photos minus parts of lesions: {'; '.join(gains)}. Intervals: {first['method']}."
    )
    if missing := [task.title for key, task in TASKS.items() if key not in reports]:
        caption += f" Not measured: {', '.join(missing)}."
    table = markdown_table(["task", "answer", *HEADLINE_FIGURES.values()], rows)
    return f"{ABOUT}\n\n{table}\n\n{caption}"


def write_results(document: Path, evidence: Path = EVIDENCE) -> None:
    """Puts the table of all tasks that have a report into a Markdown file, between the marks of `PLACE`."""
    paths = {key: evidence / key / REPORT_FILE for key in TASKS}
    reports = {key: read_json(path) for key, path in paths.items() if path.is_file()}
    write_between_marks(document, PLACE, render(reports))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one task, and writes what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "manifest", type=Path, help="a CSV with splits, lesion groups and ISIC 2019 diagnoses"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint folder")
    parser.add_argument("--task", choices=tuple(TASKS), required=True)
    parser.add_argument("--features", type=Path, help="an .npz file to keep the network's features in")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="how often lesions are drawn")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--results", type=Path, help="a Markdown file to put the tables into")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    checkpoint = load_checkpoint(options.checkpoint, options.task, calibrated=False)
    manifest = read_source(options.manifest, checkpoint.task)
    check_leaks(manifest)
    rows = [row for row in manifest.rows if row.split in SPLITS]
    features = read_features(checkpoint, rows, options.features)
    write_json(
        options.output,
        {
            "task": options.task,
            "model": checkpoint.model,
            "weights_sha256": checkpoint.weights_sha256,
            "splits": list(SPLITS),
            "parts": PARTS,
            "method": INTERVAL_METHOD.replace(str(RESAMPLES), str(options.resamples)),
            **measure(features, checkpoint.task, options.resamples),
        },
    )
    if options.results:
        write_results(options.results)


if __name__ == "__main__":
    main()
