"""The whole app, put together from its tabs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import ModelZoo
from dermadeit.views.api.compare import add_compare_endpoint
from dermadeit.views.api.compare_predictions import add_compare_predictions_endpoint
from dermadeit.views.api.decide import add_decide_endpoint
from dermadeit.views.api.evaluate import add_evaluate_endpoint
from dermadeit.views.api.health import health_route
from dermadeit.views.api.lesion import add_lesion_endpoint
from dermadeit.views.api.photo import add_photo_endpoints
from dermadeit.views.api.report import add_report_endpoint
from dermadeit.views.batch.tab import BatchEvaluationTab
from dermadeit.views.comparison.tab import ModelComparisonTab
from dermadeit.views.page.gradio_patches import ClosedBlocks, StreamedBlocks, check_gradio
from dermadeit.views.page.theme import SHELL_SCRIPT, create_theme, footer_html, header_html, style_sheets
from dermadeit.views.page.uploads import EXAMPLES_FOLDER, MAX_UPLOAD_BYTES
from dermadeit.views.single.tab import SingleImageTab
from dermadeit.views.training.tab import TrainingAndCardTab

QUEUE_SIZE = 64
SESSIONS_REMEMBERED = 128

TAB_TITLES: Mapping[str, str] = {
    "single": "Single image",
    "batch": "Batch evaluation",
    "comparison": "Model comparison",
    "training": "Training and model card",
}
"""Key of a tab, which its address ends in (`/#batch`), to the title on its button."""


class _App(ClosedBlocks, StreamedBlocks):
    pass


def build_app(predictors: Mapping[str, Predictor], zoo: ModelZoo) -> gr.Blocks:
    """Builds the page and the API endpoints. Nothing is loaded or drawn before somebody looks at it.

    Args:
        predictors: Task key to predictor, for every task.
        zoo: Every compared model.

    Returns:
        The app, to be launched with `launch_options(predictors)`.
    """
    check_gradio()
    # Served from where they lie: copies in the cache would be gone after its first clean-up.
    gr.set_static_paths([EXAMPLES_FOLDER])
    with _App(title="DermaDeiT", analytics_enabled=False, fill_width=True) as app:
        gr.HTML(header_html("training"))
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with _tab("single"):
                SingleImageTab(predictors).render()
            with _tab("batch"):
                BatchEvaluationTab(zoo).render()
            with _tab("comparison"):
                ModelComparisonTab(zoo).render()
            with _tab("training") as training:
                TrainingAndCardTab().render(training)
        gr.HTML(footer_html("training"))
        add_photo_endpoints(predictors)
        add_lesion_endpoint(predictors)
        add_report_endpoint(predictors)
        add_decide_endpoint(predictors)
        add_evaluate_endpoint(zoo)
        add_compare_endpoint(zoo)
        add_compare_predictions_endpoint(zoo)
    return app.queue(max_size=QUEUE_SIZE, api_open=False)


def _tab(key: str) -> gr.Tab:
    # The panel must not have the key as its id: the browser would scroll the header away.
    return gr.Tab(TAB_TITLES[key], id=key, elem_id=f"panel-{key}")


def launch_options(predictors: Mapping[str, Predictor]) -> dict[str, Any]:
    """Arguments for `launch`: look, limits and privacy. Address and port stay with Gradio's environment.

    Args:
        predictors: Those that the app was built with; `/healthz` names their weights.
    """
    return {
        "theme": create_theme(),
        "css_paths": style_sheets(),
        "js": SHELL_SCRIPT.read_text(encoding="utf-8"),
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
        "app_kwargs": {
            "routes": [health_route(predictors)],
            # Gradio compresses its scripts, but not the page, of half a megabyte. Streams are left alone.
            "middleware": [Middleware(GZipMiddleware, minimum_size=1000)],
        },
        "mcp_server": find_spec("mcp") is not None,
    }
