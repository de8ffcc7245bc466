"""What is offered where a batch or a comparison is started."""

import json
from pathlib import Path

import pytest

from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.models.specs import OURS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, METRICS_FILE, filed_tasks
from dermadeit.reporting.format import percent
from dermadeit.tasks import TASKS, Task
from dermadeit.views.page.pickers import views_info


@pytest.mark.parametrize("task", filed_tasks(), ids=lambda task: task.key)
def test_one_view_is_as_accurate_on_test_as_it_is_offered(task: Task) -> None:
    path = BENCHMARK_ROOT / task.key / METRICS_FILE
    by_views = json.loads(path.read_text(encoding="utf-8"))["models"][OURS]["views"]
    one, every = by_views["1"], by_views[str(DEFAULT_VIEWS)]
    low, high = every["intervals"]["accuracy"]
    assert low <= one["accuracy"] <= high
    said = views_info(tuple(TASKS.values()))
    assert percent(one["accuracy"]) in said
    assert percent(every["accuracy"]) in said


def test_without_figures_nothing_is_claimed_of_the_views(tmp_path: Path) -> None:
    assert views_info(tuple(TASKS.values()), tmp_path) is None
