"""The part of the comparison that reads one photo with every model, one model after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from dermadeit.imaging.decode import LesionImage, shrink
from dermadeit.inference.zoo import ModelZoo
from dermadeit.tasks import Task
from dermadeit.trust.calibration import DEFAULT_OPERATING_POINT
from dermadeit.views.comparison import photo_cards as cards
from dermadeit.views.comparison.photo_run import PhotoComparison, Run, compare_photo
from dermadeit.views.comparison.published import speed_html
from dermadeit.views.page.events import COMPARE_EVENT, INSTANT_EVENT, LATEST_EVENT, PAGE_EVENT, Updates
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.html import NO_READING, failure_html, heading_html, note_html, status_html
from dermadeit.views.page.job import Job
from dermadeit.views.page.photo_box import PhotoBox, add_photo_box
from dermadeit.views.page.pickers import add_examples
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.page.uploads import (
    CACHE_SECONDS,
    discard,
    open_photo,
    source_of,
    store_json,
    store_png,
)

_PHOTO_SIDE = 800
"""Longest side of the photo that is shown in place of the upload, in pixels."""

_CHOOSE_AGAIN = "This photo was too large to keep. Choose it again for the other task."

_ABOUT_TIMES = (
    "Times are medians of five runs of the network on this machine, without decoding, resizing and heatmaps. "
    "Other users of the machine can slow it down."
)


_Source = tuple[Any, Callable[..., Updates], Callable[..., Iterator[Updates]], list[PhotoBox]]
"""Trigger of a comparison, what takes the old result away, what reads the photo, and the inputs of both."""


class PhotoSection:
    """Layout and events of the part. What belongs to one visitor is in `gr.State`.

    Args:
        zoo: Every compared model.
        task: The radio that chooses the task of the whole tab.
    """

    def __init__(self, zoo: ModelZoo, task: gr.Radio) -> None:
        self._zoo = zoo
        self._task = task

    def render(self) -> None:
        """Adds the part to the Blocks that is being built."""
        self.result = gr.State(None, time_to_live=CACHE_SECONDS)
        self.run = gr.State(None, time_to_live=CACHE_SECONDS)
        with gr.Row(elem_classes="dd-columns", equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_classes="dd-input"):
                self.photo = add_photo_box("compare-photo")
                self._examples = add_examples("compare-photo", self.photo, self._zoo.tasks)
            with gr.Column(scale=6, min_width=300, elem_classes="dd-output"):
                self._render_output()
        gr.HTML(heading_html("Model by model", kind="small"))
        with gr.Row(elem_classes="dd-controls", equal_height=False):
            self._class = gr.Radio(
                _class_choices(self._zoo.tasks[0]),
                value=cards.OWN_ANSWER,
                label="Heatmaps for",
                elem_id="compare-class",
                min_width=280,
            )
            self._point = gr.Radio(
                [(title, key) for key, title in cards.POINT_TITLES.items()],
                value=DEFAULT_OPERATING_POINT,
                label="Operating point of calibrated models",
                elem_id="compare-point",
                min_width=280,
            )
        self._scale = gr.HTML(cards.scale_html())
        self._cards = gr.HTML(self._empty_cards(self._zoo.tasks[0]), elem_id="compare-cards", min_height=320)
        self._speed = gr.HTML(elem_id="compare-speed")
        gr.HTML(note_html(_ABOUT_TIMES))
        self._connect()

    def _render_output(self) -> None:
        self.status = gr.HTML(
            status_html("Ready."), elem_id="compare-status", min_height=28, js_on_load=ANNOUNCE
        )
        self._agreement = gr.HTML(cards.agreement_html(None), elem_id="compare-agreement", min_height=200)
        with gr.Row(elem_classes="dd-controls"):
            self.stop = gr.Button("Stop", interactive=False, elem_id="compare-stop", size="md", min_width=120)
            self._download = gr.DownloadButton(
                "Download as JSON", interactive=False, elem_id="compare-download", size="md", min_width=180
            )

    def _connect(self) -> None:
        shown = [self.status, self._agreement, self._cards, self._speed, self.stop, self._download]
        self.photo.clear(
            partial(self.clear, None),
            [self.run, self.result, self._task, self._point],
            [self.run, self.result, self._class, *shown],
            **INSTANT_EVENT,
        )
        sources: list[_Source] = [(self.photo.upload, self.clear, self.read, [self.photo])]
        for path, button in self._examples:
            example = {"path": str(path)}
            sources.append((button.click, partial(self.clear, example), partial(self.read, example), []))
        # The other task is asked of the photo that is there.
        sources.append((self._task.input, self._switch_task, self.read_again, []))
        for trigger, clear, read, inputs in sources:
            cleared = trigger(
                clear,
                [*inputs, self.run, self.result, self._task, self._point],
                [self.run, self.result, self._class, *shown],
                queue=False,
                trigger_mode="multiple",
                show_progress="hidden",
                **PAGE_EVENT,
            )
            cleared.then(
                read,
                [*inputs, self.run],
                [self.result, self.photo, self._class, *shown],
                trigger_mode="multiple",
                show_progress="minimal",
                show_progress_on=self._agreement,
                **PAGE_EVENT,
                **COMPARE_EVENT,
            )
        for choice in (self._class, self._point):
            choice.input(
                self.redraw,
                [self.run, self.result, self._class, self._point],
                [self.run, self.result, self._cards, self._download, self.status],
                **LATEST_EVENT,
            )
        self.stop.click(
            self._end,
            [self.run],
            [self.stop, self.status],
            **INSTANT_EVENT,
        )

    def clear(
        self, payload: Any, previous: Run | None, result: PhotoComparison | None, task_key: str, point: str
    ) -> Updates:
        """Takes the result of the last photo away, before the next one is read."""
        if previous is not None:
            previous.job.supersede()
        task = self._zoo.task(task_key)
        source = source_of(payload)
        run = Run(source, task.key, point=_known_point(point), job=Job() if source else Job.nothing())
        return {self.run: run, **self._start(task, running=run.is_running)}

    def _switch_task(
        self, run: Run | None, result: PhotoComparison | None, task_key: str, point: str
    ) -> Updates:
        task = self._zoo.task(task_key)
        if run is not None and run.is_running:
            # The reading that goes on notices, and starts again with the photo that it has open.
            run.task_key, run.shown_class = task.key, cards.OWN_ANSWER
            run.job.go_on()
            return self._start(task, running=True)
        again = result.photo if result else None
        source = run.source if run else None
        fresh = Run(
            source, task.key, point=_known_point(point), again=again, job=Job() if again else Job.nothing()
        )
        updates = {self.run: fresh, **self._start(task, running=fresh.is_running)}
        return {**updates, self.status: status_html(_CHOOSE_AGAIN)} if result and not again else updates

    def _start(self, task: Task, *, running: bool) -> Updates:
        """Everything old taken away."""
        return {
            self.result: None,
            self._class: gr.update(choices=_class_choices(task), value=cards.OWN_ANSWER),
            self.status: status_html("Reading the photo …" if running else "Ready."),
            self._agreement: cards.agreement_html(None),
            self._cards: self._empty_cards(task, running=running),
            self._speed: "",
            self.stop: gr.update(interactive=running),
            self._download: gr.update(value=None, interactive=False),
        }

    def _empty_cards(self, task: Task, *, running: bool = False) -> str:
        return cards.cards_html(
            self._zoo.entries(task.key), {}, task, None,
            shown_class=cards.OWN_ANSWER, point=DEFAULT_OPERATING_POINT, running=running,
        )  # fmt: skip

    def read(self, payload: Any, run: Run | None) -> Iterator[Updates]:
        """Reads the photo: the answer first, then its heatmap and the test of it."""
        # A generator that yields nothing empties its outputs, and what it yields last is sent again at its end.
        yield gr.skip()
        source = source_of(payload)
        if run is not None and source is not None and source == run.source and run.job.start():
            yield from self._show_while(self._photo_and_all(payload, run), run)
        else:
            discard(payload)
        yield gr.skip()

    def read_again(self, run: Run | None) -> Iterator[Updates]:
        """Reads the models that were not read when it was stopped."""
        yield gr.skip()
        if run is not None and run.again is not None and run.job.start():
            photo, run.again = run.again, None
            yield from self._show_while(self._ask_all(photo, run), run)
        yield gr.skip()

    def _show_while(self, steps: Iterator[Updates], run: Run) -> Iterator[Updates]:
        """The steps of a run as long as it is not over, and its failure."""
        try:
            for updates in steps:
                if run.job.is_superseded:
                    break
                yield updates
        except Exception as error:
            run.job.finish()
            if not run.job.is_superseded:
                yield {
                    self.photo: None,
                    **self._start(self._zoo.task(run.task_key), running=False),
                    self.status: failure_html(presentable(error)),
                }

    def _photo_and_all(self, payload: Any, run: Run) -> Iterator[Updates]:
        with open_photo(payload) as photo:
            shown = store_png(shrink(photo, _PHOTO_SIDE).pixels)
        yield {self.photo: shown}
        yield from self._ask_all(photo, run)

    def _ask_all(self, photo: LesionImage, run: Run) -> Iterator[Updates]:
        asked = None
        while asked != run.task_key and not run.job.is_superseded:
            asked = run.task_key
            for result in compare_photo(self._zoo, self._zoo.task(asked), photo):
                if run.job.is_superseded or run.task_key != asked:
                    break
                yield self._step(result, run)
                if run.job.is_ending:
                    break
        run.job.finish()
        if not run.job.is_superseded:
            yield self._finish(result, run)

    def _step(self, result: PhotoComparison, run: Run) -> Updates:
        waiting = self._waiting(result)
        total = len(waiting) + len(result.outcomes)
        state = (
            f"Running {waiting[0]}, {len(result.outcomes) + 1} of {total} …" if waiting else "Almost done …"
        )
        return {
            self.result: result,
            self.status: status_html(state),
            self._agreement: (
                cards.agreement_html(result.agreement, only_one=total == 1) if result.readings else gr.skip()
            ),
            self._cards: self._draw(result, run, running=True),
        }

    def _finish(self, result: PhotoComparison, run: Run) -> Updates:
        waiting = self._waiting(result)
        total = len(waiting) + len(result.outcomes)
        left = f"Stopped after {len(result.outcomes)} of {total} models." if waiting else "Done."
        return {
            self.status: status_html(f"{left} {result.agreement.sentence}"),
            self.stop: gr.update(interactive=False),
            self._cards: self._draw(result, run, running=False),
            self._speed: speed_html(result.task, result.readings),
            self._download: self._export(result, run),
        }

    def _waiting(self, result: PhotoComparison) -> list[str]:
        """Titles of the models that could be asked and were not yet."""
        return [
            entry.title
            for entry in self._zoo.entries(result.task.key)
            if entry.available and entry.name not in result.outcomes
        ]

    def _end(self, run: Run | None) -> Updates:
        if run is None or not run.is_running:
            return gr.skip()
        # The reading itself says when it has stopped: its last step may still be on its way to the page.
        run.job.stop()
        return {
            self.stop: gr.update(interactive=False),
            self.status: status_html("Stopping after the current model …"),
        }

    def redraw(
        self, run: Run | None, result: PhotoComparison | None, shown_class: str, point: str
    ) -> Updates:
        """Shows the heatmap of another class or method, or with another opacity."""
        if run is None:
            return {self.status: status_html(NO_READING)}
        run.shown_class, run.point = shown_class, _known_point(point)
        if result is None or result.task.key != run.task_key:
            return gr.skip()
        updates = {self._cards: self._draw(result, run, running=run.is_running)}
        if not run.is_running:
            # What is written back counts as new: it must not expire while somebody works with it.
            kept = {self.run: run, self.result: result}
            updates |= {self._download: self._export(result, run), **kept}
        return gr.skip() if run.job.is_superseded else updates

    def _draw(self, result: PhotoComparison, run: Run, *, running: bool) -> str:
        known = run.shown_class in result.task.classes
        return cards.cards_html(
            self._zoo.entries(result.task.key),
            result.outcomes,
            result.task,
            result.preview,
            shown_class=run.shown_class if known else cards.OWN_ANSWER,
            point=run.point,
            running=running,
        )

    def _export(self, result: PhotoComparison, run: Run) -> Updates:
        name = f"dermadeit-comparison-{result.preview.sha256[:8]}.json"
        return gr.update(value=store_json(name, result.export(self._zoo, run.point)), interactive=True)


def _class_choices(task: Task) -> list[tuple[str, str]]:
    return [
        ("The answer of each model", cards.OWN_ANSWER),
        *((task.display_names[key], key) for key in task.classes),
    ]


def _known_point(point: str) -> str:
    return point if point in cards.POINT_TITLES else DEFAULT_OPERATING_POINT
