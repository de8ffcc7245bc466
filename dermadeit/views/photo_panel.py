"""Where a visitor chooses the task and the photo."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from dermadeit.display_names import capitalised
from dermadeit.tasks import BINARY, DIAGNOSES, TASKS
from dermadeit.views.page_scripts import REFUSE_OVERSIZED
from dermadeit.views.uploads import PhotoInput, list_examples


class PhotoPanel:
    """Layout of task, photo and examples.

    Attributes:
        task: The task selector; its value is a task key.
        photo: The photo input.
        examples: Path of each shipped example and the button that chooses it.
    """

    def render(self) -> None:
        """Adds the panel to the Blocks that is being built."""
        self.task = gr.Radio(
            [(task.title, task.key) for task in TASKS.values()],
            value=BINARY.key,
            label="Task",
            info="The second task only means something for a lesion that is malignant.",
            elem_id="task",
        )
        self.photo = PhotoInput(
            type="filepath",
            sources=["upload", "webcam", "clipboard"],
            label="Photo of one lesion, up to 20 MB",
            height=340,
            buttons=[],
            # Gradio gives the button this name; the text that is seen has to be the text that is heard.
            placeholder="Drop an image file here to upload",
            alt_text="The chosen photo",
            elem_id="photo",
        )
        gr.HTML("", elem_id="photo-note", js_on_load=REFUSE_OVERSIZED)
        self.examples: list[tuple[Path, gr.Button]] = []
        if paths := list_examples():
            gr.HTML(
                '<h2 class="dd-small">Examples</h2><p class="dd-quiet">Synthetic, drawn by a program. The models '
                "were trained on real photos, so what they say of a drawing means nothing.</p>"
            )
            with gr.Row(elem_classes="dd-examples"):
                self.examples = [
                    (path, gr.Button(example_title(path, number), icon=path, size="sm", min_width=72))
                    for number, path in enumerate(paths, start=1)
                ]


def example_title(path: Path, number: int) -> str:
    """What an example is called, from its file name; its number where the name says nothing."""
    words = path.stem.removeprefix("synthetic_").split("_")
    # Abbreviations of diagnoses stay in capitals.
    spoken = " ".join(
        word.upper() if word.upper() in DIAGNOSES and len(word) == 3 else word for word in words
    )
    return capitalised(spoken) if any(map(str.isalpha, words)) else f"Lesion {number}"
