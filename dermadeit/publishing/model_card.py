"""The model card, made of result files alone: what no file says is called not measured.

A file whose `weights_sha256` names other weights than the checkpoint's is left out: it tells of another model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermadeit.about import DISCLAIMER
from dermadeit.errors import ErrorCode, ResultFileError
from dermadeit.evaluation.predictions import SMALLEST_SLICE
from dermadeit.evaluation.robustness import ROBUSTNESS_FIGURES, ROBUSTNESS_FILE
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.files import read_json, write_atomically
from dermadeit.imaging.skin_tone import SKIN_TONE_CAVEAT
from dermadeit.metrics.classification import FIGURES, HEADLINE_FIGURES
from dermadeit.models.checkpoints import CHECKPOINT_ROOT, CONFIG_FILE, TRAINING_FILE
from dermadeit.models.specs import OURS
from dermadeit.publishing import model_card_text as text
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, METRICS_FILE
from dermadeit.reporting.format import NOTHING, any_value, count, counted, percent
from dermadeit.reporting.markdown import figure_text, figures_table, folded, markdown_table, point_text, words
from dermadeit.reporting.names import SET_FIGURES, teacher_networks
from dermadeit.tasks import DIAGNOSIS, TASKS, Task

TOLERANCE = 0.02
"""How far coverage may be from what it is meant to be before the card points it out."""

EVIDENCE_ROOT = BENCHMARK_ROOT.parent / "evidence"
"""Folder that holds, for each task, what `evaluate`, `robustness` and the programs in benchmarks/ wrote."""

MODEL_CARD = BENCHMARK_ROOT.parent / "model_card.md"
NOT_MEASURED = "Not measured."

_GATED_PHOTOS = {
    "validation": "lesions of the validation split",
    "external": "lesions of other cameras (ISIC 2020)",
    "not_skin_learned": "anything but skin, the half that the detector learned from",
    "not_skin_reported": "anything but skin, the other half",
    "drawn": "drawn pictures",
}
"""Kinds of photos in `gate_curve.json` to what they are called."""

_SETS = ("coverage", "mean_size", "multiple", "empty")
"""The `names.SET_FIGURES` that are shown."""

_PREFACE = (
    "Written by `python -m dermadeit model-card` from result files; don't edit it by hand. In brackets: 95 % "
    "intervals from resampled lesions. “–” is undefined on these images."
)

_OTHER_WEIGHTS = "Not measured: the file belongs to other weights."


@dataclass(frozen=True)
class _Evidence:
    """What is known of one task's model.

    Attributes:
        task: The task.
        files: Name of a result to its content; what is missing, or of other weights, is not in it.
        stale: Names of results that are of other weights.
        network: The task whose classes are the network's own. What belongs to the network is told there.
    """

    task: Task
    files: Mapping[str, Mapping[str, Any]]
    stale: frozenset[str]
    network: Task

    def show(self, name: str, *path: str) -> Any:
        """What lies at a path in a result, or None."""
        part: Any = self.files.get(name)
        for key in path:
            part = part.get(key) if isinstance(part, Mapping) else None
        return part

    def missing(self, name: str) -> str:
        """Why a result is not shown."""
        return _OTHER_WEIGHTS if name in self.stale else NOT_MEASURED


def write_model_card(
    path: Path = MODEL_CARD,
    *,
    checkpoints: Path = CHECKPOINT_ROOT,
    benchmark: Path = BENCHMARK_ROOT,
    evidence: Path = EVIDENCE_ROOT,
) -> None:
    """Writes the card; the same files give the same bytes.

    Args:
        path: The Markdown file to create or replace.
        checkpoints: Holds `dermadeit/`, or `<task>/dermadeit/` for each task, with `config.json`,
            `training.json` and `calibration.json`.
        benchmark: Holds `<task>/metrics.json`, as `benchmark table` writes it.
        evidence: Holds `<task>/` with `metrics.json` as `evaluate` writes it, `robustness.json`,
            `gate_curve.json`, `out_of_distribution.json`, `faithfulness.json`, `error_detection.json` and
            `other_cameras/metrics.json`. Any of
            them may be missing. What one network's gates do lies under the task that it was trained for.

    Raises:
        ResultFileError: A file is damaged.
    """
    known = [_collect(task, checkpoints, benchmark, evidence) for task in TASKS.values()]
    # A task that nothing tells of is one of networks that are not here.
    card = render_model_card([part for part in known if part.files] or known)
    write_atomically(path, lambda partial: partial.write_text(card, encoding="utf-8"))


def render_model_card(tasks: Sequence[_Evidence]) -> str:
    """The card as Markdown."""
    networks = [known for known in tasks if known.network is known.task]
    parts = [
        "# Model card of DermaDeiT",
        f"**{DISCLAIMER}**",
        _PREFACE,
        markdown_table(["task", "network", "classes", "weights (SHA-256)"], map(_identity, tasks)),
        *_section("Intended use", text.INTENDED_USE),
        *_section("Out of scope", text.OUT_OF_SCOPE),
        *_section("Data and splits", text.DATA),
        *_by_task(networks, _data),
        *_section("Training"),
        *_by_task(networks, _training),
        *_section(
            "Figures", "The test split, with the largest number of views of each image that was evaluated."
        ),
        *_by_task(tasks, _figures),
        *_section("Slices", f"Subgroups with fewer than {SMALLEST_SLICE} images are not shown."),
        *_by_task(tasks, _slices),
    ]
    for title, key in (
        ("Calibration", "calibration"),
        ("Operating points", "operating_points"),
        ("Views", "stability"),
    ):
        parts += [*_section(title), *_by_task(tasks, lambda known, key=key: _evaluated(known, key))]
    parts += [*_section("Age and sex", text.AGE_AND_SEX), *_by_task(tasks, _patient_context)]
    parts += [*_section("Conformal sets"), *_by_task(tasks, _conformal)]
    parts += [*_section("Gates and abstention"), *_by_task(tasks, _gates)]
    elsewhere = [known for known in tasks if known.show("other_cameras") or "other_cameras" in known.stale]
    parts += [*_section("Other cameras", text.OTHER_CAMERAS), *_by_task(elsewhere, _other_cameras)]
    parts += [] if elsewhere else [NOT_MEASURED]
    parts += [*_section("Robustness"), *_by_task(tasks, _robustness)]
    for title, name in (("Explanation checks", "faithfulness"), ("Error detection", "error_detection")):
        parts += [*_section(title), *_by_task(tasks, lambda known, name=name: [_whole(known, name)])]
    parts += [
        *_section("Failure modes", text.FAILURE_MODES),
        *_by_task(tasks, _confusions),
        *_section("Ethics and what is missing", text.ETHICS),
        *_section(
            "Reporting checklists", "Topics of CLAIM 2024, items of TRIPOD+AI, and where they are answered."
        ),
        markdown_table(["CLAIM 2024", "TRIPOD+AI", "section"], map(_checklist_row, text.CHECKLIST)),
        *_section("Licences and attribution", text.LICENCES),
        *_section("How to regenerate", text.REGENERATE),
    ]
    return "\n\n".join(parts) + "\n"


def conformal_tables(conformal: Mapping[str, Any]) -> list[str]:
    """Coverage of the sets by class, and by part of the images.

    Args:
        conformal: As `shares.conformal_figures` gives it, with `nominal_coverage`.
    """
    nominal, classes = conformal["nominal_coverage"], conformal["classes"]
    rows = [
        [key, any_value(part["coverage"]["n"]), *(_without_n(part[name]) for name in _SETS)]
        for key, part in classes.items()
    ]
    parts = {
        (SLICED_BY.get(attribute, words(attribute)), value): part
        for attribute, values in conformal.items()
        if attribute in SLICED_BY
        for value, part in values.items()
        if "all" in part
    }
    by_part = [
        [
            attribute,
            value,
            any_value(part["all"]["coverage"]["n"]),
            *(_coverage(part.get(key)) for key in classes),
        ]
        for (attribute, value), part in parts.items()
    ]
    off = [
        f"{where} {any_value(part['coverage']['value'])}"
        for where, part in _all_parts(classes, parts)
        if abs(part["coverage"]["value"] - nominal) > TOLERANCE
    ]
    sentence = f"Target: {percent(nominal, 0)} of each class have the true class in the set. "
    sentence += (
        f"More than {100 * TOLERANCE:.0f} points off: {'; '.join(off)}."
        if off
        else f"Nothing is more than {100 * TOLERANCE:.0f} points off."
    )
    return [
        sentence,
        markdown_table(["true class", "images", *(SET_FIGURES[name] for name in _SETS)], rows),
        folded(
            "Share of sets with the true class, by subgroup",
            markdown_table(["by", "subgroup", "images", *classes], by_part),
        ),
    ]


def out_of_distribution_tables(report: Mapping[str, Any]) -> list[str]:
    """Which score tells what is no lesion.

    Args:
        report: Of one checkpoint, as `benchmarks/evidence/out_of_distribution.py` writes it.
    """
    scores = [
        [
            score["score"], score["embedding"], any_value(score["auroc_not_skin"]),
            any_value(score["refused"]["not_skin"]["2%"]), any_value(score.get("auroc_near")),
            any_value(max(score["refused_of_unseen_collections"].values(), default=None)),
        ]
        for score in report["scores"]
    ]  # fmt: skip
    lines = []
    confident = report.get("confident_answers")
    if confident:
        lines.append(
            f"A probability of 0.9 or more goes to {any_value(confident['near'])} of the lesions of diagnoses "
            f"outside the task, and to {any_value(confident['of_the_task'])} of those of the task."
        )
    header = [
        "score", "embedding", "AUROC, not skin", "not skin: withheld, where 2 % of lesions are",
        "AUROC, other diagnoses",
        "lesions withheld of a collection left out, at most",
    ]  # fmt: skip
    return [*lines, folded(f"The {len(scores)} scores that were compared", markdown_table(header, scores))]


def gate_tables(report: Mapping[str, Any]) -> list[str]:
    """What the gates withhold and warn of, and the curves that their limits were chosen on.

    Args:
        report: Of one checkpoint, as `benchmarks/evidence/gate_curve.py` writes it.
    """
    bare, wanted = report["without_photos"], report["wanted"]
    judged = [
        [
            _photos(kind), any_value(part["images"]), _without_n(part["withheld"]), _without_n(part["warned"]),
            _without_n(bare[kind]["withheld"]),
        ]
        for kind, part in report["gates"].items()
    ]  # fmt: skip
    header = [
        "photos", "how many", "withheld", "answered with a warning",
        "withheld by gates fitted without photos of anything but skin",
    ]  # fmt: skip
    sentence = (
        f"Wanted: withheld of the lesions of every source left out, and of other cameras, a share of at most "
        f"{any_value(wanted['lesions_at_most'])}; of anything but skin at least "
        f"{any_value(wanted['not_skin_at_least'])}. The limit is a score of "
        f"{any_value(report['chosen']['limit'])}. The gates that ship learn from both halves."
    )
    return [
        sentence,
        markdown_table(header, judged),
        folded("Withheld at other limits of the skin detector's score", _curve_table(report["curve"])),
        folded(
            "Withheld where only the limit of the distance is raised, as a multiple of the warning's limit",
            _curve_table(report["distance"]),
        ),
    ]


def _curve_table(curve: Sequence[Mapping[str, Any]]) -> str:
    kinds = [kind for kind in _GATED_PHOTOS if kind in curve[0]]
    sources = list(curve[0]["left_out"])
    rows = [
        [
            any_value(point["limit"]),
            *(any_value(point["left_out"][name]) for name in sources),
            *(any_value(point[kind]) for kind in kinds),
            "yes" if point["meets_both"] else "no",
        ]
        for point in curve
    ]
    header = ["limit", *(_photos(f"left_out {name}") for name in sources), *map(_photos, kinds), "meets both"]
    return markdown_table(header, rows)


def _photos(kind: str) -> str:
    name = kind.removeprefix("left_out ")
    return f"{name}, left out of the fit" if name != kind else _GATED_PHOTOS.get(kind, words(kind))


def _all_parts(
    classes: Mapping[str, Any], parts: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((f"class {key}" if key != "all" else "all classes", part) for key, part in classes.items())
    for (attribute, value), part in parts.items():
        yield f"{attribute} {value}", part["all"]


def _coverage(part: Mapping[str, Any] | None) -> str:
    return NOTHING if part is None else _without_n(part["coverage"])


def _without_n(point: Mapping[str, Any]) -> str:
    return point_text({key: value for key, value in point.items() if key != "n"})


def _collect(task: Task, checkpoints: Path, benchmark: Path, evidence: Path) -> _Evidence:
    is_shared = (checkpoints / OURS / CONFIG_FILE).is_file()
    folder = checkpoints / OURS if is_shared else checkpoints / task.key / OURS
    network = DIAGNOSIS if is_shared else task
    files = {
        "config": _read(folder / CONFIG_FILE),
        "training": _read(folder / TRAINING_FILE),
        "fitted": _read(folder / "calibration.json"),
        "benchmark": _read(benchmark / task.key / METRICS_FILE),
        "evaluation": _read(evidence / task.key / METRICS_FILE).get(OURS, {}),
        "other_cameras": _read(evidence / task.key / "other_cameras" / METRICS_FILE).get(OURS, {}),
        "robustness": _read(evidence / task.key / ROBUSTNESS_FILE),
        **{
            name: _of_task(_read(evidence / part.key / f"{name}.json"), part)
            for part, names in (
                (network, ("gate_curve", "out_of_distribution")),
                (task, ("faithfulness", "error_detection")),
            )
            for name in names
        },
    }
    weights = files["config"].get("dermadeit", {}).get("weights_sha256")
    stale = frozenset(
        name
        for name, content in files.items()
        if (digest := _weights_of(content)) is not None and weights is not None and digest != weights
    )
    present = {name: content for name, content in files.items() if content and name not in stale}
    return _Evidence(task, present, stale, network)


def _read(path: Path) -> Any:
    if not path.is_file():
        return {}
    try:
        return read_json(path)
    except ValueError as error:
        raise ResultFileError(
            f"“{path.name}” is damaged. Write it again.", code=ErrorCode.DAMAGED_RESULT
        ) from error


def _of_task(content: Any, task: Task) -> Mapping[str, Any]:
    """A report of one checkpoint, or that of the task's among several."""
    if isinstance(content, Mapping):
        content = content.get("checkpoints", [content])
    reports = content
    return next((report for report in reports if report.get("task", task.key) == task.key), {})


def _weights_of(content: Mapping[str, Any]) -> str | None:
    digest = content.get("weights_sha256")
    return digest.get(OURS) if isinstance(digest, Mapping) else digest


def _section(title: str, *paragraphs: str) -> list[str]:
    return [f"## {title}", *paragraphs]


def _by_task(tasks: Iterable[_Evidence], render: Any) -> Iterator[str]:
    for known in tasks:
        yield f"### {known.task.title}"
        yield from render(known)


def _identity(known: _Evidence) -> list[str]:
    config = known.show("config") or {}
    weights = known.show("config", "dermadeit", "weights_sha256")
    size = known.show("config", "pretrained_cfg", "input_size")
    network = config.get("architecture", "unknown") + (f", {size[1]} × {size[2]} px" if size else "")
    return [
        f"`{known.task.key}`",
        network,
        ", ".join(known.task.classes),
        f"`{weights}`" if weights else NOTHING,
    ]


def _data(known: _Evidence) -> list[str]:
    splits = dict(known.show("training", "data") or {})
    benchmark = known.show("benchmark")
    if benchmark:
        figures = _most_views(known) or {}
        matrix = figures.get("confusion_matrix", {"classes": [], "counts": []})
        counts = {key: sum(row) for key, row in zip(matrix["classes"], matrix["counts"], strict=True)}
        splits["test"] = {"images": benchmark["images"], "lesions": benchmark["lesions"], **counts}
    if not splits:
        return [known.missing("benchmark")]
    columns = list(dict.fromkeys(key for split in splits.values() for key in split))
    rows = [[name, *(any_value(split.get(key)) for key in columns)] for name, split in splits.items()]
    return [markdown_table(["split", *columns], rows)]


def _training(known: _Evidence) -> list[str]:
    training = known.show("training")
    if not training:
        return [known.missing("training")]
    settings = dict(training.get("configuration", {}))
    teacher = str(settings.pop("teacher", None) or "not recorded")
    where = f"; the hashes of their weights are in `{TRAINING_FILE}`" if "@" in teacher else ""
    environment = [f"{name} {any_value(value)}" for name, value in training.get("environment", {}).items()]
    rows = [[f"`{name}`", any_value(value)] for name, value in settings.items() if value not in (None, "")]
    lines = [
        f"Teacher: {teacher_networks(teacher)}{where}.",
        "Environment: " + ", ".join(environment) + ".",
        folded(f"Settings: {len(rows)}", markdown_table(["setting", "value"], rows)),
    ]
    for stage in training.get("earlier_stages") or []:
        before = stage.get("configuration", {})
        lines.append(
            f"An earlier stage came first: {before.get('image_size')} pixels, {before.get('epochs')} epochs, "
            f"learning rate {any_value(before.get('learning_rate'))}, from `{before.get('init')}`."
        )
    if training.get("kept_epoch") == "last":
        lines.append(
            f"The weights are those of epoch {training['best_epoch']}, the last, as fixed in advance."
        )
    elif "best_epoch" in training:
        chosen = f"Epoch {training['best_epoch']} of {len(training.get('curves', ()))} was chosen"
        lines.append(f"{chosen} by {training.get('selection_metric', 'a figure')} on validation.")
    return lines


def _most_views(known: _Evidence) -> Mapping[str, Any] | None:
    by_views = known.show("benchmark", "models", OURS, "views")
    return by_views[max(by_views, key=int)] if by_views else None


def _figures(known: _Evidence) -> list[str]:
    by_views = known.show("benchmark", "models", OURS, "views")
    if not by_views:
        return [known.missing("benchmark")]
    views = max(by_views, key=int)
    figures = by_views[views]
    columns = {"all": figures, **figures.get("sources", {})}
    rows = [[words(name), *(figure_text(part, name) for part in columns.values())] for name in FIGURES]
    header = ["figure", *(f"{name}, {counted(part['n'], 'image')}" for name, part in columns.items())]
    return [f"{views} views an image, calibrated answers.", markdown_table(header, rows)]


def _slices(known: _Evidence) -> list[str]:
    slices = known.show("evaluation", "slices")
    if not slices:
        return [known.missing("evaluation")]
    rows, hidden = [], []
    for attribute, part in slices.items():
        name = SLICED_BY.get(attribute, attribute)
        rows += [
            [name, value, count(figures["n"]), *(figure_text(figures, figure) for figure in HEADLINE_FIGURES)]
            for value, figures in part["slices"].items()
        ]
        hidden += [f"{name} {value} ({number})" for value, number in part["too_few"].items()]
    lines = [markdown_table(["by", "slice", "images", *HEADLINE_FIGURES.values()], rows)]
    if hidden:
        lines.append(f"Too few images to show: {', '.join(hidden)}.")
    return [_evaluated_on(known), *lines, f"*Skin tone:* {SKIN_TONE_CAVEAT}"]


def _evaluated(known: _Evidence, key: str) -> list[str]:
    figures = known.show("evaluation", key)
    return [_evaluated_on(known), figures_table(figures)] if figures else [known.missing("evaluation")]


def _evaluated_on(known: _Evidence) -> str:
    splits = known.show("evaluation", "splits")
    named = f"; split: {', '.join(splits)}" if splits else ""
    images, views = (any_value(known.show("evaluation", key)) for key in ("n", "views"))
    return f"Evaluated images: {images}{named}; views an image: {views}."


def _patient_context(known: _Evidence) -> list[str]:
    context = known.show("evaluation", "patient_context")
    if not context:
        return [known.missing("evaluation")]
    photo, with_context, differences = (
        context["photo"],
        context["with_context"],
        context["comparison"]["differences"],
    )
    rows = [
        [title, figure_text(photo, name), figure_text(with_context, name), point_text(differences[name])]
        for name, title in HEADLINE_FIGURES.items()
    ]
    size = f"{counted(photo['n'], 'image')} of patients whose age is known."
    return [size, markdown_table(["figure", "photo alone", "with age and sex", "difference"], rows)]


def _gates(known: _Evidence) -> list[str]:
    lines = [*_evaluated(known, "abstention"), *_of_earlier_gates(known, "evaluation")]
    if risk := known.show("evaluation", "risk_coverage"):
        points = [
            [any_value(point[key]) for key in ("coverage", "risk", "confidence")] for point in risk["curve"]
        ]
        lines += [
            f"Area under the risk–coverage curve: {point_text(risk['aurc'])}.",
            markdown_table(["share answered", "share of errors", "least probability kept"], points),
        ]
    if known.network is not known.task:
        return lines
    gates = known.show("fitted", "report", "gates")
    lines += ["When the thresholds were fitted:", figures_table(gates) if gates else known.missing("fitted")]
    curve, report = known.show("gate_curve"), known.show("out_of_distribution")
    lines += ["What the gates withhold and warn of, of photos that they were not fitted on:"]
    lines += gate_tables(curve) if curve else [known.missing("gate_curve")]
    tables = out_of_distribution_tables(report) if report else [known.missing("out_of_distribution")]
    return [*lines, "Which scores were compared for the distance:", *tables]


def _other_cameras(known: _Evidence) -> list[str]:
    figures = known.show("other_cameras")
    if not figures:
        return [known.missing("other_cameras")]
    size = f"{counted(figures['n'], 'image')}, views an image: {figures['views']}. Calibrated answers:"
    rows = [[words(name), figure_text(figures, name)] for name in FIGURES]
    return [size, markdown_table(["figure", "value"], rows), figures_table(figures["abstention"])]


def _of_earlier_gates(known: _Evidence, name: str) -> list[str]:
    """Says that a result was measured before the gates were fitted anew; nothing where it was not."""
    measured = known.show(name, "dermadeit_version")
    fitted = known.show("fitted", "report", "dermadeit_version")
    if not measured or not fitted or measured == fitted:
        return []
    sentence = f"What is withheld was measured here with the gates of version {measured}."
    return [f"{sentence} Those that ship were fitted with version {fitted}."]


def _conformal(known: _Evidence) -> list[str]:
    figures = known.show("evaluation", "conformal")
    tables = conformal_tables(figures) if figures else None
    return [_evaluated_on(known), *tables] if tables else [known.missing("evaluation")]


def _robustness(known: _Evidence) -> list[str]:
    measured = known.show("robustness")
    if not measured:
        return [known.missing("robustness")]
    names = [words(name) for name in ROBUSTNESS_FIGURES]
    size = (
        f"{counted(measured['n'], 'image')} of {counted(measured['lesions'], 'lesion')}, "
        f"split {', '.join(measured['splits'])}, views an image: {measured['views']}. "
        "Loss against the clean photo, mean over five severities:"
    )
    drops = {name: part["drop"] for name, part in measured["corruptions"].items()}
    drops["mean of all"] = measured["mean_corruption_drop"]
    conditions = {("clean", NOTHING): measured["clean"]} | {
        (name, severity): figures
        for name, part in measured["corruptions"].items()
        for severity, figures in part["severities"].items()
    }
    rows = [
        [
            words(name), severity, *(figure_text(figures, figure) for figure in ROBUSTNESS_FIGURES),
            point_text(figures["flipped"]), point_text(figures["abstained"]),
        ]
        for (name, severity), figures in conditions.items()
    ]  # fmt: skip
    return [
        size,
        *_of_earlier_gates(known, "robustness"),
        markdown_table(
            ["corruption", *names],
            [
                [words(name), *(point_text(drop[figure]) for figure in ROBUSTNESS_FIGURES)]
                for name, drop in drops.items()
            ],
        ),
        folded(
            "At each severity, with the shares of images with another label and with the answer withheld",
            markdown_table(["corruption", "severity", *names, "other label", "answer withheld"], rows),
        ),
    ]


def _confusions(known: _Evidence) -> list[str]:
    matrix = (_most_views(known) or {}).get("confusion_matrix")
    if not matrix:
        return [known.missing("benchmark")]
    rows = [[key, *map(str, counts)] for key, counts in zip(matrix["classes"], matrix["counts"], strict=True)]
    return ["Confusion matrix on the test split:", markdown_table(["true", *matrix["classes"]], rows)]


def _whole(known: _Evidence, name: str) -> str:
    content = known.show(name)
    return figures_table(content) if content else known.missing(name)


def _checklist_row(row: tuple[str, str, str]) -> list[str]:
    topic, item, section = row
    return [topic, item, f"[{section}](#{section.lower().replace(' ', '-')})"]
