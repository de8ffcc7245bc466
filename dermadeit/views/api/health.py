"""`/healthz`: whether the app answers, and which versions and weights it answers with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import gradio
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dermadeit.about import VERSION
from dermadeit.inference.predictor import Predictor

PATH = "/healthz"


def health_route(predictors: Mapping[str, Predictor]) -> Route:
    """The route, for `launch(app_kwargs={"routes": [...]})`: there before the first request, and without login.

    Args:
        predictors: Task key to predictor; their weights were checked against their hashes when they were loaded.
    """

    async def answer(request: Request) -> JSONResponse:
        content = health(predictors)
        # A cache in between would go on answering for an app that is gone.
        return JSONResponse(content, headers={"Cache-Control": "no-store"})

    return Route(PATH, answer, methods=["GET"], include_in_schema=False)


def health(predictors: Mapping[str, Predictor]) -> dict[str, Any]:
    """What the route answers: `status`, versions, and by `<task>/<model>` the weights' SHA-256 and the runtime."""
    return {
        "status": "ok",
        "version": VERSION,
        "python": platform.python_version(),
        "torch": version("torch"),
        "gradio": gradio.__version__,
        "checkpoints": {
            f"{task}/{predictor.checkpoint.model}": predictor.checkpoint.weights_sha256
            for task, predictor in predictors.items()
        },
        "runtimes": {
            f"{task}/{predictor.checkpoint.model}": predictor.runtime.name
            for task, predictor in predictors.items()
        },
    }
