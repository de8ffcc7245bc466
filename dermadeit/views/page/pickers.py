"""Where a visitor chooses what is read: task, photo or example, files or folder, number of views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gradio as gr
from markupsafe import Markup

from dermadeit.data.archives import MAX_INFLATED_BYTES
from dermadeit.data.collection import MAX_IMAGES
from dermadeit.data.tabular import TABLE_SUFFIXES
from dermadeit.files import read_json
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.inference.zoo import ModelZoo
from dermadeit.models.specs import OURS, get_spec
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, METRICS_FILE
from dermadeit.reporting.format import percent
from dermadeit.reporting.names import is_conditional
from dermadeit.reporting.templates import render
from dermadeit.tasks import Task
from dermadeit.views.page.events import INSTANT_EVENT
from dermadeit.views.page.examples import read_examples
from dermadeit.views.page.gradio_patches import UNLISTED_IMAGES, FilesInput
from dermadeit.views.page.html import heading_html
from dermadeit.views.page.photo_box import PhotoBox, add_photo_box
from dermadeit.views.page.scripts import ANNOUNCE
from dermadeit.views.page.theme import FOLDER_SCRIPT
from dermadeit.views.page.uploads import FOLDER_MARK, MAX_UPLOAD_BYTES

_ABOUT_EXAMPLES = (
    "Real photos with a known diagnosis. The models were not trained on them. ISIC 2016 challenge, CC0; Gutman et "
    "al. 2016, arXiv:1605.01397."
)

_OTHER_KINDS = (*TABLE_SUFFIXES, *UNLISTED_IMAGES)
"""Suffixes that are taken besides those that browsers know to be images."""


class PhotoPanel:
    """Layout of task, photo and examples.

    Args:
        tasks: What can be asked.

    Attributes:
        task: The task selector; its value is a task key.
        photo: The photo input.
        examples: Path of each shipped example and the button that chooses it.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    def render_photo(self) -> None:
        """Adds task and photo to the Blocks that is being built."""
        self.task = add_task_choice(self._tasks, "task")
        self.photo = add_photo_box("photo")

    def render_examples(self) -> None:
        """Adds the examples, and what is known of the one that was chosen last."""
        self.examples = add_examples("photo", self.photo, self._tasks)


def add_task_choice(tasks: Sequence[Task], elem_id: str) -> gr.Radio:
    """Adds the choice of a task to the Blocks that is being built; a single task needs none, and is not seen.

    Args:
        tasks: What can be asked. The first is chosen.
        elem_id: Id on the page.
    """
    conditional = " and ".join(f"“{task.title}”" for task in tasks if is_conditional(task))
    return gr.Radio(
        [(task.title, task.key) for task in tasks],
        value=tasks[0].key,
        label="Task",
        info=f"{conditional}: only for malignant lesions." if conditional else None,
        visible=len(tasks) > 1,
        elem_id=elem_id,
    )


def have_diagnoses(tasks: Sequence[Task]) -> bool:
    """Whether the diagnoses of the shipped photos belong to what can be asked, and not to classes of one's own."""
    return any(task.class_of_diagnosis for task in tasks)


def add_examples(elem_id: str, photo: PhotoBox, tasks: Sequence[Task]) -> list[tuple[Path, gr.Button]]:
    """Adds the examples to the Blocks that is being built, and what is known of the one that was chosen last.

    Args:
        elem_id: Id of the photo input on the page.
        photo: The photo input.
        tasks: What can be asked; classes of one's own have no examples.

    Returns:
        Path of each shipped example and the button that chooses it.
    """
    examples = read_examples() if have_diagnoses(tasks) else []
    if not examples:
        return []
    caption = gr.HTML("", elem_id=f"{elem_id}-known", js_on_load=ANNOUNCE)
    gr.HTML(heading_html("Examples", _ABOUT_EXAMPLES, "small"))
    with gr.Row(elem_classes="dd-examples", elem_id=f"{elem_id}-examples"):
        buttons = [
            gr.Button(example.title, icon=example.path, size="sm", min_width=72) for example in examples
        ]
    for example, button in zip(examples, buttons, strict=True):
        button.click(partial(_say, example.caption_html()), None, [caption], **INSTANT_EVENT)
    for gone in (photo.upload, photo.clear):
        gone(partial(_say, ""), None, [caption], **INSTANT_EVENT)
    return [(example.path, button) for example, button in zip(examples, buttons, strict=True)]


def _say(words: str) -> str:
    return words


def add_files_choice(elem_id: str, start: str, folder: str, height: int) -> FilesInput:
    """Adds the box and the button to the Blocks that is being built.

    Args:
        elem_id: Id of the box on the page.
        start: Id of the button that starts the reading.
        folder: Id of the part with the button that chooses a folder.
        height: Of the box, in pixels.
    """
    files = FilesInput(
        file_count="multiple",
        file_types=["image", ".zip", *_OTHER_KINDS],
        label="Images, a ZIP or a table, up to 100 MB each",
        height=height,
        elem_id=elem_id,
    )
    script = FOLDER_SCRIPT.read_text(encoding="utf-8")
    gr.HTML(_folder_html(elem_id, start), elem_id=folder, js_on_load=script)
    return files


def add_views_choice(elem_id: str, tasks: Sequence[Task]) -> gr.Radio:
    """Adds the choice of how many views of each image are read."""
    measured = views_info(tasks)
    return gr.Radio(
        [
            (f"{DEFAULT_VIEWS} views: turned and mirrored, averaged", DEFAULT_VIEWS),
            ("Fast: one view, as accurate on test" if measured else "Fast: one view", 1),
        ],
        value=DEFAULT_VIEWS,
        label="Views of each photo",
        info=measured,
        elem_id=elem_id,
    )


def views_info(tasks: Sequence[Task], root: Path = BENCHMARK_ROOT) -> str | None:
    """The accuracy of our model on the test images with one view and with all, of each task; None without figures.

    Args:
        tasks: What can be asked.
        root: The benchmark, laid out as `publishing.benchmark` describes.
    """
    measured = []
    for task in tasks:
        path = root / task.key / METRICS_FILE
        by_views = read_json(path)["models"][OURS]["views"] if path.is_file() else {}
        if {"1", str(DEFAULT_VIEWS)} <= by_views.keys():
            one, all_views = (percent(by_views[str(views)]["accuracy"]) for views in (1, DEFAULT_VIEWS))
            measured.append(f"{one} and {all_views} ({task.title})")
    if not measured:
        return None
    title = get_spec(OURS).title
    return f"Test accuracy of {title} with one view and with {DEFAULT_VIEWS} views: {'; '.join(measured)}."


def available_models(zoo: ModelZoo, task_key: str) -> list[tuple[str, str]]:
    """Titles and names of the models that can read images here, as choices."""
    return [(entry.title, entry.name) for entry in zoo.entries(task_key) if entry.available]


def _folder_html(box: str, start: str) -> str:
    """The button, and the line below it, which `assets/folder.js` fills when a folder was chosen."""
    data = {
        "box": box,
        "start": start,
        # As it is: it holds a character that is not seen, which templates make visible.
        "mark": Markup(FOLDER_MARK),  # noqa: S704
        "most": MAX_IMAGES,
        "bytes": MAX_INFLATED_BYTES,
        "largest": MAX_UPLOAD_BYTES,
        "kinds": " ".join(_OTHER_KINDS),
    }
    return render("views/page/folder_choice.html", data=data)
