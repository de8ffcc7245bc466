"""The tab that says how the models came about, what they may be used for, and how to make others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gradio as gr

from dermadeit.models.checkpoints import CHECKPOINT_ROOT
from dermadeit.models.specs import get_spec
from dermadeit.publishing import model_card_text
from dermadeit.publishing.benchmark import BENCHMARK_ROOT
from dermadeit.publishing.model_card import MODEL_CARD
from dermadeit.reporting.templates import render
from dermadeit.views.page.events import Updates
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.html import contents_html, failure_html, heading_html, status_html
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.training.record import models_with_record
from dermadeit.views.training.sections import model_html, stages_html

_PAGE_EVENT: Mapping[str, Any] = MappingProxyType(
    {"api_visibility": "private", "concurrency_id": "training", "concurrency_limit": 1}
)

_NO_CARD = """\
There is no model card for these weights yet. `python -m dermadeit model-card` writes it from the result files.
Figures without a result file are marked as not measured."""

_RETRAIN = (
    "python train/distill.py --smoke",
    "python train/distill.py --download",
    "python train/distill.py --recipe plain",
)

_RETRAINED = """\
The first command runs all steps on synthetic lesions, in two minutes on a CPU. The second downloads and splits
ISIC 2019, uses the best teacher available, and prints its plan first. The third trains the same without a teacher.
An interrupted training continues where it stopped. docs/training.md lists all settings, the baselines, other
teachers, other data, and GPUs."""

_DEPLOY = (
    "git archive --prefix=dermadeit-space/ HEAD | tar -x -C /tmp",
    "hf upload YOUR-NAME/dermadeit /tmp/dermadeit-space . --type space",
)

_DEPLOYED = """\
The repository is a Hugging Face Space as it stands. Elsewhere, `python app.py` serves it: `GRADIO_SERVER_NAME` and
`GRADIO_SERVER_PORT` set the address. `/healthz` shows whether it runs, and with which weights. It needs no GPU, no
account and, with the weights in place, no network."""

_ABOUT_TRAINING = (
    "How the weights in this app were trained, from the record in their folder. The dotted line marks the epoch "
    "that was kept."
)
_ABOUT_ABLATIONS = (
    "Effect of each change: short trainings, measured on the validation split. In brackets: 95\u00a0% intervals "
    "from resampled lesions. Bold: the interval of the difference excludes 0."
)

_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "model-card": "Model card",
        "training-runs": "Training",
        "ablations": "Ablations",
        "licences": "Data, licences, and your own",
    }
)


class TrainingAndCardTab:
    """Layout and events of the tab. Nothing is read or drawn before somebody opens it."""

    def __init__(self) -> None:
        self._drawn: dict[str, str] = {}

    def render(self, tab: gr.Tab) -> None:
        """Adds the tab's content to the Blocks that is being built.

        Args:
            tab: The tab that it stands in, which fills it when it is opened.
        """
        models = models_with_record(CHECKPOINT_ROOT)
        gr.HTML(contents_html(_PARTS))
        gr.HTML(heading_html("Model card", "Intended use, and limits."), elem_id="model-card")
        with gr.Row(elem_classes="dd-texts"):
            _text("Intended use", model_card_text.INTENDED_USE)
            _text("Out of scope", model_card_text.OUT_OF_SCOPE)
        with gr.Accordion("The whole model card", open=False, elem_classes="dd-model-card"):
            self._card_text = gr.Markdown("Loading …", header_links=True)
        gr.HTML(heading_html("Training", _ABOUT_TRAINING, "part"), elem_id="training-runs")
        self._model = gr.Radio(
            [(get_spec(name).title, name) for name in models],
            value=models[0] if models else None,
            label="Model",
            elem_id="training-model",
        )
        self._status = gr.HTML(
            status_html("Loading …"),
            elem_id="training-status",
            js_on_load=ANNOUNCE,
        )
        self._trainings = gr.HTML(elem_id="trainings", min_height=900)
        gr.HTML(heading_html("Ablations", _ABOUT_ABLATIONS, "part"), elem_id="ablations")
        self._stages = gr.HTML(elem_id="stages", min_height=200)
        gr.HTML(heading_html("Data, licences, and your own", kind="part"), elem_id="licences")
        with gr.Row(elem_classes="dd-texts"):
            _text("Data", model_card_text.DATA)
            _text("Licences", model_card_text.LICENCES)
        with gr.Row(elem_classes="dd-texts"):
            _text("Train it again", _RETRAINED, _RETRAIN)
            _text("Deploy it", _DEPLOYED, _DEPLOY)
        self._shown = gr.State(False)
        tab.select(
            self._open,
            [self._shown, self._model],
            [self._shown, self._card_text, self._stages, self._status, self._trainings],
            show_progress="minimal",
            show_progress_on=self._trainings,
            **_PAGE_EVENT,
        )
        self._model.input(
            self._show_model,
            [self._model],
            [self._status, self._trainings],
            trigger_mode="always_last",
            show_progress="minimal",
            show_progress_on=self._trainings,
            **_PAGE_EVENT,
        )

    def _open(self, already: bool, model: str | None) -> Updates:
        if already:
            return gr.skip()
        try:
            return {
                self._shown: True,
                self._card_text: read_card(MODEL_CARD),
                self._stages: stages_html(BENCHMARK_ROOT),
                **self._show_model(model),
            }
        except Exception as error:
            return {self._status: failure_html(presentable(error))}

    def _show_model(self, model: str | None) -> Updates:
        if model is None:
            return {self._status: status_html("There is no checkpoint here.")}
        try:
            title = get_spec(model).title
            if model not in self._drawn:
                self._drawn[model] = model_html(model, CHECKPOINT_ROOT, BENCHMARK_ROOT)
        except Exception as error:
            return {self._status: failure_html(presentable(error)), self._trainings: ""}
        return {
            self._status: status_html(f"The trainings of {title}."),
            self._trainings: self._drawn[model],
        }


def read_card(path: Path) -> str:
    """The model card as Markdown whose headings fit below the tab's own, or how to write one."""
    if not path.is_file():
        return _NO_CARD
    text = path.read_text(encoding="utf-8")
    below_title = text.split("\n", 1)[1] if text.startswith("# ") else text
    deeper = re.sub(r"^(?=##+ )", "#", below_title, flags=re.MULTILINE)
    # Gradio puts this before the id of every heading.
    return deeper.replace("](#", "](#h-")


def _text(title: str, markdown: str, commands: Sequence[str] = ()) -> None:
    with gr.Column(elem_classes="dd-card dd-text", min_width=300):
        gr.HTML(render("views/training/text.html", title=title, commands=commands))
        gr.Markdown(markdown)
