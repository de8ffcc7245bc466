"""Which saliency method tells more of what a model's answers rest on? On images of a manifest, with intervals.

    python -m benchmarks.evidence.faithfulness manifest.csv --task binary --split calibration \
        --images 60 --output out.json

Every method and two references that know nothing of the model explain the predicted class of the same images:

- centre: a bell in the middle of every image, since dermoscopy centres the lesion. A method that is no better
  says no more than “look at the middle”.
- elsewhere: the default method's map, shifted at random around the image's edges. How many of these the check
  calls faithful bounds how often it says yes without a reason: a few are shifted by next to nothing.

The winner is the method with the largest insertion AUC minus deletion AUC among those that heed the weights: once
the upper half of the stages is random, the rank correlation of the maps with the intact model's is below a half.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from dermadeit.data.manifest import Manifest, read_source
from dermadeit.files import write_json
from dermadeit.imaging.decode import LesionImage, decode_image
from dermadeit.inference.faithfulness import (
    CURVE_STEPS,
    central_area,
    central_mass,
    check_saliency,
    perturbation_curves,
    randomised_correlations,
)
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.saliency import SALIENCY_METHODS, SaliencyMap, default_method
from dermadeit.metrics.classification import CONFIDENCE, INTERVAL_METHOD, RESAMPLES
from dermadeit.models.checkpoints import CHECKPOINT_ROOT
from dermadeit.tasks import get_task

logger = logging.getLogger("benchmarks.evidence.faithfulness")

SCORE = "insertion_minus_deletion"
LARGEST_CORRELATION = 0.5
BELL_DEVIATION = 0.25
BELL_SIDE = 14

Figures = dict[str, np.ndarray]


def measure_maps(predictor: Predictor, images: Sequence[LesionImage], steps: int) -> dict[str, Figures]:
    """Method or reference to its figures, each float [N]."""
    methods = methods_for(predictor)
    rows: dict[str, list[dict[str, float]]] = {}
    for image in tqdm(images, desc="maps", disable=None):
        maps = {name: explain(predictor, image, None) for name, explain in methods.items()}
        references = reference_maps(
            maps[default_method(predictor)], np.random.default_rng(int(image.sha256, 16))
        )
        for name, saliency in (maps | references).items():
            rows.setdefault(name, []).append(measure_map(predictor, image, saliency, steps))
    return {
        name: {figure: np.array([row[figure] for row in figures]) for figure in figures[0]}
        for name, figures in rows.items()
    }


def measure_map(
    predictor: Predictor, image: LesionImage, saliency: SaliencyMap, steps: int
) -> dict[str, float]:
    """The figures of one map."""
    check = check_saliency(predictor, image, saliency)
    curves = perturbation_curves(predictor, image, saliency, steps=steps)
    return {
        "faithful": float(check.faithful),
        "drop": check.drop,
        "random_drop": float(np.mean(check.random_drops)),
        "deletion_auc": curves.deletion_auc,
        "insertion_auc": curves.insertion_auc,
        SCORE: curves.insertion_auc - curves.deletion_auc,
        "central_mass": central_mass(saliency),
    }


def methods_for(predictor: Predictor) -> dict[str, Any]:
    """The methods that fit the model: a convolutional network has no attention."""
    transformer = predictor.checkpoint.classifier.spec.is_transformer
    return {name: explain for name, explain in SALIENCY_METHODS.items() if transformer or name == "grad-cam"}


def reference_maps(saliency: SaliencyMap, rng: np.random.Generator) -> dict[str, SaliencyMap]:
    """Maps that know nothing of the model."""
    offsets = (np.arange(BELL_SIDE) + 0.5) / BELL_SIDE - 0.5
    distances = np.hypot(*np.meshgrid(offsets, offsets))
    bell = np.exp(-(distances**2) / (2 * BELL_DEVIATION**2)).astype(np.float32)
    moved = np.roll(saliency.values, rng.integers(saliency.values.shape), axis=(0, 1))
    return {
        "centre": SaliencyMap(bell, saliency.class_key, "Centre"),
        "elsewhere": SaliencyMap(moved, saliency.class_key, "Elsewhere"),
    }


def mean_with_interval(values: np.ndarray, lesions: Sequence[str]) -> dict[str, Any]:
    """Mean of [N], and the middle 95 % of the means of resampled lesions."""
    _, lesion_of_image = np.unique(lesions, return_inverse=True)
    sums, counts = np.bincount(lesion_of_image, values), np.bincount(lesion_of_image)
    interval = stats.bootstrap(
        (sums, counts),
        lambda total, number, axis: total.sum(axis) / number.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {"mean": float(values.mean()), "interval": [float(interval.low), float(interval.high)]}


def report(
    measured: Mapping[str, Figures], correlations: Mapping[str, Figures], lesions: Sequence[str]
) -> dict[str, Any]:
    """Means, paired differences and the winner, JSON-ready."""
    differences = {
        f"{first} minus {second}": {
            figure: mean_with_interval(values - measured[second][figure], lesions)
            for figure, values in measured[first].items()
        }
        for first, second in combinations(measured, 2)
    }
    randomised = {
        name: {stage: mean_with_interval(values, lesions) for stage, values in stages.items()}
        for name, stages in correlations.items()
    }
    heedful = [
        name
        for name, stages in randomised.items()
        if [*stages.values()][len(stages) // 2 - 1]["mean"] < LARGEST_CORRELATION
    ]
    return {
        "means": {
            name: {figure: mean_with_interval(values, lesions) for figure, values in figures.items()}
            for name, figures in measured.items()
        },
        "differences": differences,
        "randomised_correlations": randomised,
        "winner": max(heedful, key=lambda name: measured[name][SCORE].mean(), default=None),
    }


def sample(manifest: Manifest, count: int, seed: int) -> Manifest:
    """A random sample of the rows, in the order of the table."""
    rows = manifest.rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return Manifest(manifest.task, tuple(rows[index] for index in sorted(chosen)), manifest.exclusions)


def main() -> None:
    """Writes the figures and logs the winner."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--task", default="binary")
    parser.add_argument("--model", default="dermadeit", help="name, or the folder of a checkpoint")
    parser.add_argument("--root", type=Path, default=CHECKPOINT_ROOT, help="folder of the checkpoints")
    parser.add_argument("--split", default="calibration")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--steps", type=int, default=CURVE_STEPS, help="of the deletion and insertion curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.images < 2:
        parser.error("An interval needs at least two images.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    task = get_task(options.task)
    predictor = load_predictor(options.task, options.model, root=options.root, device=options.device)
    manifest = sample(read_source(options.manifest, task).select(options.split), options.images, options.seed)
    images = [decode_image(row.path) for row in manifest.rows]
    measured = measure_maps(predictor, images, options.steps)
    correlations = {
        name: randomised_correlations(predictor, images, explain, seed=options.seed)
        for name, explain in methods_for(predictor).items()
    }
    result = report(measured, correlations, [row.lesion_group for row in manifest.rows])
    header = {
        "task": task.key,
        "model": predictor.checkpoint.model,
        "weights_sha256": predictor.checkpoint.weights_sha256,
        "split": options.split,
        "images": len(images),
        "seed": options.seed,
        "steps": options.steps,
        "interval_method": INTERVAL_METHOD,
        "central_mass_of_an_even_map": float(central_area(512).mean()),
    }
    write_json(options.output, header | result)
    for name, figures in result["means"].items():
        logger.info(
            "%-18s%s", name, "  ".join(f"{figure} {value['mean']:.3f}" for figure, value in figures.items())
        )
    logger.info("Winner: %s", result["winner"])


if __name__ == "__main__":
    main()
