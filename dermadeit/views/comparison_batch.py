"""The part of the comparison that works on predictions of labelled images: no weights, no images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.benchmark import OURS
from dermadeit.benchmark_files import BENCHMARK_ROOT, read_benchmark
from dermadeit.benchmark_table import MODELS_FILE
from dermadeit.entrants import (
    Disagreement,
    Entrant,
    PairedResult,
    compare_with,
    disagreements,
    gather,
    kappas,
)
from dermadeit.figures import ModelPoint, accuracy_latency_figure, inline_svg
from dermadeit.model_zoo import COMPARED_MODELS, ModelZoo
from dermadeit.predictions import Measurement, measure
from dermadeit.predictor import DEFAULT_VIEWS
from dermadeit.side_by_side import Latency, measure_latency
from dermadeit.tabular import write_csv
from dermadeit.tasks import Task, get_task
from dermadeit.views import comparison_results as results
from dermadeit.views.cards import failure_html, status_html
from dermadeit.views.comparison_files import read_tables
from dermadeit.views.events import BATCH_EVENT, PAGE_EVENT, Updates
from dermadeit.views.failures import presentable
from dermadeit.views.page_scripts import ANNOUNCE
from dermadeit.views.uploads import FilesInput, private_folder, store_json

_Chosen = tuple[Sequence[Entrant], Mapping[str, str] | None]
"""The models to compare, and the hashes of their weights; None where they are not the shipped predictions."""


class BatchSection:
    """Layout and events of the part. Nothing of a visitor is kept but the files to download.

    Args:
        zoo: Every compared model; what is there is timed.
        task: The radio that chooses the task of the whole tab.
        root: The published predictions.
    """

    def __init__(self, zoo: ModelZoo, task: gr.Radio, root: Path = BENCHMARK_ROOT) -> None:
        self._zoo = zoo
        self._task = task
        self._root = root

    def render(self) -> None:
        """Adds the part to the Blocks that is being built."""
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self._shipped = gr.Button(
                    "Compare the shipped test predictions", variant="primary", elem_id="compare-shipped"
                )
                self._tables = FilesInput(
                    label="Or your own predictions.csv files, all in one go",
                    file_count="multiple",
                    file_types=[".csv"],
                    height=170,
                    elem_id="compare-tables",
                )
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._status = gr.HTML(
                    status_html("Ready."), elem_id="compare-batch-status", min_height=28, js_on_load=ANNOUNCE
                )
                gr.HTML(
                    '<p class="dd-quiet">A predictions.csv is what the batch tab exports and what “python -m '
                    "dermadeit evaluate” writes. Give one for each model, or one that holds several. Models are "
                    "compared on the images that all of them have read.</p>"
                )
                with gr.Row(elem_classes="dd-controls"):
                    self._stop = gr.Button(
                        "Stop", interactive=False, elem_id="compare-batch-stop", size="md", min_width=100
                    )
                    self._metrics = gr.DownloadButton(
                        "Figures (JSON)",
                        interactive=False,
                        elem_id="compare-metrics",
                        size="md",
                        min_width=150,
                    )
                    self._list = gr.DownloadButton(
                        "Disagreements (CSV)",
                        interactive=False,
                        elem_id="compare-list",
                        size="md",
                        min_width=170,
                    )
        self._results = gr.HTML(results.EMPTY_RESULTS, elem_id="compare-results", min_height=190)
        self._connect()

    def _connect(self) -> None:
        outcome = [self._results, self._metrics, self._list, self._stop, self._status]
        run = partial(
            gr.on,
            outputs=[*outcome, self._tables],
            show_progress="minimal",
            show_progress_on=self._status,
            **PAGE_EVENT,
            **BATCH_EVENT,
        )
        runs = [
            run(self._shipped.click, self._compare_shipped, [self._task]),
            run(self._tables.upload, self._compare_tables, [self._tables, self._task]),
        ]
        for trigger, end in ((self._stop.click, self._stopped), (self._task.input, self._emptied)):
            trigger(
                end,
                None,
                [*outcome, self._tables],
                cancels=runs,
                queue=False,
                show_progress="hidden",
                **PAGE_EVENT,
            )

    def _compare_shipped(self, task_key: str) -> Iterator[Updates]:
        yield from self._presented(self._shipped_entrants, task_key)

    def _compare_tables(self, payload: Any, task_key: str) -> Iterator[Updates]:
        def entrants(task: Task) -> _Chosen:
            return sorted(gather(read_tables(payload), task), key=_place), None

        for updates in self._presented(entrants, task_key):
            # What was read is deleted, so the list of files must go too.
            yield {self._tables: None, **updates}

    def _shipped_entrants(self, task: Task) -> _Chosen:
        filed = read_benchmark(self._root / task.key, task)
        described = json.loads((self._root / MODELS_FILE).read_text(encoding="utf-8"))
        order = [model for model in described if model in filed.models]
        order += sorted(filed.models.keys() - described.keys())
        titles = {model: entry["title"] for model, entry in described.items() if "title" in entry}
        most_views = [filed.models[model][max(filed.models[model])] for model in order]
        return gather([("shipped", most_views)], task, titles), filed.weights_sha256

    def _presented(self, entrants: Callable[[Task], _Chosen], task_key: str) -> Iterator[Updates]:
        """The steps of a comparison, or the sentence of what went wrong in it."""
        try:
            task = get_task(task_key)
            yield {**self._without_results(), self._stop: gr.update(interactive=True),
                   self._status: status_html("Reading the predictions …")}  # fmt: skip
            yield from self._compared(task, *entrants(task))
        except Exception as error:
            yield {**self._without_results(), self._status: failure_html(presentable(error))}

    def _compared(
        self, task: Task, entrants: Sequence[Entrant], shipped: Mapping[str, str] | None
    ) -> Iterator[Updates]:
        reference = next((entrant for entrant in entrants if entrant.name == OURS), entrants[0])
        measured: dict[str, Measurement] = {}
        figures: dict[str, dict[str, Any]] = {}
        for number, entrant in enumerate(entrants, start=1):
            yield {self._status: status_html(f"Measuring {entrant.title}, {number} of {len(entrants)} …")}
            measured[entrant.title] = measure(entrant.predictions)
            figures[entrant.title] = measured[entrant.title].to_dict()
            shown = [results.figures_html(task, entrants, figures)]
            yield {self._results: "".join(shown)}
        yield {self._status: status_html("Comparing …")}
        others = [part for title, part in measured.items() if title != reference.title]
        paired = compare_with(measured[reference.title], others)
        agreeing, differing = kappas(entrants), disagreements(entrants)
        shown += [
            results.differences_html(task, reference.title, paired),
            results.kappas_html(entrants, agreeing),
        ]
        listed = results.disagreements_html(task, entrants, differing, public=shipped is not None)
        yield {
            self._results: "".join([*shown, listed]),
            self._status: status_html("Timing the models that are here …"),
        }
        latencies = self._timed(task, entrants)
        content = _export(task, entrants, figures, paired, agreeing, latencies, shipped or {})
        plot = self._plot_html(task, entrants, figures, latencies)
        yield {
            self._results: "".join([*shown, plot, listed]),
            self._metrics: gr.update(
                value=store_json("dermadeit-model-comparison.json", content), interactive=True
            ),
            self._list: gr.update(
                value=_store_disagreements(entrants, differing), interactive=len(entrants) > 1
            ),
            self._stop: gr.update(interactive=False),
            self._status: status_html(_summary(entrants, reference, paired, len(differing))),
        }

    def _timed(self, task: Task, entrants: Sequence[Entrant]) -> dict[str, Latency]:
        """Title of each model that has a checkpoint here to its time with the views of its predictions."""
        here = {entry.name for entry in self._zoo.entries(task.key) if entry.available}
        return {
            entrant.title: measure_latency(
                self._zoo.predictor(task.key, entrant.name), (entrant.predictions.views,)
            )
            for entrant in entrants
            if entrant.name in here and 1 <= entrant.predictions.views <= DEFAULT_VIEWS
        }

    def _plot_html(
        self,
        task: Task,
        entrants: Sequence[Entrant],
        figures: Mapping[str, Mapping[str, Any]],
        latencies: Mapping[str, Latency],
    ) -> str:
        points = []
        for entrant in entrants:
            if entrant.title in latencies:
                found, views = figures[entrant.title], entrant.predictions.views
                interval = found.get("intervals", {}).get("accuracy")
                points.append(
                    ModelPoint(
                        entrant.title,
                        found["accuracy"],
                        tuple(interval) if interval else None,
                        latencies[entrant.title].milliseconds[views],
                        self._zoo.predictor(task.key, entrant.name).checkpoint.parameters,
                    )
                )
        untimed = [entrant.title for entrant in entrants if entrant.title not in latencies]
        return results.plot_html(inline_svg(accuracy_latency_figure(points)), untimed)

    def _without_results(self) -> Updates:
        return {
            self._results: results.EMPTY_RESULTS,
            **dict.fromkeys((self._metrics, self._list), gr.update(value=None, interactive=False)),
            self._stop: gr.update(interactive=False),
        }

    def _stopped(self) -> Updates:
        return {
            self._stop: gr.update(interactive=False),
            self._status: status_html("Stopped. What is shown was finished before."),
            # A later choice would hand the same files in again.
            self._tables: None,
        }

    def _emptied(self) -> Updates:
        return {**self._without_results(), self._status: status_html("Ready."), self._tables: None}


def _place(entrant: Entrant) -> int:
    known = entrant.name in COMPARED_MODELS
    return COMPARED_MODELS.index(entrant.name) if known else len(COMPARED_MODELS)


def _summary(
    entrants: Sequence[Entrant], reference: Entrant, paired: Sequence[PairedResult], differing: int
) -> str:
    images = f"{len(reference.predictions):,} images"
    if any(entrant.dropped for entrant in entrants):
        images += " that all have read"
    if not paired:
        return f"Done: {reference.title} on {images}. There is no other model to compare it with."
    apart = [
        result.comparison.second
        for result in paired
        if result.comparison.differences["accuracy"].excludes_zero
    ]
    told = (
        f"in accuracy it differs from {', '.join(apart)} by more than chance"
        if apart
        else "in accuracy it can't be told from any other"
    )
    return (
        f"Done: {len(entrants)} models on {images}, {differing:,} of which they answer differently. "
        f"{reference.title}: {told}."
    )


def _export(
    task: Task,
    entrants: Sequence[Entrant],
    figures: Mapping[str, Mapping[str, Any]],
    paired: Sequence[PairedResult],
    agreeing: Mapping[tuple[str, str], float | None],
    latencies: Mapping[str, Latency],
    weights_sha256: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "disclaimer": DISCLAIMER,
        "app": {"name": "DermaDeiT", "version": VERSION},
        "task": task.key,
        "models": {
            entrant.title: {
                "model": entrant.name,
                "views": entrant.predictions.views,
                "left_out": entrant.dropped,
                "weights_sha256": weights_sha256.get(entrant.name),
                **figures[entrant.title],
                "latency": latencies[entrant.title].to_dict() if entrant.title in latencies else None,
            }
            for entrant in entrants
        },
        "comparisons": [result.to_dict() for result in paired],
        "kappas": [
            {"first": first, "second": second, "cohen_kappa": value}
            for (first, second), value in agreeing.items()
        ],
    }


def _store_disagreements(entrants: Sequence[Entrant], found: Sequence[Disagreement]) -> str | None:
    """Writes the images that the models answer differently into the cache; None where there is one model."""
    if len(entrants) < 2:
        return None
    titles = [entrant.title for entrant in entrants]
    columns = ["image_id", "label_true", "source"]
    columns += [f"{kind} {title}" for title in titles for kind in ("label", "target_score")]
    path = private_folder() / "dermadeit-disagreements.csv"
    write_csv(
        path,
        columns,
        (
            {"image_id": image.image_id, "label_true": image.label, "source": image.source}
            | {f"label {title}": image.answers[title] for title in titles}
            | {f"target_score {title}": image.scores[title] for title in titles}
            for image in found
        ),
    )
    return str(path)
