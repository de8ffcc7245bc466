"""The result: for each task the verdict, the decision, the probabilities and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from dermadeit.inference.decision import (
    OPERATING_POINT_TITLES,
    OWN_THRESHOLD,
    DecisionSettings,
    Figure,
    ThresholdDecision,
)
from dermadeit.inference.predictor import NOT_CALIBRATED
from dermadeit.inference.prevalence import apply_settings
from dermadeit.inference.records import ABSTAIN, Prediction
from dermadeit.metrics.classification import TARGET_FIGURE_NAMES
from dermadeit.reporting.format import NOTHING, counted, percent, percent_span
from dermadeit.reporting.names import (
    EMPTY_SET,
    WITHHELD,
    answered_without_threshold,
    capitalised,
    context_facts,
    counts_sentence,
    is_conditional,
    most_probable,
    prevalence_sentence,
    ranked,
    score_meaning,
    task_title,
)
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.trust.calibration import Calibration
from dermadeit.trust.gating import (
    ANSWERED,
    SHOWS_NO_SKIN,
    STATE_WORDS,
    WARNED,
    answer_state,
    warning_sentences,
)
from dermadeit.trust.gating import WITHHELD as WITHHELD_STATE
from dermadeit.views.page.html import score_name
from dermadeit.views.single.reading import Reading, ViewScores, view_scores

_DOT_WIDTH = 0.028
"""Of the line that the dots stand on: closer dots are stacked."""

Calibrations = Mapping[str, Calibration | None]


def result_html(
    reading: Reading, task_key: str, calibrations: Calibrations, settings: DecisionSettings | None = None
) -> str:
    """The answers that belong to a chosen task: before a conditional one, one that leaves nothing out.

    Args:
        reading: The photo's reading.
        task_key: The chosen task.
        calibrations: Task key to what was fitted for its checkpoint; None where nothing was.
        settings: What the visitor has set; None for what holds before anything was touched.
    """
    settings = settings or DecisionSettings()
    answer = reading.predictions[task_key]
    return render(
        "views/single/result.html",
        warnings=reading.preview.warnings,
        answers=[
            _answer(reading, reading.tasks[key], calibrations, settings, chosen=key == task_key)
            for key in reading.tasks_shown(task_key)
        ],
        scores_meaning=score_meaning(calibrated=answer.calibrated, views=answer.views),
    )


def no_result_html(state: Literal["empty", "reading", "failed"]) -> str:
    """What stands in place of an answer: nothing was chosen, it is being read, or it could not be read."""
    return render("views/single/no_result.html", state=state)


def announcement(
    reading: Reading, task_key: str, calibrations: Calibrations, settings: DecisionSettings | None = None
) -> str:
    """The result in one sentence, for the status line."""
    settings = settings or DecisionSettings()
    parts = []
    for key in reading.tasks_shown(task_key):
        answer, task = reading.predictions[key], reading.tasks[key]
        condition = "if malignant: " if is_conditional(task) else ""
        if answer.verdict == ABSTAIN and not settings.override:
            parts.append(f"{condition}{WITHHELD.lower()}. {' '.join(answer.abstain_reasons).rstrip('.')}")
            continue
        own = settings if key == task_key else settings.for_other_task()
        answer, decision = apply_settings(answer, task, calibrations, own)
        decided = decision.decision if decision else answer.label
        score = f"{score_name(answer).lower()} {percent(answer.probabilities[decided])}"
        withheld = " (withheld, shown at your request)" if answer.verdict == ABSTAIN else ""
        parts.append(f"{condition}{task.display_names[decided]}, {score}{withheld}{_warning_text(answer)}")
    return capitalised("; ".join(parts) + ".")


def is_hidden(answer: Prediction, settings: DecisionSettings) -> bool:
    """Whether an answer is withheld, and the visitor has not asked for it all the same."""
    return answer.verdict == ABSTAIN and not settings.override


def outside_set(answer: Prediction, task: Task, decision: ThresholdDecision | None) -> str:
    """Says that the answer is none of the classes that are not ruled out; empty where it is one of them."""
    decided = decision.decision if decision else answer.label
    if answer.conformal_set is None or decided in answer.conformal_set:
        return ""
    return f"{task.display_names[decided]} is not in the 90\u00a0% prediction set. This answer is uncertain."


def _answer(
    reading: Reading, task: Task, calibrations: Calibrations, settings: DecisionSettings, *, chosen: bool
) -> dict[str, Any]:
    """What the template asks for of one answer; less of one that is hidden."""
    answer = reading.predictions[task.key]
    shown = {
        "task": task.key,
        "title": task_title(task),
        "is_conditional": is_conditional(task),
        "verdict": answer.verdict,
        "badge": _badge(answer, settings),
        "is_hidden": is_hidden(answer, settings),
        "reasons": answer.abstain_reasons,
        "warnings": warning_sentences(answer.warning_codes),
        "caveat": task.caveat,
    }
    if shown["is_hidden"]:
        return shown
    own = settings if chosen else settings.for_other_task()
    answer, decision = apply_settings(answer, task, calibrations, own)
    decided = decision.decision if decision else answer.label
    doubt = outside_set(answer, task, decision)
    return shown | {
        "label": task.display_names[decided],
        "contents": task.contents.get(decided),
        "rule": decision and _rule(answer, task, decision),
        "score_name": score_name(answer),
        "scores": [
            {
                "name": task.display_names[key],
                "share": share,
                "is_answer": key == decided,
                "threshold": decision.threshold if decision and key == decision.target else None,
            }
            for key, share in ranked(answer.probabilities)
        ],
        "context": context_facts(
            answer.patient_context and answer.patient_context.to_dict(), task.display_names
        ),
        "prevalence": decision
        and prevalence_sentence(task, decision.prevalence, decision.calibration_prevalence),
        "possible": _possible(answer, task),
        "cautions": [doubt] if doubt else [],
        "views": _views(view_scores(answer, task), _likely(answer, task, decision))
        if answer.views > 1
        else None,
        "figures": _figures(decision) if decision and chosen else [],
        "counts": decision
        and chosen
        and counts_sentence(task, asdict(decision.sensitivity), asdict(decision.specificity)),
        "figures_note": decision and _figures_note(task, decision),
        "notes": _notes(reading, answer),
    }


def _badge(answer: Prediction, settings: DecisionSettings) -> dict[str, str] | None:
    """What stands beside the title, and what kind of verdict it is."""
    state = answer_state(answer)
    if state == ANSWERED and not answer.calibrated:
        return None
    asked = ", shown at your request" if answer.verdict == ABSTAIN and settings.override else ""
    kinds = {WITHHELD_STATE: "abstain", WARNED: "warning", ANSWERED: "answer"}
    return {"kind": kinds[state], "state": state, "text": capitalised(STATE_WORDS[state]) + asked}


def _warning_text(answer: Prediction) -> str:
    """The warnings of an answer for the status line, after it."""
    return "".join(f". {sentence.rstrip('.')}" for sentence in warning_sentences(answer.warning_codes))


def _rule(answer: Prediction, task: Task, decision: ThresholdDecision) -> str:
    """What the threshold decides, as sentences."""
    target = task.name_in_text(decision.target)
    own = decision.operating_point == OWN_THRESHOLD
    title = OPERATING_POINT_TITLES[decision.operating_point]
    place = "At your own threshold" if own else f"Operating point “{title}”"
    text = f"{place}: the answer is “{target}” at {percent(decision.threshold)} or above."
    likeliest = most_probable(answer.probabilities)
    if decision.decision != likeliest:
        text += f" The most probable class is {task.display_names[likeliest]}, but the threshold decides."
    return text


def _likely(answer: Prediction, task: Task, decision: ThresholdDecision | None) -> str:
    """The class that views and similar cases are about, which need not be the one that is decided for."""
    name = task.display_names[answer.label]
    if decision is None or decision.decision == answer.label:
        return name
    return f"{name}, {answered_without_threshold(answer.probabilities, answer.label)}"


def _possible(answer: Prediction, task: Task) -> str | None:
    """The classes of the prediction set; None where it was not determined."""
    if answer.conformal_set is None:
        return None
    return ", ".join(task.display_names[key] for key in answer.conformal_set) or EMPTY_SET


def _views(views: ViewScores, likely: str) -> dict[str, Any]:
    """How far the views agree, in words and as a dot for each."""
    noun = "probability" if views.calibrated else "model score"
    return {
        "likely": likely,
        "agreement": f"{sum(views.agrees)} of {len(views.agrees)}",
        "spread": f"its {noun} {percent(min(views.scores))} to {percent(max(views.scores))}",
        "dots": _stacked(views),
    }


def _stacked(views: ViewScores) -> list[tuple[float, bool, int]]:
    """Score, agreement and row of each dot, so that none hides another."""
    placed: list[tuple[float, bool, int]] = []
    for score, agrees in sorted(zip(views.scores, views.agrees, strict=True)):
        taken = {row for other, _, row in placed if score - other < _DOT_WIDTH}
        row = next(row for row in range(len(views.scores)) if row not in taken)
        placed.append((score, agrees, row))
    return placed


def _figures(decision: ThresholdDecision) -> list[dict[str, str]]:
    return [
        {"name": capitalised(TARGET_FIGURE_NAMES[key]), **_figure(figure)}
        for key, figure in (
            ("sensitivity", decision.sensitivity),
            ("specificity", decision.specificity),
            ("ppv", decision.positive_predictive_value),
            ("npv", decision.negative_predictive_value),
        )
    ]


def _figure(figure: Figure | None) -> dict[str, str]:
    """A figure and what stands below it."""
    if figure is None:
        return {"value": NOTHING, "detail": "undefined: no such answer at this threshold"}
    if figure.low != figure.high:
        return {"value": percent_span(figure.low, figure.high), "detail": ""}
    interval = f"95\u00a0% interval {percent_span(*figure.interval)}" if figure.interval else ""
    images = counted(figure.images, "image") if figure.images else ""
    return {"value": percent(figure.low), "detail": ", ".join(filter(None, (interval, images)))}


def _figures_note(task: Task, decision: ThresholdDecision) -> str:
    """What the figures are about and where they come from, as sentences."""
    name, in_text = task.display_names[decision.target], task.name_in_text(decision.target)
    bounds = (
        " At your own threshold they lie between those of the nearest operating points: this checkpoint was "
        "calibrated by an earlier version, which stored no more."
        if any(known.low != known.high for known in (decision.sensitivity, decision.specificity))
        else ""
    )
    origin = (
        f"At this threshold the answer is {'never' if decision.threshold else 'always'} “{in_text}”."
        if decision.operating_point == OWN_THRESHOLD and decision.threshold in (0, 1)
        else "Sensitivity and specificity were measured on the calibration images. The thresholds were "
        "chosen on the same images."
    )
    return (
        f"All four figures are about the class “{name}”. {origin}{bounds} The predictive values are for a "
        f"prevalence of {percent(decision.prevalence)}."
    )


def _notes(reading: Reading, answer: Prediction) -> list[str]:
    """What the predictor says beyond the photo: that it was trained on it, or that similar cases disagree."""
    if not SHOWS_NO_SKIN.isdisjoint(answer.abstain_codes):
        # Cases that are alike in nothing can't disagree either.
        return []
    known = {*reading.preview.warnings, *warning_sentences(answer.warning_codes), NOT_CALIBRATED}
    return [warning for warning in answer.warnings if warning not in known]
