"""The whole app, put together from its tabs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from dermadeit.predictor import Predictor
from dermadeit.views import endpoints, single_image
from dermadeit.views.header import header_html
from dermadeit.views.theme import STYLE_SHEET, create_theme
from dermadeit.views.uploads import EXAMPLES_FOLDER, MAX_UPLOAD_BYTES

QUEUE_SIZE = 64
SESSIONS_REMEMBERED = 128


def build_app(predictors: Mapping[str, Predictor]) -> gr.Blocks:
    """Builds the page and the API endpoints.

    Args:
        predictors: Task key to predictor, for every task.

    Returns:
        The app, to be launched with `launch_options()`.
    """
    # Served from where they lie: copies in the cache would be gone after its first clean-up.
    gr.set_static_paths([EXAMPLES_FOLDER])
    with gr.Blocks(title="DermaDeiT", analytics_enabled=False, fill_width=True) as app:
        gr.HTML(header_html())
        single_image.SingleImageTab(predictors).render()
        endpoints.add_endpoints(predictors)
    return app.queue(max_size=QUEUE_SIZE, api_open=False)


def launch_options() -> dict[str, Any]:
    """Arguments for `launch`: look, limits and privacy. Address and port stay with Gradio's environment."""
    return {
        "theme": create_theme(),
        "css_paths": [STYLE_SHEET],
        "footer_links": [],
        "max_file_size": MAX_UPLOAD_BYTES,
        "run_history": False,
        "enable_monitoring": False,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        # Our own handlers let nothing through, so this shows only Gradio's refusals, such as a forbidden path.
        "show_error": True,
        "state_session_capacity": SESSIONS_REMEMBERED,
    }
