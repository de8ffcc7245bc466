"""The published comparison: every model's predictions on test in compact files, and the figures made of them.

<task>/images.csv     the test images: image_id, label, lesion_group (empty where the image is the only one of
                      its lesion), source, split
<task>/<model>.csv    image_id and, for each number of views, logit_<class>_views<n>, to four decimals: what the
                      softmax of is what was served, so of a calibrated network the logarithms of its
                      probabilities; and answer_<task>_views<n> where the answer is not always the most probable
                      class
<task>/weights.json   SHA-256 of the weights behind a model's file, where they were one checkpoint's
<task>/leakage_test/image/    the same for models trained and tested on a split by image
<task>/leakage_test/lesion/   their partners, of the same recipe on the split by lesion, where it is not that of
                              the models above

A network of all eight diagnoses is filed once, under diagnosis, and read for every task.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import softmax

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.tabular import read_csv, write_csv
from dermadeit.errors import ErrorCode, ResultFileError
from dermadeit.evaluation.comparison import Comparison, adjust_by_holm, compare
from dermadeit.evaluation.predictions import (
    Measurement,
    PredictionSet,
    finite_numbers,
    keep_shared_images,
    measure,
    measure_sources,
    read_predictions,
)
from dermadeit.files import ASSETS, read_json_if_there, write_json
from dermadeit.models.specs import MODEL_SPECS, OURS
from dermadeit.tasks import DIAGNOSIS, TASKS, Task

BENCHMARK_ROOT = ASSETS / "benchmark"
"""Where the published predictions lie."""

IMAGES_FILE = "images.csv"
WEIGHTS_FILE = "weights.json"
LEAKAGE_TEST = "leakage_test"
LEAKAGE_TEST_OF_0_2 = "leak_meter"
"""What its folder, and its key in `metrics.json`, were called up to version 0.2."""

SplitBy = Literal["lesion", "image"]
"""What the data of a model of the leakage test were split by."""

METRICS_FILE = "metrics.json"
ENSEMBLE_TITLE = "The models above together"
ENSEMBLE_CAPTION = "Ensemble: the mean of the probabilities of all models."

_DECIMALS = 4
_IMAGE_COLUMNS = ("image_id", "label", "lesion_group", "source", "split")
_LOGIT_COLUMN = re.compile(r"logit_.+_views(\d+)")
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

_Measured = Mapping[str, Mapping[int, Measurement]]
"""Model name to number of views to figures."""


@dataclass(frozen=True, eq=False)
class FiledModels:
    """What one folder of the benchmark holds.

    Attributes:
        models: Model name to number of views to predictions, the largest number first. All have the same images
            in the same order; probabilities are the softmax of the logits.
        weights_sha256: Model name to the hash of its weights, where it is known.
    """

    models: Mapping[str, Mapping[int, PredictionSet]]
    weights_sha256: Mapping[str, str]


def add_predictions(
    paths: Sequence[Path],
    root: Path = BENCHMARK_ROOT,
    *,
    name: str | None = None,
    split_by: SplitBy | None = None,
) -> list[Path]:
    """Files the predictions of one or more models, replacing all that was filed of these models before.

    Args:
        paths: `predictions.csv` files, or folders that `evaluate` wrote. Those of one model with other numbers of
            views belong into one call.
        root: The benchmark. The first model of a task decides which images it holds.
        name: Name to file the model under instead of its own; then the tables must be of one model.
        split_by: File them for the leakage test, as one or the other of its two arms.

    Returns:
        The files that were written for the models.

    Raises:
        ResultFileError: The predictions contradict each other or the test images of the benchmark.
    """
    sets_of: dict[tuple[str, str], dict[int, PredictionSet]] = defaultdict(dict)
    weights_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in paths:
        table = path / "predictions.csv" if path.is_dir() else path
        for predictions in read_predictions(table):
            key = predictions.task.key, predictions.model
            if predictions.network:
                raise ResultFileError(
                    f"The predictions of {predictions.model} for the task {predictions.task.key} are of a network "
                    "of more classes. Evaluate it without naming a task: that file holds what it says for each.",
                    code=ErrorCode.PREDICTIONS_DIFFER,
                )
            if predictions.views in sets_of[key]:
                raise ResultFileError(
                    f"There are two sets of predictions of {predictions.model} with {predictions.views} views. "
                    "Give one.",
                    code=ErrorCode.DUPLICATE_PREDICTIONS,
                )
            sets_of[key][predictions.views] = predictions
            weights_of[key] |= _weights_beside(table, predictions.model)
    if name is not None and len({model for _, model in sets_of}) > 1:
        raise ResultFileError("One name was given, but the tables have several models. Give those of one.")
    written = []
    for (task, model), by_views in sets_of.items():
        if len(weights_of[task, model]) > 1:
            raise ResultFileError(
                f"The predictions of {model} come from different weights. Evaluate one checkpoint with each "
                "number of views.",
                code=ErrorCode.WEIGHTS_DIFFER,
            )
        folder = leakage_folder(root, task, split_by) if split_by else root / task
        written.append(
            _write_model(folder, name or model, by_views, next(iter(weights_of[task, model]), None))
        )
    return written


def read_benchmark(folder: Path, task: Task) -> FiledModels:
    """Reads the images and every model of one folder of the benchmark.

    Raises:
        ResultFileError: A file is missing, or contradicts `images.csv`.
    """
    paths = sorted(path for path in folder.glob("*.csv") if path.name != IMAGES_FILE)
    images = read_csv(folder / IMAGES_FILE).rows if paths else []
    models = {path.stem: _read_model(path, task, images) for path in paths}
    weights = read_json_if_there(folder / WEIGHTS_FILE)
    shared = folder.parent / DIAGNOSIS.key
    if folder.name == task.key != DIAGNOSIS.key and (shared / IMAGES_FILE).is_file():
        of_eight = read_benchmark(shared, DIAGNOSIS)
        beside = next(iter(models.values()), {})
        for model in of_eight.models.keys() - models.keys():
            models[model] = _read_as(of_eight.models[model], task, beside)
            weights |= {model: of_eight.weights_sha256.get(model, "")}
    if not models:
        raise ResultFileError(
            f"The benchmark has no model for the task {task.key}. File one with “benchmark add”.",
            code=ErrorCode.EMPTY_BENCHMARK,
        )
    return FiledModels(
        {model: models[model] for model in sorted(models)},
        {model: digest for model, digest in weights.items() if digest},
    )


def filed_tasks(root: Path = BENCHMARK_ROOT) -> tuple[Task, ...]:
    """The tasks that models were filed for; all of them where there is a network of eight diagnoses.

    Raises:
        ResultFileError: Nothing was filed.
    """
    shared = (root / DIAGNOSIS.key / IMAGES_FILE).is_file()
    found = [task for task in TASKS.values() if shared or (root / task.key).is_dir()]
    if not found:
        raise ResultFileError(
            "The benchmark has no model. File one with “benchmark add”.", code=ErrorCode.EMPTY_BENCHMARK
        )
    return tuple(found)


def measure_benchmark(root: Path, task: Task) -> dict[str, Any]:
    """Computes the content of a task's `metrics.json`.

    Args:
        root: The benchmark, laid out as `benchmark` describes.
        task: The task.

    Returns:
        JSON-ready: how many `images` and `lesions` there are, `models` (name to `views` to figures with
        intervals, those with the most views by source too), `comparisons` (name to ours minus that model;
        `p_value_holm` is adjusted over all of them), `ensemble` (figures of the mean of all models' probabilities,
        a hint at what the data allows; None where there is one model) and `leakage_test` (`lesion` and `image`,
        each like the whole without comparisons, or None where nothing was filed).

    Raises:
        ResultFileError: A file is missing or contradicts the others.
    """
    filed = read_benchmark(root / task.key, task)
    measured = _measure(filed)
    return {
        "task": task.key,
        **_describe(filed, measured),
        "comparisons": _compare_all(measured),
        "ensemble": _measure_ensemble(filed) if len(filed.models) > 1 else None,
        LEAKAGE_TEST: {
            split_by: _describe_folder(leakage_folder(root, task.key, split_by), task)
            for split_by in get_args(SplitBy)
        },
        "dermadeit_version": VERSION,
        "disclaimer": DISCLAIMER,
    }


def leakage_folder(root: Path, task: str, split_by: SplitBy) -> Path:
    """Where an arm of the leakage test of a task is filed: the folder of version 0.2 where it is there."""
    folder, before = (root / task / name / split_by for name in (LEAKAGE_TEST, LEAKAGE_TEST_OF_0_2))
    return before if before.is_dir() and not folder.is_dir() else folder


def read_test_images(task: Task) -> dict[str, dict[str, str]]:
    """Identifier to label, lesion group, source and split of a task's test images, as far as they are filed."""
    path = BENCHMARK_ROOT / task.key / IMAGES_FILE
    if not path.is_file():
        return {} if task.key == DIAGNOSIS.key else _read_test_images_as(task)
    return {
        row["image_id"]: {**row, "lesion_group": row["lesion_group"] or row["image_id"]}
        for row in read_csv(path).rows
    }


def _read_test_images_as(task: Task) -> dict[str, dict[str, str]]:
    """The test images of all diagnoses that lie in a task; none where the eight can't form its classes."""
    groups = task.group(DIAGNOSIS.classes)
    if groups is None:
        return {}
    class_of = {
        DIAGNOSIS.classes[index]: key
        for key, members in zip(task.classes, groups.members, strict=True)
        for index in members
    }
    return {
        image_id: {**image, "label": class_of[image["label"]]}
        for image_id, image in read_test_images(DIAGNOSIS).items()
        if image["label"] in class_of
    }


def is_published(task: Task) -> bool:
    """Whether there are published predictions or figures of a task."""
    return (BENCHMARK_ROOT / task.key).is_dir()


def read_shipped_predictions(
    task: Task, models: Sequence[str] | None = None, root: Path = BENCHMARK_ROOT
) -> tuple[PredictionSet, ...]:
    """The filed predictions of the test images, of each model those with the most views.

    Args:
        task: Of which task.
        models: Names of the models; None for all.
        root: The benchmark.

    Raises:
        ResultFileError: There is no such model, or a file contradicts the others.
    """
    filed = read_benchmark(root / task.key, task)
    unknown = [model for model in models or () if model not in filed.models]
    if unknown:
        raise ResultFileError(
            f"There are no shipped predictions of a model “{unknown[0]}” for the task “{task.key}”, and no such "
            f"file. The shipped models are {', '.join(filed.models)}.",
            code=ErrorCode.NO_PREDICTIONS,
        )
    return tuple(
        replace(by_views[max(by_views)], weights_sha256=filed.weights_sha256.get(model, ""))
        for model in (filed.models if models is None else dict.fromkeys(models))
        for by_views in (filed.models[model],)
    )


def find_shipped_beside(sets: Sequence[PredictionSet], models: Sequence[str]) -> tuple[PredictionSet, ...]:
    """The shipped predictions to stand beside those of one's own models, on the same images.

    Args:
        sets: Predictions of one task.
        models: Names of the models that are wished for.

    Returns:
        Those of the wished models that have predictions here; none where a table is of a model of this project, or
        where an image of a table is no test image.
    """
    task = sets[0].task
    folder = BENCHMARK_ROOT / task.key
    if any(part.model in MODEL_SPECS for part in sets) or not read_test_images(task):
        return ()
    filed = read_benchmark(folder, task).models
    wished = [model for model in dict.fromkeys(models) if model in filed]
    shipped = read_shipped_predictions(task, wished)
    read = set(shipped[0].image_ids) if shipped else set()
    return shipped if all(read >= set(part.image_ids) for part in sets) else ()


def _write_model(
    folder: Path, model: str, by_views: Mapping[int, PredictionSet], weights: str | None
) -> Path:
    if not _MODEL_NAME.fullmatch(model) or f"{model}.csv" == IMAGES_FILE:
        raise ResultFileError(
            f"“{model}” is not a valid model name in the benchmark. Use small letters, digits, dots and "
            f"dashes."
        )
    any_views = next(iter(by_views.values()))
    images = (
        read_csv(folder / IMAGES_FILE).rows
        if (folder / IMAGES_FILE).is_file()
        else _image_rows(any_views.take(np.argsort(any_views.image_ids)))
    )
    for predictions in by_views.values():
        _check_images(predictions, images)
    columns = ["image_id"]
    rows: list[dict[str, Any]] = [{"image_id": image["image_id"]} for image in images]
    for views, predictions in sorted(by_views.items(), reverse=True):
        names = _logit_columns(predictions.task, views)
        columns += names
        logits_of = dict(
            zip(predictions.image_ids, _served_logits(predictions).round(_DECIMALS).tolist(), strict=True)
        )
        for row in rows:
            row |= dict(zip(names, logits_of[row["image_id"]], strict=True))
        for key, answers in _weighed_answers(predictions).items():
            columns.append(_answer_column(key, views))
            answer_of = dict(zip(predictions.image_ids, answers, strict=True))
            for row in rows:
                row[columns[-1]] = answer_of[row["image_id"]]
    write_csv(folder / IMAGES_FILE, _IMAGE_COLUMNS, images)
    write_csv(folder / f"{model}.csv", columns, rows)
    known = read_json_if_there(folder / WEIGHTS_FILE) | {model: weights}
    write_json(folder / WEIGHTS_FILE, {key: known[key] for key in sorted(known) if known[key]})
    return folder / f"{model}.csv"


def _served_logits(predictions: PredictionSet) -> np.ndarray:
    """Float [N, K] whose softmax was served."""
    is_calibrated = bool(predictions.served) and all(flags.calibrated for flags in predictions.served)
    return np.log(predictions.probabilities) if is_calibrated else predictions.logits


def _image_rows(predictions: PredictionSet) -> list[dict[str, str]]:
    classes = predictions.task.classes
    columns = (
        predictions.image_ids,
        [classes[label] for label in predictions.labels],
        [
            "" if group == image_id else group
            for image_id, group in zip(predictions.image_ids, predictions.lesion_groups, strict=True)
        ],
        predictions.sources,
        predictions.splits,
    )
    return [dict(zip(_IMAGE_COLUMNS, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _check_images(predictions: PredictionSet, images: Sequence[Mapping[str, str]]) -> None:
    other_splits = set(predictions.splits) - {"test", ""}
    if other_splits:
        raise ResultFileError(
            f"The predictions of {predictions.model} are of the split {', '.join(sorted(other_splits))}. "
            "The benchmark is for the test split. Evaluate the model on that split alone.",
            code=ErrorCode.NOT_TEST,
        )
    expected = {image["image_id"]: image for image in images}
    given = {row["image_id"]: row for row in _image_rows(predictions)}
    differing = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
    if differing:
        raise ResultFileError(
            f"The predictions of {predictions.model} are not of the images of the benchmark: "
            f"{len(differing)} images, such as {differing[0]}, are missing, additional, or differ in label, "
            "lesion, source or split. Evaluate the same table, or delete the folder of the task and file every "
            "model again.",
            code=ErrorCode.PREDICTIONS_DIFFER,
        )


def _read_model(path: Path, task: Task, images: Sequence[Mapping[str, str]]) -> dict[int, PredictionSet]:
    table = read_csv(path)
    image_ids = tuple(image["image_id"] for image in images)
    if tuple(row.get("image_id") for row in table.rows) != image_ids:
        raise ResultFileError(
            f"“{path.name}” does not have the images of {IMAGES_FILE} in their order. File the model again "
            f"with "
            "“benchmark add”.",
            code=ErrorCode.PREDICTIONS_DIFFER,
        )
    nothing = np.empty((len(images), 0))
    labelled = PredictionSet(
        task,
        path.stem,
        views=0,
        image_ids=image_ids,
        labels=np.array([task.index_of(image["label"]) for image in images], dtype=int),
        logits=nothing,
        probabilities=nothing,
        lesion_groups=tuple(image["lesion_group"] or image["image_id"] for image in images),
        sources=tuple(image["source"] for image in images),
        splits=tuple(image["split"] for image in images),
    )
    matches = [match for column in table.columns if (match := _LOGIT_COLUMN.fullmatch(column))]
    by_views = {}
    for views in sorted({int(match[1]) for match in matches}, reverse=True):
        logits = finite_numbers(table, _logit_columns(task, views), path)
        answers = {
            key: tuple(row[_answer_column(key, views)] for row in table.rows)
            for key in TASKS
            if _answer_column(key, views) in table.columns
        }
        own = answers.pop(task.key, ())
        by_views[views] = replace(
            labelled,
            views=views,
            logits=logits,
            probabilities=softmax(logits, axis=1),
            decided=np.array([task.index_of(key) for key in own]) if own else None,
            other_answers=answers,
        )
    return by_views


def _read_as(
    of_eight: Mapping[int, PredictionSet], task: Task, beside: Mapping[int, PredictionSet]
) -> dict[int, PredictionSet]:
    """The predictions of a network of eight diagnoses for a task, in the order of a model that is there already.

    Args:
        of_eight: Number of views to predictions.
        task: The task.
        beside: The predictions of the other model; empty for none.
    """
    read: dict[int, PredictionSet] = {}
    for views, part in of_eight.items():
        found = part.read_as(task)
        assert found is not None, "eight diagnoses form every task"
        for first in list(beside.values())[:1]:
            if set(first.image_ids) != set(found.image_ids):
                raise ResultFileError(
                    f"The predictions of {part.model} for all diagnoses are of other images than those for the "
                    f"task {task.key}. File every model again with “benchmark add”.",
                    code=ErrorCode.PREDICTIONS_DIFFER,
                )
            _, found = keep_shared_images((first, found))
        read[views] = found
    return read


def _weighed_answers(predictions: PredictionSet) -> dict[str, tuple[str, ...]]:
    """Key of each task to what was answered, where that is not always the most probable class."""
    others = (predictions.read_as(TASKS[key]) for key in predictions.other_answers)
    kept = {
        part.task.key: predictions.other_answers[part.task.key]
        for part in others
        if part is not None and part.decided is not None
    }
    if predictions.decided is not None:
        classes = predictions.task.classes
        kept[predictions.task.key] = tuple(classes[index] for index in predictions.decided)
    return kept


def _answer_column(key: str, views: int) -> str:
    return f"answer_{key}_views{views}"


def _logit_columns(task: Task, views: int) -> list[str]:
    return [f"logit_{key}_views{views}" for key in task.classes]


def _weights_beside(table: Path, model: str) -> set[str]:
    """The hash that `evaluate` wrote beside its table, if it did."""
    digest = read_json_if_there(table.parent / "metrics.json").get(model, {}).get("weights_sha256")
    return {digest} if digest else set()


def _measure(filed: FiledModels) -> _Measured:
    return {
        model: {views: measure(predictions) for views, predictions in by_views.items()}
        for model, by_views in filed.models.items()
    }


def _measure_ensemble(filed: FiledModels) -> dict[str, Any]:
    members = [by_views[max(by_views)] for by_views in filed.models.values()]
    mean = np.mean([member.probabilities for member in members], axis=0)
    return measure(replace(members[0], probabilities=mean, logits=np.log(mean))).to_dict()


def _describe_folder(folder: Path, task: Task) -> dict[str, Any] | None:
    if not folder.is_dir():
        return None
    filed = read_benchmark(folder, task)
    return _describe(filed, _measure(filed))


def _describe(filed: FiledModels, measured: _Measured) -> dict[str, Any]:
    [anyone, *_] = [predictions for by_views in filed.models.values() for predictions in by_views.values()]
    return {
        "images": len(anyone),
        "lesions": len(set(anyone.lesion_groups)),
        "weights_sha256": dict(filed.weights_sha256),
        "models": {model: {"views": _figures(by_views)} for model, by_views in measured.items()},
    }


def _figures(by_views: Mapping[int, Measurement]) -> dict[str, Any]:
    figures = {str(views): measurement.to_dict() for views, measurement in by_views.items()}
    most = max(by_views)
    figures[str(most)]["sources"] = measure_sources(by_views[most].predictions)
    return figures


def _compare_all(measured: _Measured) -> dict[str, Any]:
    if OURS not in measured:
        return {}
    results = {}
    for model, by_views in measured.items():
        if model != OURS:
            views, comparison = _compare_at_most_views(measured[OURS], by_views)
            results[model] = {"views": views, **comparison.to_dict()}
    for test in ("mcnemar", "delong"):
        outcomes = [result[test] for result in results.values() if result[test] is not None]
        adjusted = adjust_by_holm([outcome["p_value"] for outcome in outcomes])
        for outcome, p_value in zip(outcomes, adjusted, strict=True):
            outcome["p_value_holm"] = p_value
    return results


def _compare_at_most_views(
    ours: Mapping[int, Measurement], theirs: Mapping[int, Measurement]
) -> tuple[list[int], Comparison]:
    """With the most views that both have, else with the most of each; those two numbers, and the comparison."""
    shared = ours.keys() & theirs.keys()
    views = [max(shared or ours), max(shared or theirs)]
    return views, compare(ours[views[0]], theirs[views[1]])
