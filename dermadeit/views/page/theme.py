"""Theme, style sheets, scripts, header and footer of the page.

System fonts only: it asks no other server for anything.
"""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.files import ASSETS
from dermadeit.reporting.templates import render
from dermadeit.views.page.glossary import GLOSSARY

SHELL_SCRIPT = ASSETS / "shell.js"
"""JavaScript of the tab bar, a function."""

FOLDER_SCRIPT = ASSETS / "folder.js"
"""JavaScript of the button that chooses a folder: what runs once its HTML part is there."""

VIEWER_SCRIPT = ASSETS / "viewer.js"
"""JavaScript of the large view of a picture: likewise."""

PHOTO_SCRIPT = ASSETS / "photo.js"
"""JavaScript of the photo box: what runs once its HTML is there."""

HEATMAP_SCRIPT = ASSETS / "heatmap.js"
"""JavaScript of the heatmap over the photo: likewise."""

RESULT_SCRIPT = ASSETS / "result.js"
"""JavaScript of the result: likewise."""

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

# Opacities of the nine patches of the sign in the header: some matter more than others.
_PATCHES = (0.25, 0.5, 0.3, 0.55, 1.0, 0.75, 0.2, 0.8, 0.4)


def style_sheets() -> list[Path]:
    """The style sheets of the page, the shell's first."""
    return sorted(ASSETS.glob("style*.css"), key=lambda path: (path.stem != "style", path.name))


def create_theme() -> gr.themes.Base:
    """A calm theme with one accent, in a light and a dark version."""
    return gr.themes.Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        radius_size="md",
        # Plain strings would become web fonts that are looked for on the server.
        font=[gr.themes.Font(name) for name in _SANS],
        font_mono=[gr.themes.Font(name) for name in _MONO],
    ).set(
        body_background_fill="#f6f8f9",
        body_background_fill_dark="#0e1518",
        body_text_color="#16242a",
        body_text_color_dark="#e6eef0",
        body_text_color_subdued="#4b5d66",
        body_text_color_subdued_dark="#a3b5bc",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#152025",
        background_fill_secondary="#eef2f4",
        background_fill_secondary_dark="#1c2a30",
        border_color_primary="#d5dde1",
        border_color_primary_dark="#2d3e45",
        block_background_fill="#ffffff",
        block_background_fill_dark="#152025",
        block_border_color="#d5dde1",
        block_border_color_dark="#2d3e45",
        block_border_width="1px",
        block_radius="12px",
        block_shadow="none",
        block_label_text_color="#33464f",
        block_label_text_color_dark="#c3d2d7",
        block_title_text_color="#16242a",
        block_title_text_color_dark="#e6eef0",
        block_title_text_weight="600",
        block_info_text_color="#4b5d66",
        block_info_text_color_dark="#a3b5bc",
        link_text_color="#0f766e",
        link_text_color_dark="#2dd4bf",
        link_text_color_hover="#115e59",
        link_text_color_hover_dark="#5eead4",
        link_text_color_active="#115e59",
        link_text_color_active_dark="#5eead4",
        link_text_color_visited="#0f766e",
        link_text_color_visited_dark="#2dd4bf",
        color_accent="#0f766e",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        loader_color="#0f766e",
        loader_color_dark="#2dd4bf",
        checkbox_border_color="#6b7f88",
        checkbox_border_color_dark="#8aa0a8",
        checkbox_background_color_selected="#0f766e",
        checkbox_background_color_selected_dark="#0f766e",
        checkbox_border_color_selected="#0f766e",
        checkbox_border_color_selected_dark="#2dd4bf",
        checkbox_label_background_fill_selected="#e3f2f0",
        checkbox_label_background_fill_selected_dark="#143b39",
        checkbox_label_border_color_selected="#0f766e",
        checkbox_label_border_color_selected_dark="#2dd4bf",
        checkbox_label_text_color_selected="#16242a",
        checkbox_label_text_color_selected_dark="#e6eef0",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#115e59",
        button_primary_border_color="#0f766e",
        button_primary_border_color_dark="#0f766e",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1c2a30",
        button_secondary_background_fill_hover="#e3f2f0",
        button_secondary_background_fill_hover_dark="#143b39",
        button_secondary_border_color="#b6c3c9",
        button_secondary_border_color_dark="#445860",
        button_secondary_text_color="#16242a",
        button_secondary_text_color_dark="#e6eef0",
        button_border_width="1px",
    )


def header_html(model_card: str) -> str:
    """The header of every page.

    Args:
        model_card: Key of the tab that shows the model card.
    """
    return render(
        "views/page/header.html",
        model_card=model_card,
        patches=_PATCHES,
        version=VERSION,
        disclaimer=DISCLAIMER,
    )


def footer_html(model_card: str) -> str:
    """The footer of every page.

    Args:
        model_card: Key of the tab that shows the model card.
    """
    return render(
        "views/page/footer.html",
        model_card=model_card,
        version=VERSION,
        space=os.environ.get("SPACE_ID", ""),
        terms=GLOSSARY,
    )
