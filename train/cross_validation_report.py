"""Compare the arms of a cross-validation: figures with intervals, and paired differences.

    python -m train.cross_validation_report --runs runs/search --output assets/benchmark/search

Reads the answers that train.cross_validation has kept so far, and writes report.json and report.md. Probabilities
are measured as they would be served, calibrated: one slope and an intercept for each class, fitted on held-out
lesions other than those that are measured.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.special import log_softmax, softmax

from dermadeit.errors import ConfigurationError
from dermadeit.evaluation.comparison import Difference
from dermadeit.files import require_folder, write_atomically, write_json
from dermadeit.metrics.classification import (
    INTERVAL_METHOD,
    RESAMPLES,
    SEEDED_INTERVAL_METHOD,
    lesion_weights,
    mean_over_seeds,
    percentile_intervals,
)
from dermadeit.metrics.weighted import areas_under_roc, log_losses, recalibrate
from dermadeit.reporting.format import NOTHING, decimal, figure
from dermadeit.reporting.markdown import difference_text, markdown_table
from dermadeit.tasks import DIAGNOSIS, TASKS, readable_tasks
from train.answers import EXTERNAL, Answers, Images, positions
from train.command_line import explaining_mistakes
from train.cross_validation import SEARCH_FILE
from train.data.splitting import fold_of

logger = logging.getLogger("train.cross_validation_report")

Key = tuple[int, int, str]
"""Fold, seed and left-out source of a training; an empty string where it saw all sources."""

TEACHER_OF = ", teacher"
"""Behind the name of an arm: what the networks that teach it say together."""

TITLES: Mapping[str, str] = {
    "diagnosis_nll": "NLL, eight diagnoses",
    "uncalibrated_diagnosis_nll": "NLL, eight diagnoses, uncalibrated",
    "diagnosis_roc_auc": "AUROC, eight diagnoses",
    "binary_nll": "NLL, binary",
    "binary_roc_auc": "AUROC, binary",
    "malignancy_nll": "NLL, malignancy",
    "malignancy_roc_auc": "AUROC, malignancy",
    "multiclass_nll": "NLL, multiclass",
    "multiclass_roc_auc": "AUROC, multiclass",
    "diagnosis_accuracy": "accuracy, eight diagnoses",
    "binary_accuracy": "accuracy, binary",
    "malignancy_accuracy": "accuracy, malignancy",
    "multiclass_accuracy": "accuracy, multiclass",
    "sources_binary_roc_auc": "AUROC, binary, mean of the sources",
    "sources_malignancy_roc_auc": "AUROC, malignancy, mean of the sources",
    "external_malignancy_roc_auc": "AUROC, malignancy, other cameras",
    "external_mel_roc_auc": "AUROC, P(MEL), other cameras",
    "left_out_binary_roc_auc": "AUROC, binary, mean of the left-out sources",
    "left_out_malignancy_roc_auc": "AUROC, malignancy, mean of the left-out sources",
    "left_out_diagnosis_nll": "NLL, eight diagnoses, mean of the left-out sources",
    "source_named": "sources named rightly by a linear probe",
}
"""Each figure for people, in the order of the report. Of NLL and of the probe less is better."""

SHOWN = (
    "diagnosis_nll",
    "diagnosis_roc_auc",
    "binary_roc_auc",
    "malignancy_roc_auc",
    "multiclass_roc_auc",
    "sources_malignancy_roc_auc",
    "external_malignancy_roc_auc",
    "left_out_malignancy_roc_auc",
    "source_named",
)
"""The figures whose differences are shown."""


# ------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True, eq=False)
class Scores:
    """What one network, or one network a fold, answered about photos, and the truth.

    Attributes:
        labels: str [N], keys of diagnoses; of other cameras `mel` or `benign`.
        sources: str [N].
        probabilities: float [N, K], calibrated.
        uncalibrated: float [N, K], as they were answered.
        named_sources: str [N], of `Answers`.
        classes: The K class keys.
    """

    labels: np.ndarray
    sources: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray
    named_sources: np.ndarray
    classes: Sequence[str]

    def held_out(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The figures on held-out lesions of known sources, for weights [R, N]: each float [R]."""
        figures: dict[str, np.ndarray] = {}
        for task in readable_tasks(DIAGNOSIS):
            own = self._reading(task.key, weights)
            figures |= {f"{task.key}_{name}": values for name, values in own.items()}
        names = sorted(set(self.sources))
        for reading in ("binary", "malignancy"):
            areas = [self._reading(reading, weights, self.sources == name)["roc_auc"] for name in names]
            figures[f"sources_{reading}_roc_auc"] = np.mean(areas, axis=0)
        figures["uncalibrated_diagnosis_nll"] = _mean(log_losses(self._truth, self.uncalibrated), weights)
        asked = self.named_sources != ""
        if asked.any():
            right = self.named_sources == self.sources
            figures["source_named"] = _mean(right[asked], weights[:, asked])
        return figures

    def external(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The figures on photos of other cameras: melanoma against benign, by two scores."""
        positive = self.labels == "mel"
        malignant = TASKS["malignancy"].group(self.classes)
        assert malignant is not None
        scores = {
            "external_malignancy_roc_auc": malignant.read(self.probabilities)[:, 1],
            "external_mel_roc_auc": self.probabilities[:, self.classes.index("mel")],
        }
        return {name: areas_under_roc(positive, score, weights) for name, score in scores.items()}

    def left_out(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The figures on photos of a source that was left out."""
        return {
            "left_out_binary_roc_auc": self._reading("binary", weights)["roc_auc"],
            "left_out_malignancy_roc_auc": self._reading("malignancy", weights)["roc_auc"],
            "left_out_diagnosis_nll": self._reading("diagnosis", weights)["nll"],
        }

    @cached_property
    def _truth(self) -> np.ndarray:
        """Int [N], indices of the diagnoses among the classes; only of known sources."""
        return np.array([self.classes.index(label) for label in self.labels], dtype=int)

    def _reading(
        self, name: str, weights: np.ndarray, among: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        task = TASKS[name]
        groups = task.group(self.classes)
        assert groups is not None
        labels = groups.regroup(self._truth)
        chosen = labels >= 0
        if among is not None:
            chosen &= among
        labels, probabilities = labels[chosen], groups.read(self.probabilities[chosen])
        weights = weights[:, chosen]
        ranked = range(len(task.classes)) if len(task.classes) > 2 else [1]
        areas = [areas_under_roc(labels == index, probabilities[:, index], weights) for index in ranked]
        return {
            "nll": _mean(log_losses(labels, probabilities), weights),
            "roc_auc": np.mean(areas, axis=0),
            "accuracy": _mean(probabilities.argmax(axis=1) == labels, weights),
        }


def _teachers(
    trainings: Mapping[Key, Answers], arms: Mapping[str, Mapping[Key, Answers]]
) -> dict[Key, Answers]:
    """What the teachers of an arm say together, where that are other arms: the mean of their log-probabilities."""
    found = {}
    for key, taught in trainings.items():
        braced = next((word for word in taught.about["arguments"] if word.startswith("{")), None)
        members = [arms[name].get(key) for name in braced[1:-1].split(",") if name in arms] if braced else []
        answers = [member for member in members if member is not None]
        if not answers or any(not np.array_equal(one.image_ids, taught.image_ids) for one in answers):
            continue
        mean = np.mean([one.log_probabilities.astype(float) for one in answers], axis=0)
        found[key] = replace(
            taught,
            log_probabilities=log_softmax(mean, axis=1),
            named_sources=np.full(len(taught.image_ids), ""),
            about={**taught.about, "arguments": [braced], "curves": []},
        )
    return found


def _probabilities(answers: Answers) -> np.ndarray:
    """Half precision rounds logarithms, so that their sum is made 1 again: float64 [N, K]."""
    return softmax(answers.log_probabilities.astype(float), axis=1)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return weights @ values.astype(float) / weights.sum(axis=1)


# ---------------------------------------------------------------------------------------------------- arms


class Search:
    """All answers of a search, and their figures.

    Args:
        folder: What train.cross_validation wrote.
        resamples: How many times the lesions are drawn.
    """

    def __init__(self, folder: Path, resamples: int = RESAMPLES) -> None:
        self.images = Images.read(folder)
        self.folder, self.resamples = folder, resamples
        self.arms: dict[str, dict[Key, Answers]] = {}
        for path in sorted(folder.glob("*/*.npz")):
            answers = Answers.read(path)
            about = answers.about
            key = about["fold"], about["seed"], about["without"]
            self.arms.setdefault(about["arm"], {})[key] = answers
        for arm, trainings in list(self.arms.items()):
            if taught := _teachers(trainings, self.arms):
                self.arms[f"{arm}{TEACHER_OF}"] = taught
        self._resampled = cache(self._resample)

    def resampled(self, arm: str, keys: frozenset[Key]) -> dict[str, np.ndarray]:
        """Each figure of some trainings of an arm: float [1 + resamples], first that of the photos themselves.

        Folds are pooled, seeds averaged and resampled too. Of other cameras and left-out sources the figure of
        each training is averaged, since each has seen them all. Two arms with the same trainings are resampled
        alike.
        """
        return self._resampled(arm, keys)

    def _resample(self, arm: str, keys: frozenset[Key]) -> dict[str, np.ndarray]:
        parts = list(self._parts(arm, keys))
        blocks: list[dict[str, np.ndarray]] = []
        for weights in self._weights:
            found: dict[str, dict[int, list[np.ndarray]]] = {}
            for method, seed, rows, scores in parts:
                for name, values in getattr(scores, method)(weights[:, rows]).items():
                    found.setdefault(name, {}).setdefault(seed, []).append(values)
            blocks.append(
                {
                    name: np.stack([np.mean(values, axis=0) for values in by_seed.values()])
                    for name, by_seed in found.items()
                }
            )
        by_seed = {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}
        return {
            name: np.append(by_seed[name][:, 0].mean(), mean_over_seeds(by_seed[name][:, 1:]))
            for name in TITLES
            if name in by_seed
        }

    def _parts(self, arm: str, keys: frozenset[Key]) -> Iterator[tuple[str, int, np.ndarray, Scores]]:
        """The figures to average: which of `Scores`, with which seed, of which photos, with what answers."""
        trainings = {key: self.arms[arm][key] for key in sorted(keys)}
        rows = {key: positions(own.image_ids, self.images.image_ids) for key, own in trainings.items()}
        folds = {key: self.images.folds[own] for key, own in rows.items()}
        for seed in sorted({seed for _, seed, without in trainings if not without}):
            chosen = [(key, folds[key] == key[0]) for key in trainings if key[1:] == (seed, "")]
            yield "held_out", seed, *self._scores([(trainings[key], rows[key], mask) for key, mask in chosen])
        for key, answers in trainings.items():
            other = folds[key] == EXTERNAL
            if not key[2] and other.any():
                yield "external", key[1], *self._scores([(answers, rows[key], other)])
        # A mean over some of the sources would be no mean of the sources.
        if {key[2] for key in trainings} - {""} == set(self.sources):
            for key, answers in trainings.items():
                if key[2]:
                    of_source = self.images.sources[rows[key]] == key[2]
                    yield "left_out", key[1], *self._scores([(answers, rows[key], of_source)])

    def _scores(self, parts: Sequence[tuple[Answers, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, Scores]:
        rows = np.concatenate([own[mask] for _, own, mask in parts])
        answered = [_probabilities(answers) for answers, _, _ in parts]
        calibrated = [
            self._calibrate(probabilities, answers, own)
            for probabilities, (answers, own, _) in zip(answered, parts, strict=True)
        ]
        probabilities, uncalibrated = (
            np.concatenate([values[mask] for values, (_, _, mask) in zip(found, parts, strict=True)])
            for found in (calibrated, answered)
        )
        named = np.concatenate([answers.named_sources[mask] for answers, _, mask in parts])
        classes = parts[0][0].about["classes"]
        return rows, Scores(
            self.images.labels[rows],
            self.images.sources[rows],
            probabilities,
            uncalibrated,
            named,
            classes,
        )

    def _calibrate(self, probabilities: np.ndarray, answers: Answers, rows: np.ndarray) -> np.ndarray:
        """Calibrates each half of the held-out lesions on the other half, and all other photos on both."""
        about, images = answers.about, self.images
        fitting = (images.folds[rows] == about["fold"]) & (images.sources[rows] != about["without"])
        halves = np.array([fold_of(lesion, 2) for lesion in images.lesions[rows].tolist()])
        labels = np.zeros(len(rows), dtype=int)
        labels[fitting] = [about["classes"].index(label) for label in images.labels[rows][fitting]]
        calibrated = probabilities.copy()
        for measured, fitted in (
            (~fitting, fitting),
            *((fitting & (halves == half), fitting & (halves != half)) for half in (0, 1)),
        ):
            once = np.ones((1, int(fitted.sum())))
            slope, *intercepts = recalibrate(labels[fitted], probabilities[fitted], once)[0]
            # Without every class there is nothing to fit.
            if np.isfinite(slope):
                scores = slope * np.log(probabilities[measured]) + np.array([0.0, *intercepts])
                calibrated[measured] = softmax(scores, axis=1)
        return calibrated

    @cached_property
    def sources(self) -> list[str]:
        """Names of the collections that trainings learn from."""
        return sorted(set(self.images.sources[self.images.folds != EXTERNAL].tolist()))

    @property
    def _weights(self) -> Iterator[np.ndarray]:
        """How often each photo counts, float [R, N]: first all once, then as lesions are drawn."""
        yield np.ones((1, len(self.images.image_ids)))
        external = self.images.folds == EXTERNAL
        masks = [mask for mask in (external, ~external) if mask.any()]
        drawn = [lesion_weights(self.images.lesions[mask], self.resamples, seed=0) for mask in masks]
        for blocks in zip(*drawn, strict=True):
            weights = np.empty((len(blocks[0]), len(external)))
            for mask, block in zip(masks, blocks, strict=True):
                weights[:, mask] = block
            yield weights


# -------------------------------------------------------------------------------------------------- report


def report(search: Search, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The content of report.json.

    Args:
        search: The answers.
        plan: The content of search.yaml: gives the order of the arms and the one to compare with, for all of
            them as `reference` or for each as `compared_with`.
    """
    known = [arm for arm in plan["arms"] if arm in search.arms]
    arms = {}
    for arm in [*known, *sorted(search.arms.keys() - set(known))]:
        logger.info("%s", arm)
        own = search.arms[arm]
        found = search.resampled(arm, frozenset(own))
        entry: dict[str, Any] = {
            "arguments": " ".join(next(iter(own.values())).about["arguments"]),
            "trainings": [
                {"fold": fold, "seed": seed, "without": without} for fold, seed, without in sorted(own)
            ],
            "minutes": sum(sum(c["seconds"] for c in one.about["curves"]) for one in own.values())
            / len(own)
            / 60,
            "figures": {
                name: {
                    "value": _value(values),
                    "interval": percentile_intervals({name: values[1:]}).get(name),
                }
                for name, values in found.items()
            },
        }
        own_pair = plan.get("compared_with", {}).get(arm.removesuffix(TEACHER_OF))
        other = own_pair or plan.get("reference")
        if other not in (arm, None) and other in search.arms:
            entry |= {"compared_with": other, "differences": _differences(search, arm, other)}
        arms[arm] = entry
    trainings = [key for own in search.arms.values() for key in own]
    seeds = {seed for _, seed, _ in trainings}
    held_out = np.isin(search.images.folds, [fold for fold, _, _ in trainings])
    method = SEEDED_INTERVAL_METHOD if len(seeds) > 1 else INTERVAL_METHOD
    return {
        "method": method.replace(str(RESAMPLES), str(search.resamples)),
        "images": int(held_out.sum()),
        "lesions": len(set(search.images.lesions[held_out].tolist())),
        "images_of_other_cameras": int((search.images.folds == EXTERNAL).sum()),
        "sources": {name: int((search.images.sources == name).sum()) for name in search.sources},
        "arms": arms,
    }


def _differences(search: Search, arm: str, other: str) -> dict[str, dict[str, Any]]:
    """Each figure minus that of another arm, of the trainings that both have."""
    keys = frozenset(search.arms[arm].keys() & search.arms[other].keys())
    if not keys:
        return {}
    ours, theirs = search.resampled(arm, keys), search.resampled(other, keys)
    differences = {name: ours[name] - theirs[name] for name in ours if name in theirs}
    return {
        name: {"difference": _value(values), "interval": percentile_intervals({name: values[1:]}).get(name)}
        for name, values in differences.items()
    }


def _value(values: np.ndarray) -> float | None:
    return None if np.isnan(values[0]) else float(values[0])


def describe(content: Mapping[str, Any]) -> str:
    """The content of report.json as Markdown: all figures, then the differences."""
    titles = [TITLES[name] for name in SHOWN]
    tables = [
        markdown_table(
            ["arm", "trainings", *titles],
            [
                [
                    arm,
                    str(len(entry["trainings"])),
                    *(
                        _figure_text(entry["figures"].get(name), with_interval=name.startswith("external"))
                        for name in SHOWN
                    ),
                ]
                for arm, entry in content["arms"].items()
            ],
        ),
        "Differences, paired by photo; bold where the interval does not hold 0.",
        markdown_table(
            ["arm", "compared with", *titles],
            [
                [
                    arm,
                    entry["compared_with"],
                    *(_difference_text(entry["differences"].get(name)) for name in SHOWN),
                ]
                for arm, entry in content["arms"].items()
                if entry.get("differences")
            ],
        ),
        _footnote(content),
    ]
    return "\n\n".join(tables) + "\n"


def _footnote(content: Mapping[str, Any]) -> str:
    return (
        f"Intervals: {content['method']}. {content['images']:,} photos in the folds that were held out, "
        f"{content['images_of_other_cameras']:,} of other cameras."
    )


def _figure_text(found: Mapping[str, Any] | None, *, with_interval: bool) -> str:
    if found is None:
        return NOTHING
    return figure(found["value"], found["interval"]) if with_interval else decimal(found["value"])


def _difference_text(found: Mapping[str, Any] | None) -> str:
    return NOTHING if found is None else difference_text(Difference(found["difference"], found["interval"]))


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Writes the report; returns 0, or 2 for a mistake in the call."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Compare the arms of a cross-validation.")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"), help="folder of the answers")
    parser.add_argument("--search", type=Path, default=SEARCH_FILE, help="YAML file with the arms")
    parser.add_argument(
        "--output", type=Path, help="folder of the report; without it, the one of the answers"
    )
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="how often the lesions are drawn")
    options = parser.parse_args(arguments)
    output = options.output or options.runs
    require_folder(output)
    search = Search(options.runs, options.resamples)
    if not search.arms:
        raise ConfigurationError(f"“{options.runs}” holds no answers yet.")
    content = report(search, yaml.safe_load(options.search.read_text(encoding="utf-8")))
    write_json(output / "report.json", content)
    text = describe(content)
    write_atomically(output / "report.md", lambda partial: partial.write_text(text, encoding="utf-8"))
    logger.info("The report is in %s", output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
