"""HTML of the result: for each task the verdict, the decision, the probabilities and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from dermadeit.inference.decision import (
    OPERATING_POINT_TITLES,
    OWN_THRESHOLD,
    DecisionSettings,
    Figure,
    ThresholdDecision,
    decide_with_settings,
)
from dermadeit.inference.predictor import NOT_CALIBRATED
from dermadeit.inference.records import ABSTAIN, Prediction
from dermadeit.metrics.classification import TARGET_FIGURE_NAMES
from dermadeit.reporting.format import counted, percent
from dermadeit.reporting.names import EMPTY_SET, PREDICTION_SET, SIMILAR_CASES, WITHHELD, capitalised
from dermadeit.tasks import BINARY, Task, get_task
from dermadeit.trust.calibration import Calibration
from dermadeit.trust.gating import SHOWS_NO_SKIN, warning_sentences
from dermadeit.views.page.html import notes_html, score_name
from dermadeit.views.single.reading import Reading, ViewScores, tasks_shown

_DOT_WIDTH = 0.028
"""Of the line that the dots stand on: closer dots are stacked."""

FOLLOW_LINKS = """element.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#"]');
  const goal = link && document.querySelector(link.getAttribute('href'));
  if (!goal) return;
  event.preventDefault();
  goal.tabIndex = -1;
  goal.focus();
  goal.scrollIntoView();
});"""
"""Leads to what a link in the card is about; with Gradio's base address the browser would load the page anew."""

Calibrations = Mapping[str, Calibration | None]


def result_html(
    reading: Reading, task_key: str, calibrations: Calibrations, settings: DecisionSettings | None = None
) -> str:
    """The answers that belong to a chosen task: the binary one, then the conditional one.

    Args:
        reading: The photo's reading.
        task_key: The chosen task.
        calibrations: Task key to what was fitted for its checkpoint; None where nothing was.
        settings: What the visitor has set; None for what holds before anything was touched.
    """
    settings = settings or DecisionSettings()
    cards = "".join(
        _answer_html(reading, get_task(key), calibrations.get(key), settings, chosen=key == task_key)
        for key in tasks_shown(task_key)
    )
    return f"""
<div class="dd-card">
  <h2>Result</h2>
  {notes_html("Please note", reading.preview.warnings)}
  {cards}
  <p class="dd-quiet">{_meaning_of_scores(reading.predictions[task_key])}</p>
</div>"""


def announcement(
    reading: Reading, task_key: str, calibrations: Calibrations, settings: DecisionSettings | None = None
) -> str:
    """The result in one sentence, for the status line."""
    settings = settings or DecisionSettings()
    parts = []
    for key in tasks_shown(task_key):
        answer, task = reading.predictions[key], get_task(key)
        condition = "" if task is BINARY else "if malignant: "
        if answer.verdict == ABSTAIN and not settings.override:
            parts.append(f"{condition}{WITHHELD.lower()}. {' '.join(answer.abstain_reasons).rstrip('.')}")
            continue
        decision = decide_with_settings(
            answer, calibrations.get(key), settings if key == task_key else settings.for_other_task()
        )
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


def _answer_html(
    reading: Reading, task: Task, calibration: Calibration | None, settings: DecisionSettings, *, chosen: bool
) -> str:
    answer = reading.predictions[task.key]
    conditional = task is not BINARY
    title = f"If malignant: {task.title}" if conditional else task.title
    caveat = f'<p class="dd-caveat">{escape(task.caveat)}</p>' if task.caveat else ""
    if is_hidden(answer, settings):
        body = f"""<p class="dd-label">{WITHHELD}</p>
  {notes_html("Reasons", answer.abstain_reasons, "dd-withheld")}
  <p class="dd-quiet dd-to-check">See the measurements in the <a href="#check">image check</a>.</p>
  {caveat}"""
    else:
        decision = decide_with_settings(
            answer, calibration, settings if chosen else settings.for_other_task()
        )
        doubt = outside_set(answer, task, decision)
        likely = _likely(answer, task, decision)
        decided = decision.decision if decision else answer.label
        body = f"""{_overridden_html(answer)}
  <p class="dd-label">{escape(task.display_names[decided])}</p>
  {_contents_html(task, decided)}
  {_decided_html(answer, task, decision)}
  {notes_html("Warning", warning_sentences(answer.warning_codes), "dd-warned")}
  {caveat}
  {_bars_html(answer, task, decision)}
  {_set_html(answer, task)}
  {notes_html("Uncertain", [doubt] if doubt else [])}
  {_stability_html(answer, likely, reading.views[task.key])}
  {_figures_html(task, decision) if decision and chosen else ""}
  {notes_html(SIMILAR_CASES, _notes(reading, answer))}"""
    return f"""
<section class="dd-answer{" dd-conditional" if conditional else ""}" data-task="{task.key}"
  data-verdict="{answer.verdict}" data-warned="{str(bool(answer.warning_codes)).lower()}"
  data-hidden="{str(is_hidden(answer, settings)).lower()}">
  <div class="dd-answer-head"><h3>{escape(title)}</h3>{_verdict_html(answer, settings)}</div>
  {body}
</section>"""


def _contents_html(task: Task, key: str) -> str:
    contents = task.contents.get(key)
    return f'<p class="dd-quiet dd-contents">{escape(contents)}</p>' if contents else ""


def _verdict_html(answer: Prediction, settings: DecisionSettings) -> str:
    if answer.verdict == ABSTAIN:
        text = "Withheld, shown at your request" if settings.override else "Withheld"
        return f'<span class="dd-verdict" data-kind="abstain">{text}</span>'
    if answer.warning_codes:
        return '<span class="dd-verdict" data-kind="warning">Answer with a warning</span>'
    return '<span class="dd-verdict" data-kind="answer">Answer</span>' if answer.calibrated else ""


def _warning_text(answer: Prediction) -> str:
    """The warnings of an answer for the status line, after it."""
    return "".join(f". {sentence.rstrip('.')}" for sentence in warning_sentences(answer.warning_codes))


def _overridden_html(answer: Prediction) -> str:
    if answer.verdict != ABSTAIN:
        return ""
    return notes_html(
        "This answer is withheld and shown at your request. Reasons", answer.abstain_reasons, "dd-overridden"
    )


def _decided_html(answer: Prediction, task: Task, decision: ThresholdDecision | None) -> str:
    if decision is None:
        return ""
    target = task.display_names[decision.target]
    own = decision.operating_point == OWN_THRESHOLD
    place = "At your own threshold" if own else f"Operating point “{_title(decision)}”"
    text = f"{place}: the answer is “{target.lower()}” at {percent(decision.threshold)} or above."
    if decision.decision != answer.label:
        text += f" The most probable class is {task.display_names[answer.label]}, but the threshold decides."
    return f'<p class="dd-decided">{escape(text)}</p>'


def _bars_html(answer: Prediction, task: Task, decision: ThresholdDecision | None) -> str:
    first = decision.decision if decision else answer.label
    bars = "".join(
        _bar_html(
            task.display_names[key],
            share,
            is_answer=key == first,
            threshold=decision.threshold if decision and key == decision.target else None,
        )
        for key, share in answer.probabilities.items()
    )
    return f'<p class="dd-bars-title">{score_name(answer)}</p>\n  <ul class="dd-bars">{bars}</ul>'


def _bar_html(name: str, share: float, *, is_answer: bool, threshold: float | None) -> str:
    mark = ' class="dd-first"' if is_answer else ""
    tick = (
        ""
        if threshold is None
        else f'<span class="dd-tick" style="left:{threshold * 100:.2f}%" title="Threshold"></span>'
    )
    return (
        f'<li{mark}><span class="dd-name">{escape(name)}</span>'
        f'<span class="dd-value">{percent(share)}</span>'
        f'<span class="dd-bar-frame" aria-hidden="true"><span class="dd-bar">'
        f'<span style="width:{share * 100:.1f}%"></span></span>{tick}</span></li>'
    )


def _likely(answer: Prediction, task: Task, decision: ThresholdDecision | None) -> str:
    """The class that views and similar cases are about, which need not be the one that is decided for."""
    name = task.display_names[answer.label]
    return f"{name}, the most probable class" if decision and decision.decision != answer.label else name


def _set_html(answer: Prediction, task: Task) -> str:
    if answer.conformal_set is None:
        return ""
    names = ", ".join(task.display_names[key] for key in answer.conformal_set)
    text = names or EMPTY_SET
    return f'<dl class="dd-trust"><div><dt>{PREDICTION_SET}</dt><dd>{escape(text)}</dd></div></dl>'


def _stability_html(answer: Prediction, likely: str, views: ViewScores) -> str:
    """A dot on a line for each view."""
    if answer.views == 1:
        return ""
    noun = "probability" if views.calibrated else "model score"
    low, high = min(views.scores), max(views.scores)
    spread = f"its {noun} {percent(low)} to {percent(high)}"
    agreement = f"{sum(views.agrees)} of {len(views.agrees)}"
    dots = "".join(
        f'<span class="dd-dot"{"" if agrees else " data-other"} '
        f'style="left:{score * 100:.1f}%;--row:{row}"></span>'
        for score, agrees, row in _stacked(views)
    )
    picture = (
        f"{len(views.scores)} views on a line from 0 to 100\u00a0%: {agreement} agree on {likely}; {spread}."
    )
    return f"""<dl class="dd-trust"><div><dt>Views that agree on {escape(likely)}</dt>
  <dd>{escape(f"{agreement}, {spread}")}</dd></div></dl>
  <div class="dd-dots" role="img" aria-label="{escape(picture)}">{dots}</div>
  <p class="dd-dots-scale" aria-hidden="true"><span>0\u00a0%</span><span>100\u00a0%</span></p>"""


def _stacked(views: ViewScores) -> list[tuple[float, bool, int]]:
    """Score, agreement and row of each dot, so that none hides another."""
    placed: list[tuple[float, bool, int]] = []
    for score, agrees in sorted(zip(views.scores, views.agrees, strict=True)):
        taken = {row for other, _, row in placed if score - other < _DOT_WIDTH}
        row = next(row for row in range(len(views.scores)) if row not in taken)
        placed.append((score, agrees, row))
    return placed


def _figures_html(task: Task, decision: ThresholdDecision) -> str:
    target = task.display_names[decision.target]
    cells = "".join(
        _figure_html(capitalised(TARGET_FIGURE_NAMES[key]), figure)
        for key, figure in (
            ("sensitivity", decision.sensitivity),
            ("specificity", decision.specificity),
            ("ppv", decision.positive_predictive_value),
            ("npv", decision.negative_predictive_value),
        )
    )
    bounds = (
        " At your own threshold they lie between those of the nearest operating points."
        if any(known.low != known.high for known in (decision.sensitivity, decision.specificity))
        else ""
    )
    origin = (
        f"At this threshold the answer is {'never' if decision.threshold else 'always'} “{target.lower()}”."
        if decision.operating_point == OWN_THRESHOLD and decision.threshold in (0, 1)
        else "Sensitivity and specificity were measured on the calibration images. The thresholds were "
        "chosen on the same images."
    )
    note = (
        f"All four figures are about the class “{target}”. {origin}{bounds} The predictive values are for a "
        f"prevalence of {percent(decision.prevalence)}."
    )
    return f"""<dl class="dd-figures">{cells}</dl>
  <p class="dd-quiet">{escape(note)}</p>"""


def _figure_html(name: str, figure: Figure | None) -> str:
    if figure is None:
        value, detail = "–", "undefined: no such answer at this threshold"
    elif figure.low == figure.high:
        value = percent(figure.low)
        parts = []
        if figure.interval:
            parts.append(f"95\u00a0% interval {_span(*figure.interval)}")
        if figure.images:
            parts.append(f"{figure.images:,} images")
        detail = ", ".join(parts)
    else:
        value, detail = _span(figure.low, figure.high), ""
    small = f'<span class="dd-figure-detail">{escape(detail)}</span>' if detail else ""
    return f"<div><dt>{name}</dt><dd>{value}{small}</dd></div>"


def _span(low: float, high: float) -> str:
    return f"{low * 100:.1f} to {percent(high)}"


def _title(decision: ThresholdDecision) -> str:
    return OPERATING_POINT_TITLES[decision.operating_point]


def _notes(reading: Reading, answer: Prediction) -> list[str]:
    """What the predictor says beyond the photo: that it was trained on it, or that similar cases disagree."""
    if not SHOWS_NO_SKIN.isdisjoint(answer.abstain_codes):
        # Cases that are alike in nothing can't disagree either.
        return []
    known = {*reading.preview.warnings, *warning_sentences(answer.warning_codes), NOT_CALIBRATED}
    return [warning for warning in answer.warnings if warning not in known]


def _meaning_of_scores(answer: Prediction) -> str:
    if answer.calibrated:
        return (
            "The probabilities are calibrated on lesions that were not used for training. They are valid "
            f"for similar photos. Each is the mean of {counted(answer.views, 'view')} of the photo."
        )
    return (
        f"The model score is not calibrated: a score of 90\u00a0% does not mean that 90\u00a0% of such "
        f"answers are right. It is the mean of {counted(answer.views, 'view')} of the photo."
    )
