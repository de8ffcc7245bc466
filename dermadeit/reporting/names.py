"""What models, classes, figures, operating points and parts of a result are called where people read of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from dermadeit.models.specs import model_name
from dermadeit.reporting.format import counted, percent
from dermadeit.tasks import DIAGNOSES, DIAGNOSIS, MALIGNANCY, TASKS, Task

_SHOWN_CLASSES = 3

Metrics = Mapping[str, Any]
"""The `metrics` of a `records.Evaluation`, with the name of its model as `model`."""

WITHHELD = "Answer withheld"
"""Headline in place of an answer."""

WITHHELD_BUT_SHOWN = "This answer is withheld and shown at your request"
"""What stands over a withheld answer that a visitor has asked for all the same."""

PREDICTION_SET = "Still possible (90\u00a0% prediction set)"
"""Title of the classes of a conformal set."""

EMPTY_SET = "none: the photo is not typical of any class"
"""What stands for a conformal set without a class."""

SIMILAR_CASES = "Similar cases"
"""Title of the nearest training lesions."""

HEATMAP_STATES: Mapping[str, str] = MappingProxyType(
    {
        "checking": "Checking the heatmap",
        "reliable": "Reliable heatmap",
        "unreliable": "Unreliable heatmap",
    }
)
"""What is known of a heatmap, and its badge."""

METHOD_TITLES: Mapping[str, str] = MappingProxyType(
    {"grad-sam": "Grad-SAM", "grad-cam": "Grad-CAM", "attention-rollout": "Attention rollout"}
)
"""Each method of `saliency.SALIENCY_METHODS` and its name."""

PHOTO_MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "sharpness": "Sharpness",
        "contrast": "Contrast",
        "black_share": "Black share of the photo",
        "overexposed_share": "Overexposed share of the photo",
        "short_side": "Short side",
    }
)
"""The measures of a `quality.QualityReport`."""

SET_FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "coverage": "images whose prediction set contains the true class",
        "lesion_coverage": "lesions whose prediction set contains the true class",
        "mean_size": "mean number of classes in the set",
        "empty": "no class in the set",
        "multiple": "several classes in the set",
    }
)
"""The figures of `shares.conformal_figures`."""

ABSTENTION_FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "abstained": "answers withheld",
        "accuracy_answered": "accuracy of the other answers",
        "accuracy_withheld": "accuracy of the withheld answers",
        "warned": "answers with a warning",
        "accuracy_warned": "accuracy of the answers with a warning",
    }
)
"""The figures of `shares.abstention_figures`."""

STABILITY_FIGURES: Mapping[str, str] = MappingProxyType(
    {
        "flip_rate": "views with another answer",
        "images_with_flips": "images with such a view",
        "mean_spread": "mean range of the score",
    }
)
"""The figures of `shares.stability_figures`."""

RISK_AREA = "area under the risk–coverage curve"

TECHNICAL_DETAILS = "Technical details"
"""Title of versions, hashes and settings."""


def teacher_networks(identity: str) -> str:
    """The networks of a teacher, equal ones counted, without the hashes of their weights.

    Args:
        identity: The teacher's in `training.json`, such as `deit@sha256:…+deit@sha256:…`.
    """
    networks = Counter(network.partition("@")[0] for network in identity.split("+"))
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in networks.items())


def capitalised(words: str) -> str:
    """The words with a capital first letter; the others stay as they are, unlike with `str.capitalize`."""
    return words[:1].upper() + words[1:]


def model_of(metrics: Metrics) -> str:
    """The name of the model that was evaluated, for people."""
    return model_name(metrics.get("model") or "model without a name")


def interval_warnings(measured: Iterable[Metrics]) -> list[str]:
    """What to know of the intervals of evaluations, each sentence once."""
    found = ((metrics.get("intervals") or {}).get("warning") for metrics in measured)
    return list(dict.fromkeys(filter(None, found)))


def class_name(metrics: Metrics, key: str) -> str:
    """The name of a class of the task that was evaluated, for people; `class_names` names those of one's own."""
    task = TASKS.get(metrics.get("task", ""))
    names = metrics.get("class_names") or (task.display_names if task else {})
    return names.get(key, key)


def score_name(*, calibrated: bool) -> str:
    """What the numbers of an answer may be called."""
    return "Probability" if calibrated else "Model score"


def score_meaning(*, calibrated: bool, views: int) -> str:
    """How the numbers of an answer may be read, as sentences.

    Args:
        calibrated: Whether they are probabilities.
        views: Of the photo that they are the mean of.
    """
    mean = f"the mean of {counted(views, 'view')} of the photo."
    if calibrated:
        return (
            "The probabilities are calibrated on lesions that were not used for training. They are valid "
            f"for similar photos. Each is {mean}"
        )
    return (
        "The model score is not calibrated: a score of 90\u00a0% does not mean that 90\u00a0% of such "
        f"answers are right. It is {mean}"
    )


def lesions_of(task: Task, key: str) -> str:
    """The lesions of a class, such as “melanomas” or “lesions that are not nevi”."""
    _, several = task.nouns[key]
    return (
        several if several[0].isalpha() and not several.startswith("not ") else f"lesions that are {several}"
    )


def prevalence_sentence(task: Task, prevalence: float, calibration_prevalence: float | None) -> str:
    """Which prevalence probabilities hold at.

    Args:
        task: It names the target.
        prevalence: Share of lesions of the target, 0 to 1.
        calibration_prevalence: The same among the calibration images; None where that is unknown.
    """
    text = (
        f"The probabilities are for a prevalence of {percent(prevalence)} ({lesions_of(task, task.target)})"
    )
    if calibration_prevalence is None:
        return f"{text}."
    if prevalence == calibration_prevalence:
        return f"{text}, as in the calibration data."
    return f"{text}, as set. In the calibration data it is {percent(calibration_prevalence)}."


def counts_sentence(task: Task, sensitivity: Metrics, specificity: Metrics) -> str:
    """What a decision rule does to a hundred people with and without the target class, in whole people.

    Args:
        task: It names the target.
        sensitivity: The fields of a `decision.Figure`.
        specificity: Likewise.

    Returns:
        Sentences; empty where one of the figures is known between two bounds only.
    """
    if any(figure["low"] != figure["high"] for figure in (sensitivity, specificity)):
        return ""
    missed, alarms = (_errors_of_hundred(figure) for figure in (sensitivity, specificity))
    target = task.target
    return (
        f"Of 100 {lesions_of(task, target)}, this rule misses {missed}. Of 100 other lesions, it calls {alarms} "
        f"“{task.name_in_text(target)}”."
    )


def _errors_of_hundred(figure: Metrics) -> str:
    """How many of a hundred a figure leaves out, such as “8 (5 to 12)”."""
    count, interval = round(100 * (1 - figure["low"])), figure.get("interval")
    if not interval:
        return str(count)
    low, high = (round(100 * (1 - bound)) for bound in reversed(interval))
    return f"{count} ({low} to {high})"


def is_conditional(task: Task) -> bool:
    """Whether a task leaves diagnoses out: its answer holds only for a lesion that has one of the others."""
    return 0 < len(task.class_of_diagnosis) < len(DIAGNOSES)


def task_title(task: Task) -> str:
    """The title of a task over its answer, with the condition that the answer is given under."""
    return f"If malignant: {task.title}" if is_conditional(task) else task.title


def ranked(probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
    """Class keys and probabilities in the order in which they are shown: the most probable of several first.

    Two classes keep their places, so that one answer is read like the next.
    """
    if len(probabilities) < 3:
        return list(probabilities.items())
    return sorted(probabilities.items(), key=lambda item: -item[1])


def diagnosis_group(task: Task, key: str) -> str:
    """What a diagnosis is where it is not benign, as one word; empty for all else."""
    if task.key != DIAGNOSIS.key:
        return ""
    is_malignant = MALIGNANCY.class_of_diagnosis[key.upper()] == "malignant"
    return "malignant" if is_malignant else "precancer" if key == "ak" else ""


def summed_facts(task: Task, readings: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """What the probabilities of all eight diagnoses come to for the other tasks, each with its title.

    Args:
        task: What was asked; any other than that of the eight has none of it.
        readings: Task key to class key to probability, of the same answer.
    """
    if task.key != DIAGNOSIS.key:
        return []
    return [
        (
            task_title(other),
            ", ".join(
                f"{other.display_names[key]} {percent(readings[other.key][key])}" for key in other.classes
            ),
        )
        for other in TASKS.values()
        if other.key != task.key and other.key in readings
    ]


def most_probable(probabilities: Mapping[str, float]) -> str:
    """Key of the class of the greatest probability."""
    return max(probabilities, key=probabilities.__getitem__)


def answered_without_threshold(probabilities: Mapping[str, float], label: str) -> str:
    """What the class is that a record calls the answer, where a threshold has decided for another one."""
    return (
        "the most probable class"
        if label == most_probable(probabilities)
        else "the answer by class weights, without a threshold"
    )


def threshold_rule(task: Task, key: str) -> str:
    """What a threshold of the score of a class does, as a sentence."""
    return f"At or above this probability the answer is “{task.name_in_text(key)}”."


def context_facts(context: Mapping[str, Any] | None, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """The probabilities with age and sex, or why there are none, with the name that they are shown under.

    Args:
        context: A `records.PatientContextRecord`; None where neither was given.
        names: Class key to its name for people.
    """
    if context is None:
        return []
    age = [] if context["age"] is None else [f"age {context['age']:g}"]
    given = ", ".join([*age, *filter(None, [context["sex"]])])
    if context["label"] is None:
        return [(f"With {given}", context["note"])]
    # The decision is about the answer of the photo, so that this names no class as the answer.
    most_probable_first = ranked(context["probabilities"])[:_SHOWN_CLASSES]
    shares = ", ".join(f"{names[key]} {percent(share)}" for key, share in most_probable_first)
    return [(f"With {given}", " ".join(filter(None, [f"{shares}.", context["note"]])))]
