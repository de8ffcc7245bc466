"""Results as one HTML file each, to be kept, mailed or printed: `single_image_report` and `evaluation_report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dermadeit.inference.records import ABSTAIN
from dermadeit.metrics.classification import TARGET_FIGURE_NAMES
from dermadeit.reporting.document import (
    Html,
    bullets,
    digest,
    facts,
    heading,
    join,
    name,
    notice,
    page,
    paragraph,
    picture,
    section,
    table,
    text,
)
from dermadeit.reporting.format import counted, percent
from dermadeit.reporting.names import (
    EMPTY_SET,
    PREDICTION_SET,
    SIMILAR_CASES,
    TECHNICAL_DETAILS,
    WITHHELD,
    capitalised,
    score_name,
)
from dermadeit.tasks import BINARY, TRAINABLE_TASKS
from dermadeit.trust.calibration import operating_point_title
from dermadeit.trust.gating import SHOWS_NO_SKIN, warning_sentences
from dermadeit.trust.neighbours import describe_outside, describe_votes

_NOT_CALIBRATED = "none: not calibrated"
_MEASURES: Mapping[str, str] = {
    "sharpness": "Sharpness, in grey levels",
    "contrast": "Contrast, in grey levels",
    "black_share": "Black share of the photo",
    "overexposed_share": "Overexposed share of the photo",
    "short_side": "Short side, in pixels",
}


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
            a `records.Prediction.to_dict` and more. What is missing in it is said to be missing.
        photo_png: The photo, or a smaller copy.
        overlays: Heatmaps over the photo.
        created: When, with a time zone; None for now.
    """
    created = created or datetime.now(UTC)
    readings = exported["readings"]
    body = join(
        (
            notice("About this photo", _warnings(exported)),
            _pictures(photo_png, overlays),
            *(_reading_section(reading) for reading in readings),
            _image_section(exported["image"], readings),
            _origin_section(exported, created),
        ),
        "\n",
    )
    return page("Prediction for one skin lesion photo", body, created)


def _warnings(exported: Mapping[str, Any]) -> list[str]:
    """What was noticed about the photo and the answers, each once."""
    told = (part["warnings"] for part in exported["readings"] if _is_weighed(part))
    parts = [exported["image"].get("warnings") or (), *told]
    # These stand beside the answers that they are about.
    beside = {line for part in exported["readings"] for line in warning_sentences(part.get("warning_codes"))}
    return [line for line in dict.fromkeys(line for part in parts for line in part) if line not in beside]


def _pictures(photo_png: bytes, overlays: Sequence[ReportFigure]) -> Html:
    photo = picture("The photo", photo_png, "The photo that was read")
    drawn = (
        picture(figure.title, figure.png, figure.alt, figure.note, badge=_badge(figure.state))
        for figure in overlays
    )
    return Html(f'<div class="pictures">{photo}{join(drawn)}</div>')


def _badge(state: str) -> Html:
    if not state:
        return Html()
    return Html(f'<span class="badge {text(state)}">{text(state.capitalize())} heatmap</span>')


def _reading_section(reading: Mapping[str, Any]) -> Html:
    key = reading["task"]
    title = reading.get("title") or (TRAINABLE_TASKS[key].title if key in TRAINABLE_TASKS else key)
    titled = title if key == BINARY.key else f"If malignant: {title}"
    caveat = paragraph(reading["caveat"], "note") if reading.get("caveat") else ""
    overridden = bool(reading.get("overridden"))
    banner = notice(
        "This answer is withheld and shown at your request. Reasons" if overridden else "Reasons",
        (reading.get("abstain") or {}).get("reasons", []),
        "withheld",
    )
    if reading["verdict"] == ABSTAIN and not overridden:
        return section(titled, caveat, paragraph(WITHHELD, "answer"), banner)
    return section(
        titled,
        caveat,
        banner,
        paragraph(_class_name(reading, _answered(reading)), "answer"),
        paragraph(_contents(reading), "quiet") if _contents(reading) else "",
        notice("Warning", warning_sentences(reading.get("warning_codes"))),
        notice("Uncertain", reading.get("cautions") or ()),
        _scores(reading),
        _decision(reading),
        _similar_cases(reading),
    )


def _answered(reading: Mapping[str, Any]) -> str:
    """The class that was decided for, which at an operating point need not be the most probable one."""
    decided = reading.get("decision") or reading.get("operating_point") or {}
    return decided.get("decision") or reading["label"]


def _contents(reading: Mapping[str, Any]) -> str:
    """The diagnoses in the answered class, where its name does not give them."""
    task = TRAINABLE_TASKS.get(reading["task"])
    return task.contents.get(_answered(reading), "") if task else ""


def _scores(reading: Mapping[str, Any]) -> Html:
    bars = join(
        Html(
            f"<li{' class=first' if key == _answered(reading) else ''}><b>{text(_class_name(reading, key))}</b>"
            f'<b>{percent(share)}</b><i><span style="width:{100 * share:.1f}%"></span></i></li>'
        )
        for key, share in reading["probabilities"].items()
    )
    if reading["calibrated"]:
        meaning = (
            "The probabilities are calibrated on lesions that were not used for training. They are valid "
            f"for similar photos. Each is the mean of {_views(reading['views'])}."
        )
        named = score_name(calibrated=True)
    else:
        meaning = (
            "The model score is not calibrated: a score of 90\u00a0% does not mean that 90\u00a0% of such "
            f"answers are right. It is the mean of {_views(reading['views'])}."
        )
        named = f"{score_name(calibrated=False)}, not a probability"
    return join((heading(named), Html(f'<ul class="bars">{bars}</ul>'), paragraph(meaning, "quiet")))


def _decision(reading: Mapping[str, Any]) -> Html:
    decision, known = reading.get("decision"), {}
    if decision:
        target = _class_name(reading, decision["target"])
        known["Operating point"] = (
            f"{operating_point_title(decision['operating_point'])}: the answer is “{target.lower()}” at "
            f"{percent(decision['threshold'])} or above"
        )
        known["Decision"] = _class_name(reading, decision["decision"])
        known |= {
            f"{capitalised(TARGET_FIGURE_NAMES[key])} for {target}": _share(decision.get(key))
            for key in ("sensitivity", "specificity")
        }
        share = f"at a prevalence of {percent(decision['prevalence'])}"
        known |= {
            capitalised(TARGET_FIGURE_NAMES[name]): f"{_share(decision.get(key))}, {share}"
            for name, key in (("ppv", "positive_predictive_value"), ("npv", "negative_predictive_value"))
        }
    elif reading.get("operating_point"):
        point = reading["operating_point"]
        known["Operating point"] = operating_point_title(point["name"])
        known["Threshold"] = percent(point["threshold"])
        known["Decision"] = _class_name(reading, point["decision"])
    else:
        known["Operating point"] = _NOT_CALIBRATED if not reading["calibrated"] else "none"
    if _answered(reading) != reading["label"]:
        known["Most probable class"] = _class_name(reading, reading["label"])
    return join((heading("Decision and uncertainty"), facts(known | _doubts(reading))))


def _doubts(reading: Mapping[str, Any]) -> dict[str, Any]:
    possible, stability = reading.get("conformal_set"), reading.get("stability")
    check, views = reading.get("saliency_check"), reading["views"]
    # The views and the similar cases are about this class, even where a threshold decides for another one.
    likely = _class_name(reading, reading["label"])
    if _answered(reading) != reading["label"]:
        likely += ", the most probable class"
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
    return {
        PREDICTION_SET: fitting,
        "Views (the photo turned and mirrored)": steady,
        f"Test of the {tested}": believed,
        SIMILAR_CASES: _likeness(reading),
    }


def _is_weighed(reading: Mapping[str, Any]) -> bool:
    """Whether its similar cases count: not where they would give a withheld answer away."""
    is_strange = not SHOWS_NO_SKIN.isdisjoint((reading.get("abstain") or {}).get("codes", ()))
    return reading["verdict"] != ABSTAIN or (bool(reading.get("overridden")) and not is_strange)


def _likeness(reading: Mapping[str, Any]) -> str:
    votes = reading.get("neighbour_votes")
    if votes is None:
        return "not looked up"
    if not _is_weighed(reading):
        return "no vote, because the photo differs from all training photos"
    task = TRAINABLE_TASKS[reading["task"]]
    return "; ".join(filter(None, (describe_votes(votes, reading["label"], task), describe_outside(votes))))


def _similar_cases(reading: Mapping[str, Any]) -> Html:
    rows = [
        (_case(near), near.get("diagnosis_name") or near["diagnosis"], f"{near['distance']:.3f}")
        for near in reading.get("neighbours") or ()
    ]
    if not rows:
        return Html()
    caption = "The most similar training lesions. Distance 0: the same, 2: the opposite"
    return join((heading(SIMILAR_CASES), table(("Image", "Diagnosis", "Distance"), rows, caption)))


def _case(near: Mapping[str, Any]) -> Html:
    address = near.get("isic_url") or ""
    if not address.startswith("https://"):
        return name(near["image_id"])
    return Html(f'<a href="{text(address)}" rel="noreferrer">{name(near["image_id"])}</a>')


def _image_section(image: Mapping[str, Any], readings: Sequence[Mapping[str, Any]]) -> Html:
    ledger = bullets(image["ledger"]) or paragraph("none")
    quality = next((reading["quality"] for reading in readings if reading.get("quality")), None)
    if quality is None:
        checked = paragraph("not measured: the checkpoint has no limits for it")
    else:
        measures = {
            _MEASURES.get(key, key.replace("_", " ")): percent(value)
            if key.endswith("share")
            else f"{value:.4g}"
            for key, value in quality["measures"].items()
        }
        checked = join((notice("Problems", quality["problems"]), facts(measures)))
    found = [reading["ood_score"] for reading in readings if reading.get("ood_score") is not None]
    oddness = f"{found[0]:.3f} (0: the same as a training photo)" if found else "not measured"
    return section(
        "Image check",
        heading("Image conversion"),
        ledger,
        heading("Quality of the photo"),
        checked,
        facts({"Difference from the training photos": oddness}),
    )


def _origin_section(exported: Mapping[str, Any], created: datetime) -> Html:
    image, app = exported["image"], exported.get("app", {})
    readings, side = exported["readings"], image.get("model_side")
    known: dict[str, Any] = {
        "Made by": f"{app.get('name', 'DermaDeiT')} {app.get('version', '')}",
        "Date": created.isoformat(timespec="seconds"),
        "File": name(readings[0]["file"]) if readings else "not recorded",
        "Image SHA-256": digest(image.get("sha256")),
        "Format": f"{image['format']}, {image['width']:,} × {image['height']:,} px",
        "Input of the models": f"the whole photo, resized to {side} × {side} px" if side else "not recorded",
    }
    for reading in readings:
        known[f"Task {reading['task']}"] = join(
            (
                Html(f"model {name(reading['model'])}, {_views(reading['views'])}, operating point "),
                text(_point_name(reading)),
                Html(f"<br>weights SHA-256 {digest(reading.get('weights_sha256'))}"),
            )
        )
    known["Answers withheld"] = _withheld(readings)
    warned = [reading["task"] for reading in readings if reading.get("warning_codes")]
    known["Answers with a warning"] = ", ".join(warned) or "none"
    return section(TECHNICAL_DETAILS, facts(known))


def _withheld(readings: Sequence[Mapping[str, Any]]) -> str:
    if not (withheld := [reading for reading in readings if reading["verdict"] == ABSTAIN]):
        return "none"
    is_shown = any(reading.get("overridden") for reading in withheld)
    return "shown at your request" if is_shown else "not shown"


def _point_name(reading: Mapping[str, Any]) -> str:
    point = reading.get("operating_point")
    return operating_point_title(point["name"]) if point else "none"


def _share(figure: Mapping[str, Any] | None) -> str:
    """A share as `views.decision.Figure` gives it: measured, or between two bounds."""
    if figure is None:
        return "undefined"
    if figure["low"] != figure["high"]:
        return f"between {percent(figure['low'])} and {percent(figure['high'])}"
    if not figure.get("interval"):
        return percent(figure["low"])
    low, high = figure["interval"]
    return f"{percent(figure['low'])} (95\u00a0% interval {percent(low)} to {percent(high)})"


def _class_name(reading: Mapping[str, Any], key: str) -> str:
    names = reading.get("class_names")
    if not names and reading["task"] in TRAINABLE_TASKS:
        names = TRAINABLE_TASKS[reading["task"]].display_names
    return (names or {}).get(key, key)


def _views(count: int) -> str:
    return f"{counted(count, 'view')} of the photo"
