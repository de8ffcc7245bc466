"""What happens when a visitor does the next thing before the last one is done. Without a browser."""

import io
import json
import re
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from calibrated_checkpoint import calibrated_predictor
from gradio.utils import get_upload_folder
from PIL import Image
from repository import ROOT

from dermadeit.tasks import BINARY
from dermadeit.views.api.compare import compare_models
from dermadeit.views.application import build_app
from dermadeit.views.comparison.photo import PhotoSection
from dermadeit.views.page import uploads
from dermadeit.views.page.job import Job
from dermadeit.views.page.uploads import open_photo
from dermadeit.views.single import tab as single_image
from dermadeit.views.single.tab import SingleImageTab
from dermadeit.views.single.turn import Visit

pytestmark = pytest.mark.slow

PICTURES = ROOT / "tests" / "pictures"
FIRST, SECOND = ({"path": str(path)} for path in sorted(PICTURES.glob("*.jpg"))[:2])
CONTROLS = ("balanced", 50, 50, False)
OVERRIDING = ("balanced", 50, 50, True)
METHOD = "grad-sam"
OPACITY = 0.5


@pytest.fixture(scope="module", autouse=True)
def synthetic_examples():
    """Examples stay where they are when they are read, and a model trained on synthetic photos answers them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uploads, "EXAMPLES_FOLDER", PICTURES)
        patch.setattr(uploads, "list_examples", lambda: sorted(PICTURES.glob("*.jpg")))
        yield


@pytest.fixture(scope="module")
def mixed(checkpoint_root, synthetic_data, predictors):
    """Only a calibrated predictor withholds answers."""
    binary = calibrated_predictor(checkpoint_root, synthetic_data)
    return {"binary": binary, "multiclass": predictors["multiclass"]}


@pytest.fixture(scope="module")
def tab(mixed):
    made = SingleImageTab(mixed)
    with gr.Blocks(analytics_enabled=False):
        made.render()
    return made


@pytest.fixture(scope="module")
def section(zoo):
    with gr.Blocks(analytics_enabled=False):
        made = PhotoSection(zoo, gr.Radio(["binary", "multiclass"], value="binary"))
        made.render()
    return made


@pytest.fixture
def uploaded(cache, encoded_photo):
    """Puts a photo where Gradio would: `uploaded(3)` gives its payload."""

    def upload(seed):
        path = Path(get_upload_folder()) / str(seed) / "lesion.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_photo(seed))
        return {"path": str(path), "orig_name": "lesion.jpg"}

    return upload


def chosen(tab, payload, visit=None, task="binary"):
    visit = visit or Visit()
    tab.clear(payload, visit, task, *CONTROLS)
    return visit


@pytest.fixture(scope="module")
def whole(tab):
    """A visit whose photo was read to the end, and all that its reading sent to the page."""
    visit = chosen(tab, FIRST)
    return visit, list(tab.read(FIRST, visit, METHOD))


@pytest.fixture
def visit(whole):
    """A visit with a photo that was read, to go on with."""
    return Visit(replace(whole[0].turn))


@contextmanager
def without_models(monkeypatch):
    """Whoever asks a model fails."""

    def refuse(*_, **__):
        pytest.fail("a model was asked")

    with monkeypatch.context() as patch:
        patch.setattr(single_image, "add_heatmap", refuse)
        yield


def test_an_overtaken_reading_leaves_the_next_photo_alone(tab):
    visit = chosen(tab, FIRST)
    steps = tab.read(FIRST, visit, METHOD)
    assert next(steps) == gr.skip()
    assert tab.result in next(steps)
    chosen(tab, SECOND, visit)
    # Gradio sends what comes last once more, so it has to be nothing.
    assert list(steps) == [gr.skip()]
    assert visit.reading is None


def test_a_reading_that_ends_sends_nothing_again(tab, whole):
    visit, (*_, result, last) = whole
    assert "Done." in result[tab.status]
    assert last == gr.skip()
    assert visit.reading is not None


def test_a_photo_whose_turn_is_over_is_deleted_unread_and_still_there_for_who_sent_the_same(tab, uploaded):
    payload = uploaded(900)
    visit = chosen(tab, FIRST)
    assert list(tab.read(payload, visit, METHOD)) == [gr.skip(), gr.skip()]
    assert not Path(payload["path"]).exists()
    with open_photo(payload) as photo:
        assert photo.width == 240


def test_a_photo_taken_away_while_it_waits_is_not_read(tab):
    visit = chosen(tab, FIRST)
    assert list(tab.read(None, visit, METHOD)) == [gr.skip(), gr.skip()]
    assert visit.turn.is_running
    emptied = tab.clear(None, visit, "binary", *CONTROLS)
    assert "No photo yet" in emptied[tab.result]
    assert not emptied[tab.stop]["interactive"]
    for payload in (FIRST, None):
        assert list(tab.read(payload, visit, METHOD)) == [gr.skip(), gr.skip()]


def test_the_files_can_be_had_with_the_answer_before_any_heatmap_is_drawn(tab):
    visit = chosen(tab, FIRST)
    steps = tab.read(FIRST, visit, METHOD)
    next(steps)
    answered = next(steps)
    assert "dd-label" in answered[tab.result]
    assert all(answered[button]["interactive"] for button in tab.downloads.outputs)
    assert visit.reading.maps == {}
    # A visitor who leaves now has nothing drawn for him.
    steps.close()
    assert visit.reading.maps == {}


def test_only_the_heatmap_of_the_answer_is_drawn_unasked(whole):
    answer = whole[0].reading.predictions["binary"]
    assert {key: {*maps} for key, maps in whole[0].reading.maps.items()} == {
        "binary": {(METHOD, answer.label)}
    }
    assert whole[0].reading.checks["binary"].keys() == {(METHOD, answer.label)}


def white_photo(uploaded, seed):
    payload = uploaded(seed)
    Image.new("RGB", (90, 90), (255, 255, 255)).save(payload["path"], "JPEG")
    return payload


def test_a_withheld_photo_has_no_heatmap_drawn_and_its_files_can_be_had(tab, uploaded, monkeypatch):
    payload = white_photo(uploaded, 903)
    visit = chosen(tab, payload)
    with without_models(monkeypatch):
        steps = list(tab.read(payload, visit, METHOD))
        files = [list(make(visit, "binary", None, METHOD, OPACITY, *CONTROLS)) for make in makers(tab)]
    assert "Done." in steps[-2][tab.status]
    assert visit.reading.maps == {}
    assert all(Path(updates[tab.downloads._file]).is_file() for [updates] in files)


def makers(tab):
    return tab.downloads._make_report, tab.downloads._make_json


def test_a_file_asked_for_before_the_check_holds_the_heatmap_and_its_check(tab):
    visit = chosen(tab, FIRST)
    steps = tab.read(FIRST, visit, METHOD)
    next(steps), next(steps)
    label = visit.reading.predictions["binary"].label
    files = []
    for make in makers(tab):
        doing, done = make(visit, "binary", f"binary/{label}", METHOD, OPACITY, *CONTROLS)
        assert "Checking" in doing[tab.downloads._status]
        files.append(Path(done[tab.downloads._file]).read_text(encoding="utf-8"))
    made, exported = files
    assert made.count("data:image/png") == 2
    assert re.search('class="badge (un)?reliable"', made)
    [told] = json.loads(exported)["readings"]
    assert told["saliency_check"]["class"] == label
    # What was found out for the files is not taken for what the page shows.
    assert visit.reading.maps == {}
    steps.close()


def test_no_file_is_made_of_an_answer_that_is_not_there_yet(tab):
    visit = chosen(tab, FIRST)
    steps = tab.read(FIRST, visit, METHOD)
    next(steps), next(steps)
    updates = tab.switch_task(visit, "multiclass", FIRST, *CONTROLS, METHOD)
    assert not any(updates[button]["interactive"] for button in tab.downloads.outputs)
    for make in makers(tab):
        [refused] = make(visit, "multiclass", None, METHOD, OPACITY, *CONTROLS)
        assert refused[tab.downloads._file] is None
    # The reading that goes on shows the other task as soon as it has it.
    answered = next(step for step in steps if tab.result in step)
    assert "dd-conditional" in answered[tab.result]
    assert all(answered[button]["interactive"] for button in tab.downloads.outputs)
    *_, result, _ = steps
    assert "Done." in result[tab.status]
    assert [*visit.reading.checks["multiclass"]] == [(METHOD, visit.reading.predictions["multiclass"].label)]


def test_a_class_chosen_while_the_photo_is_read_is_drawn_in_place_of_the_answer(tab):
    visit = chosen(tab, FIRST)
    steps = tab.read(FIRST, visit, METHOD)
    next(steps), next(steps)
    [other] = {*BINARY.classes} - {visit.reading.predictions["binary"].label}
    tab.redraw(visit, f"binary/{other}", METHOD)
    assert list(tab.draw_wanted(visit)) == [gr.skip(), gr.skip()]
    badges = [step[tab.heatmap.badge] for step in steps if step.get(tab.heatmap.badge)]
    assert [re.findall("checking|reliable", badge)[0] for badge in badges] == ["checking", "reliable"]
    assert [*visit.reading.maps["binary"]] == [(METHOD, other)]
    assert visit.turn.class_key == other


def test_a_reading_stopped_before_the_check_shows_no_heatmap_and_the_rest_can_still_be_had(tab):
    visit = chosen(tab, FIRST)
    steps = tab.read(FIRST, visit, METHOD)
    next(steps), next(steps)
    assert "Checking" in next(steps)[tab.status]
    assert tab.status in tab.end(visit)
    *_, stopped, last = steps
    assert "Stopped" in stopped[tab.status]
    assert not stopped[tab.heatmap.overlay]
    assert stopped[tab.heatmap.badge] == ""
    assert last == gr.skip()
    # There is nothing left to stop.
    assert tab.end(visit) == gr.skip()
    reading = visit.reading
    assert set(reading.predictions) == set(reading.views) == {"binary", "multiclass"}
    label = reading.predictions["binary"].label
    assert reading.checks["binary"] == {}
    tab.redraw(visit, f"binary/{label}", METHOD)
    list(tab.draw_wanted(visit))
    assert visit.reading.checks["binary"].keys() == {(METHOD, label)}
    updates = tab.switch_task(visit, "multiclass", FIRST, *CONTROLS, METHOD)
    assert "dd-conditional" in updates[tab.result]
    _, drawn, checked, _ = tab.draw_wanted(visit)
    assert drawn[tab.heatmap.overlay]
    assert "Done." in checked[tab.status]
    assert visit.reading.checks["multiclass"].keys() == {
        (METHOD, visit.reading.predictions["multiclass"].label)
    }


def colours(layers):
    """Share of the pixels of the map over the photo that are clearly coloured."""
    data = re.search(r'class="dd-heat" src="data:image/webp;base64,([^"]+)"', layers)[1]
    with Image.open(io.BytesIO(b64decode(data))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return (np.ptp(pixels, axis=2) > 30).mean()


def test_a_heatmap_is_in_colour_from_the_first_moment_with_a_badge_that_says_what_is_known(tab, whole):
    heatmap = tab.heatmap
    drawn, checked = [step for step in whole[1] if step.get(heatmap.badge)]
    assert 'data-state="checking"' in drawn[heatmap.badge]
    assert colours(drawn[heatmap.overlay]) > 0.5
    assert re.search('data-state="(un)?reliable"', checked[heatmap.badge])
    # The picture stays as it is.
    assert heatmap.overlay not in checked
    for step in (drawn, checked):
        [state] = re.findall('data-state="([a-z]+)"', step[heatmap.badge])
        assert f'data-check="{state}"' in step[heatmap.legend]


def test_overriding_decides_at_once_and_draws_after_it(tab, uploaded, monkeypatch):
    payload = white_photo(uploaded, 901)
    visit = chosen(tab, payload)
    list(tab.read(payload, visit, METHOD))
    assert visit.turn.wanted is None
    with without_models(monkeypatch):
        updates = tab.override(visit, "binary", *OVERRIDING, METHOD)
    assert "dd-overridden" in updates[tab.result]
    assert not updates[tab.heatmap.overlay]
    _, drawn, checked, _ = tab.draw_wanted(visit)
    assert drawn[tab.heatmap.overlay]
    assert "Done." in checked[tab.status]


def test_another_task_takes_no_pass_through_a_model_but_for_its_heatmap(tab, visit, monkeypatch):
    with without_models(monkeypatch):
        updates = tab.switch_task(visit, "multiclass", FIRST, *CONTROLS, METHOD)
        assert "dd-conditional" in updates[tab.result]
        assert not updates[tab.heatmap.overlay]
    assert "Drawing" in updates[tab.status]
    list(tab.draw_wanted(visit))
    with without_models(monkeypatch):
        for task_key in ("binary", "multiclass"):
            updates = tab.switch_task(visit, task_key, FIRST, *CONTROLS, METHOD)
            assert updates[tab.heatmap.overlay]
            assert list(tab.draw_wanted(visit)) == [gr.skip(), gr.skip()]


def test_a_heatmap_that_comes_after_another_task_was_chosen_is_not_shown(tab, visit, monkeypatch):
    [other] = {*BINARY.classes} - {visit.reading.predictions["binary"].label}
    updates = tab.redraw(visit, f"binary/{other}", "attention-rollout")
    assert "Drawing" in updates[tab.status]
    draw = single_image.add_heatmap

    def draw_late(*arguments, **options):
        drawn = draw(*arguments, **options)
        tab.switch_task(visit, "multiclass", FIRST, *CONTROLS, METHOD)
        return drawn

    monkeypatch.setattr(single_image, "add_heatmap", draw_late)
    assert list(tab.draw_wanted(visit)) == [gr.skip(), gr.skip()]
    assert visit.turn.wanted[0] == "multiclass"
    # A choice among the classes of the task before, likewise.
    assert tab.redraw(visit, f"binary/{other}", METHOD) == gr.skip()


def test_whoever_moves_a_control_does_not_lose_the_photo(tab, visit):
    label = visit.reading.predictions["binary"].label
    for updates in (
        tab.redraw(visit, f"binary/{label}", METHOD),
        tab.choose_point(visit, "binary", *CONTROLS),
        tab.move_threshold(visit, "binary", *CONTROLS),
        tab.override(visit, "binary", *OVERRIDING, METHOD),
        tab.switch_task(visit, "multiclass", FIRST, *CONTROLS, METHOD),
    ):
        # What is written back counts as new and does not expire.
        assert updates[tab.visit] is visit


def test_another_task_for_a_photo_that_has_expired_says_so(tab):
    updates = tab.switch_task(Visit(), "multiclass", FIRST, *CONTROLS, METHOD)
    assert "No photo yet" in updates[tab.result]
    assert "expired" in updates[tab.status]
    assert not updates[tab.heatmap.overlay]


def test_a_photo_taken_away_while_its_comparison_waits_is_not_read(section):
    waiting = section.clear(FIRST, None, None, "binary", "balanced")[section.run]
    emptied = section.clear(None, waiting, None, "binary", "balanced")
    assert waiting.job.is_superseded
    assert "Ready." in emptied[section.status]
    assert not emptied[section.stop]["interactive"]
    assert list(section.read(FIRST, emptied[section.run])) == [gr.skip(), gr.skip()]


def test_an_overtaken_comparison_leaves_the_next_photo_alone(section):
    run = section.clear(FIRST, None, None, "binary", "balanced")[section.run]
    steps = section.read(FIRST, run)
    assert next(steps) == gr.skip()
    assert section.photo in next(steps)
    section.clear(SECOND, run, None, "binary", "balanced")
    assert list(steps) == [gr.skip()]


def test_a_comparison_whose_turn_is_over_deletes_the_photo_unread(section, uploaded):
    run = section.clear(FIRST, None, None, "binary", "balanced")[section.run]
    payload = uploaded(902)
    assert list(section.read(payload, run)) == [gr.skip(), gr.skip()]
    assert not Path(payload["path"]).exists()


def test_asking_the_same_photo_again_sends_nothing_twice(section):
    run = section.clear(FIRST, None, None, "binary", "balanced")[section.run]
    with open_photo(FIRST) as photo:
        run.again = photo
    run.job.stop()
    *_, result, last = section.read_again(run)
    assert "Stopped" in result[section.status]
    assert last == gr.skip()
    run.again, run.job = photo, Job()
    steps = section.read_again(run)
    next(steps), next(steps)
    run.job.supersede()
    assert list(steps) == [gr.skip()]


def test_whoever_looks_at_other_classes_does_not_lose_the_comparison(section):
    run = section.clear(FIRST, None, None, "binary", "balanced")[section.run]
    run.job.stop()
    results = [step[section.result] for step in section.read(FIRST, run) if section.result in step]
    updates = section.redraw(run, results[-1], "others", "balanced")
    assert (updates[section.run], updates[section.result]) == (run, results[-1])
    assert "expired" in section.redraw(None, None, "others", "balanced")[section.status]
    section.clear(SECOND, run, None, "binary", "balanced")
    assert section.redraw(run, results[-1], "nevus", "balanced") == gr.skip()


def test_a_program_that_compares_can_leave_after_each_model(zoo):
    steps = compare_models(zoo, FIRST, "binary")
    read = [
        [record["model"] for record in records if record["status"] == "ok"]
        for records in (next(steps), next(steps))
    ]
    assert read == [[], ["dermadeit"]]
    steps.close()


def test_single_photos_do_not_wait_behind_comparisons_and_batches(predictors, zoo):
    queues = {}
    for event in build_app(predictors, zoo).fns.values():
        queues.setdefault(event.concurrency_id, set()).add(event.api_name)
    ours = [names & {"predict", "explain", "compare", "evaluate"} for names in queues.values()]
    assert sorted(map(sorted, filter(None, ours))) == [["compare"], ["evaluate"], ["explain", "predict"]]
