"""The reading of one photo as one HTML file, to be kept, mailed or printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dermadeit.inference.records import ABSTAIN
from dermadeit.metrics.classification import TARGET_FIGURE_NAMES
from dermadeit.reporting.document import data_address, render_document
from dermadeit.reporting.format import count, decimal, percent
from dermadeit.reporting.names import (
    EMPTY_SET,
    HEATMAP_STATES,
    PHOTO_MEASURES,
    PREDICTION_SET,
    SIMILAR_CASES,
    answered_without_threshold,
    capitalised,
    context_facts,
    counts_sentence,
    diagnosis_group,
    most_probable,
    prevalence_sentence,
    ranked,
    score_meaning,
    score_name,
    summed_facts,
    task_title,
)
from dermadeit.reporting.templates import isolated
from dermadeit.tasks import OWN, TASKS, Task, create_own_task
from dermadeit.trust.calibration import operating_point_title
from dermadeit.trust.gating import (
    ANSWERED,
    SHOWS_NO_SKIN,
    STATE_WORDS,
    WARNED,
    WITHHELD,
    warning_sentences,
)
from dermadeit.trust.neighbours import describe_outside, describe_vote

_NOT_CALIBRATED = "none: not calibrated"


@dataclass(frozen=True)
class ReportFigure:
    """A picture beside the photo.

    Attributes:
        title: Shown below it.
        png: The file.
        alt: What it shows, in words.
        note: More about it; shown below the title.
        state: Whether it is `reliable` or `unreliable`; empty where that is no question.
    """

    title: str
    png: bytes
    alt: str
    note: str = ""
    state: str = ""


def single_image_report(
    exported: Mapping[str, Any],
    photo_png: bytes,
    overlays: Sequence[ReportFigure] = (),
    *,
    created: datetime | None = None,
) -> str:
    """The reading of one photo as an HTML document that needs no network.

    Args:
        exported: What `views.exports.export` gives: `image`, `scores`, `override` and `readings`, of which each is
            a `records.Prediction.to_dict` and more; `lesion`, a `lesion.LesionPrediction.to_dict`, where several
            photos were read. What is missing in it is named.
        photo_png: The photo, or a smaller copy.
        overlays: Heatmaps over the photo.
        created: When, with a time zone; None for now.
    """
    image, readings = exported["image"], exported["readings"]
    app = exported.get("app", {})
    photo = ReportFigure("The photo", photo_png, "The photo that was read")
    strange = [reading["ood_score"] for reading in readings if reading.get("ood_score") is not None]
    warned = [reading["task"] for reading in readings if reading.get("warning_codes")]
    return render_document(
        "reporting/photo_report.html",
        "Prediction for one skin lesion photo",
        created,
        warnings=_warnings(exported),
        pictures=[_picture(figure) for figure in (photo, *overlays)],
        lesion=_lesion(exported["lesion"], readings[-1]) if exported.get("lesion") else None,
        readings=[_reading(reading) for reading in readings],
        conversion=image["ledger"],
        quality=_quality(readings),
        difference=f"{decimal(strange[0])} (0: the same as a training photo)" if strange else "not measured",
        made_by=f"{app.get('name', 'DermaDeiT')} {app.get('version', '')}",
        image={**image, "file": readings[0]["file"], "side": image.get("model_side")},
        withheld=_withheld(readings),
        warned=", ".join(warned) or "none",
    )


def _warnings(exported: Mapping[str, Any]) -> list[str]:
    """What was noticed about the photo and the answers, each once."""
    warnings = (part["warnings"] for part in exported["readings"] if _is_weighed(part))
    parts = [exported["image"].get("warnings") or (), *warnings]
    # These stand beside the answers that they are about.
    beside = {line for part in exported["readings"] for line in warning_sentences(part.get("warning_codes"))}
    return [line for line in dict.fromkeys(line for part in parts for line in part) if line not in beside]


def _picture(figure: ReportFigure) -> dict[str, Any]:
    return {
        **vars(figure),
        "address": data_address(figure.png, "png"),
        "badge": HEATMAP_STATES.get(figure.state, figure.state),
    }


def _reading(reading: Mapping[str, Any]) -> dict[str, Any]:
    """What the template asks for of one answer."""
    task, answered = _task(reading), _answered(reading)
    calibrated, overridden = reading["calibrated"], bool(reading.get("overridden"))
    is_hidden = reading["verdict"] == ABSTAIN and not overridden
    return {
        "task": task.key,
        "title": task_title(task),
        "caveat": reading.get("caveat"),
        "is_hidden": is_hidden,
        "state": _state(reading),
        "status": capitalised(STATE_WORDS[_state(reading)]),
        "reasons": (reading.get("abstain") or {}).get("reasons", []),
        "answer": _class_name(reading, answered),
        # Of the answered class, where its name does not give its diagnoses.
        "contents": task.contents.get(answered),
        "warnings": warning_sentences(reading.get("warning_codes")),
        "cautions": reading.get("cautions") or (),
        "scores_title": score_name(calibrated=calibrated) + ("" if calibrated else ", not a probability"),
        "scores_meaning": score_meaning(calibrated=calibrated, views=reading["views"]),
        "bars": _bars(reading, reading["probabilities"], answered),
        "sums": summed_facts(
            task, {key: one["probabilities"] for key, one in (reading.get("readings") or {}).items()}
        ),
        "prevalence": _prevalence(reading, task),
        "decision": _decision(reading),
        "uncertainty": _uncertainty(reading),
        "cases": [_case(near) for near in reading.get("neighbours") or ()],
        "model": reading["model"],
        "views": reading["views"],
        "point": _point_name(reading),
        "weights_sha256": reading.get("weights_sha256"),
    }


def _bars(
    reading: Mapping[str, Any], probabilities: Mapping[str, float], answered: str
) -> list[dict[str, Any]]:
    task = _task(reading)
    return [
        {
            "name": _class_name(reading, key),
            "group": diagnosis_group(task, key),
            "share": share,
            "is_answer": key == answered,
        }
        for key, share in ranked(probabilities)
    ]


def _lesion(lesion: Mapping[str, Any], reading: Mapping[str, Any]) -> dict[str, Any]:
    """What the template asks for of several photos of one lesion; the reading is that of the first photo."""
    decided = _decided(lesion)
    return {
        "title": task_title(_task(reading)),
        "used": lesion["photos_used"],
        "answer": _class_name(reading, decided) if decided else "",
        "bars": _bars(reading, lesion["probabilities"], decided) if decided else [],
        "photos": [(isolated(photo["file"]), *_photo(photo, reading)) for photo in lesion["photos"]],
    }


def _decided(record: Mapping[str, Any]) -> str:
    """The class that an operating point decides for, else the label; empty without an answer."""
    return (record.get("operating_point") or {}).get("decision") or record["label"] or ""


def _photo(photo: Mapping[str, Any], reading: Mapping[str, Any]) -> tuple[str, str]:
    """Answer and score of one photo of a lesion, or why there is none."""
    if photo["error"]:
        return "not read", photo["error"]["message"]
    if photo["verdict"] == ABSTAIN:
        return STATE_WORDS[WITHHELD], ""
    decided = _decided(photo)
    return _class_name(reading, decided), percent(photo["probabilities"][decided])


def _state(reading: Mapping[str, Any]) -> str:
    """A key of `gating.STATE_WORDS`."""
    if reading["verdict"] == ABSTAIN:
        return WITHHELD
    return WARNED if reading.get("warning_codes") else ANSWERED


def _prevalence(reading: Mapping[str, Any], task: Task) -> str:
    """Which prevalence the probabilities hold at, as a sentence; empty where that is unknown."""
    if reading.get("prevalence") is None:
        return ""
    known = (reading.get("decision") or {}).get("calibration_prevalence")
    return prevalence_sentence(task, reading["prevalence"], known)


def _task(reading: Mapping[str, Any]) -> Task:
    if reading["task"] != OWN:
        return TASKS[reading["task"]]
    names = reading["class_names"]
    return create_own_task(tuple(names), names, title=reading["title"])


def _answered(reading: Mapping[str, Any]) -> str:
    """The class that was decided for, which at an operating point need not be the most probable one."""
    return (reading.get("decision") or {}).get("decision") or reading["label"]


def _decision(reading: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the threshold decides and how good it is, each with its name."""
    decision, known = reading.get("decision"), []
    if decision:
        task, key = _task(reading), decision["target"]
        rule = (
            f"{operating_point_title(decision['operating_point'])}: the answer is “{task.name_in_text(key)}” at "
            f"{percent(decision['threshold'])} or above"
        )
        known += [("Operating point", rule), ("Decision", _class_name(reading, decision["decision"]))]
        known += [
            (
                f"{capitalised(TARGET_FIGURE_NAMES[name])} for {task.display_names[key]}",
                _share(decision.get(name)),
            )
            for name in ("sensitivity", "specificity")
        ]
        if counts := counts_sentence(task, decision["sensitivity"], decision["specificity"]):
            known.append(("In numbers of people", counts))
        share = f"at a prevalence of {percent(decision['prevalence'])}"
        known += [
            (capitalised(TARGET_FIGURE_NAMES[name]), f"{_share(decision.get(key))}, {share}")
            for name, key in (("ppv", "positive_predictive_value"), ("npv", "negative_predictive_value"))
        ]
    else:
        known.append(("Operating point", "none" if reading["calibrated"] else _NOT_CALIBRATED))
    likeliest = most_probable(reading["probabilities"])
    if _answered(reading) != likeliest:
        known.append(("Most probable class", _class_name(reading, likeliest)))
    names = {key: _class_name(reading, key) for key in reading["probabilities"]}
    return [*known, *context_facts(reading.get("patient_context"), names)]


def _uncertainty(reading: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How sure the answer is, each measure with its name."""
    possible, stability = reading.get("conformal_set"), reading.get("stability")
    check, views = reading.get("saliency_check"), reading["views"]
    # The views and the similar cases are about this class, even where a threshold decides for another one.
    likely = _class_name(reading, reading["label"])
    if _answered(reading) != reading["label"]:
        likely += f", {answered_without_threshold(reading['probabilities'], reading['label'])}"
    if possible is None:
        fitting = _NOT_CALIBRATED
    else:
        fitting = ", ".join(_class_name(reading, key) for key in possible) or EMPTY_SET
    if stability is None:
        steady = "not measured: one view only"
    else:
        steady = (
            f"{round(stability['agreeing_share'] * views)} of {views} agree on {likely}; the range of its "
            f"score is {percent(stability['spread'])}"
        )
    tested, believed = "heatmap", "not tested"
    if check is not None:
        # A picture above may be of another method or class.
        tested = f"{check['method']} heatmap for {_class_name(reading, check['class'])}"
        believed = (
            "reliable: hiding the highlighted area lowered the score more than hiding random areas"
            if check["faithful"]
            else "unreliable: hiding the highlighted area changed the score no more than hiding a random area"
        )
    return [
        (PREDICTION_SET, fitting),
        ("Views (the photo turned and mirrored)", steady),
        (f"Test of the {tested}", believed),
        (SIMILAR_CASES, _votes(reading)),
    ]


def _is_weighed(reading: Mapping[str, Any]) -> bool:
    """Whether its similar cases count: not where they would give a withheld answer away."""
    is_strange = not SHOWS_NO_SKIN.isdisjoint((reading.get("abstain") or {}).get("codes", ()))
    return reading["verdict"] != ABSTAIN or (bool(reading.get("overridden")) and not is_strange)


def _votes(reading: Mapping[str, Any]) -> str:
    votes = reading.get("neighbour_votes")
    if votes is None:
        return "not looked up"
    if not _is_weighed(reading):
        return "no vote, because the photo differs from all training photos"
    task = _task(reading)
    return "; ".join(filter(None, (describe_vote(votes, reading["label"], task), describe_outside(votes))))


def _case(near: Mapping[str, Any]) -> dict[str, Any]:
    address = near.get("isic_url") or ""
    return {
        "image_id": near["image_id"],
        "address": address if address.startswith("https://") else "",
        "diagnosis": near.get("diagnosis_name") or near["diagnosis"],
        "distance": near["distance"],
    }


def _quality(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Problems and measures of the photo; None where no checkpoint has limits for them."""
    found = next((reading["quality"] for reading in readings if reading.get("quality")), None)
    return found and {
        "problems": found["problems"],
        "measures": [(PHOTO_MEASURES[key], _measure(key, value)) for key, value in found["measures"].items()],
    }


def _measure(key: str, value: float) -> str:
    """A measure of the photo with its unit."""
    if key == "short_side":
        return f"{count(round(value))}\u00a0px"
    return percent(value) if key.endswith("share") else f"{decimal(value, 1)} grey levels"


def _withheld(readings: Sequence[Mapping[str, Any]]) -> str:
    if not (withheld := [reading for reading in readings if reading["verdict"] == ABSTAIN]):
        return "none"
    is_shown = any(reading.get("overridden") for reading in withheld)
    return "shown at your request" if is_shown else "not shown"


def _point_name(reading: Mapping[str, Any]) -> str:
    point = reading.get("operating_point")
    return operating_point_title(point["name"]) if point else "none"


def _share(figure: Mapping[str, Any] | None) -> str:
    """A share as `decision.Figure` gives it: measured, or between two bounds."""
    if figure is None:
        return "undefined"
    if figure["low"] != figure["high"]:
        return f"between {percent(figure['low'])} and {percent(figure['high'])}"
    if not figure.get("interval"):
        return percent(figure["low"])
    low, high = figure["interval"]
    return f"{percent(figure['low'])} (95\u00a0% interval {percent(low)} to {percent(high)})"


def _class_name(reading: Mapping[str, Any], key: str) -> str:
    names = reading.get("class_names") or TASKS[reading["task"]].display_names
    return names.get(key, key)
