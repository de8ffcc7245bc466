"""The API over HTTP: answers, refusals, privacy, and many callers at once."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from raw_calls import NOT_UPLOADS, call_raw, file_record

from dermadeit.imaging.decode import decode_image
from dermadeit.inference.faithfulness import check_saliency
from dermadeit.inference.saliency import DEFAULT_OPACITY, attention_rollout, grad_sam
from dermadeit.views.page.failures import presentable
from dermadeit.views.page.uploads import MAX_UPLOAD_BYTES
from dermadeit.views.single.image_check import check_html
from dermadeit.views.single.reading import read_labels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(
        app_url, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("downloads")
    )


def predict(client, path, task="binary"):
    [record] = client.predict(image=handle_file(path), task=task, api_name="/predict")
    return record


def files_under(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(("task", "size"), [("binary", {}), ("multiclass", {"width": 1500, "height": 1300})])
def test_predict_equals_the_library(client, predictors, encoded_photo, file_of, task, size):
    path = file_of(encoded_photo(1, **size))
    [expected] = predictors[task].predict([path])
    assert predict(client, path, task) == expected.to_dict()


@pytest.mark.parametrize(("task", "class_key"), [("binary", None), ("multiclass", "scc")])
def test_explain_draws_the_heatmap_in_full_size(client, predictors, encoded_photo, file_of, task, class_key):
    path = file_of(encoded_photo(2, width=300, height=200))
    answer, check = client.predict(
        image=handle_file(path), task=task, class_key=class_key, api_name="/explain"
    )
    photo = decode_image(path)
    drawn = grad_sam(predictors[task], photo, class_key)
    expected = overlay_of(predictors[task], photo, drawn)
    with Image.open(answer) as overlay:
        assert overlay.size == (300, 200)
        assert np.array_equal(np.asarray(overlay), expected)
    assert check["class_key"] == drawn.class_key
    assert check["faithful"] is check_saliency(predictors[task], photo, drawn).faithful
    assert check["statement"].startswith("Reliable" if check["faithful"] else "Unreliable")
    assert "Not a medical device." in check["disclaimer"]
    assert (check["verdict"], check["abstain_reasons"]) == ("answer", [])


def overlay_of(predictor, photo, drawn):
    """What `/explain` draws: grey where the check fails, so that it is not believed."""
    overlay = drawn.overlay(photo, DEFAULT_OPACITY)
    if check_saliency(predictor, photo, drawn).faithful:
        return overlay
    return np.asarray(Image.fromarray(overlay).convert("L").convert("RGB"))


def test_explain_needs_no_class(client, predictors, encoded_photo, file_of):
    path = file_of(encoded_photo(2))
    _, check = client.predict(handle_file(path), "binary", api_name="/explain")
    assert check["class_key"] == predictors["binary"].predict([path])[0].label


def test_explain_rolls_out_attention_when_asked(client, predictors, encoded_photo, file_of):
    path = file_of(encoded_photo(3))
    answer, check = client.predict(
        image=handle_file(path),
        task="binary",
        class_key=None,
        method="attention-rollout",
        api_name="/explain",
    )
    photo = decode_image(path)
    drawn = attention_rollout(predictors["binary"], photo)
    expected = overlay_of(predictors["binary"], photo, drawn)
    assert check["method"] == drawn.method
    with Image.open(answer) as overlay:
        assert np.array_equal(np.asarray(overlay), expected)
    with pytest.raises(AppError, match="no method “smoothgrad”"):
        client.predict(
            image=handle_file(path),
            task="binary",
            class_key=None,
            method="smoothgrad",
            api_name="/explain",
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operating_point": "balanced"}, "was not calibrated"),
        ({"operating_point": "youden"}, "Choose one of"),
        ({"neighbours": 5}, "was not calibrated"),
        ({"neighbours": -1}, "0 to 50"),
        ({"neighbours": 51}, "0 to 50"),
    ],
)
def test_what_a_checkpoint_does_not_have_is_a_failed_record(client, encoded_photo, file_of, options, words):
    path = file_of(encoded_photo())
    [record] = client.predict(image=handle_file(path), task="binary", **options, api_name="/predict")
    assert record["error"]["code"] == "configuration_refused"
    assert words in record["error"]["message"]


def test_only_the_documented_endpoints_are_listed(client):
    listed = set(client.view_api(return_format="dict")["named_endpoints"])
    assert listed == {
        "/predict", "/predict_lesion", "/decide", "/explain", "/report", "/evaluate", "/compare",
        "/compare_predictions",
    }  # fmt: skip


def test_a_broken_file_is_a_failed_record(client, encoded_photo, file_of):
    record = predict(client, file_of(encoded_photo()[:600], "broken.jpg"))
    assert record["status"] == "failed"
    assert record["error"]["code"] == "truncated_image"
    assert record["file"] == "broken.jpg"


def test_an_unknown_task_is_a_failed_record(client, encoded_photo, file_of):
    assert predict(client, file_of(encoded_photo()), task="regression")["error"]["code"] == "unknown_task"


@pytest.mark.parametrize("task", [["binary"], {"task": "binary"}, None, 7])
def test_a_task_that_is_no_text_is_refused_as_an_unknown_one(client, encoded_photo, file_of, task):
    image = handle_file(file_of(encoded_photo()))
    for api_name in ("/predict", "/compare"):
        [record] = client.predict(image, task, api_name=api_name)
        assert record["error"]["code"] == "unknown_task"
    with pytest.raises(AppError, match="There is no task"):
        client.predict(image, task, None, api_name="/explain")


def test_an_unknown_class_is_a_sentence(client, encoded_photo, file_of):
    with pytest.raises(AppError, match="has no class “benign”"):
        client.predict(
            image=handle_file(file_of(encoded_photo())),
            task="binary",
            class_key="benign",
            api_name="/explain",
        )


def test_a_file_over_the_limit_is_refused_by_the_upload(app_url):
    reply = httpx.post(
        f"{app_url}/gradio_api/upload", files={"files": ("big.jpg", bytes(MAX_UPLOAD_BYTES + 1))}, timeout=60
    )
    assert reply.status_code == 413


@pytest.mark.parametrize(
    ("api_name", "image"),
    # All endpoints open a photo in the same way.
    [
        *(("predict", image) for image in NOT_UPLOADS.values()),
        ("explain", NOT_UPLOADS["a path of the server"]),
        ("explain", file_record("http://example.com/lesion.jpg")),
        ("explain", None),
        ("report", NOT_UPLOADS["a path of the server"]),
        ("report", file_record("http://example.com/lesion.jpg")),
    ],
)
def test_what_is_not_an_upload_is_refused(app_url, cache, watched_network, image, api_name):
    before = files_under(cache)
    event, answer = call_raw(app_url, image, api_name)
    if event == "complete":
        [[record]] = answer
        assert record["error"]["code"] == "not_an_upload"
        assert "Upload the image file" in record["error"]["message"]
    else:
        assert event == "error"
        said = str((answer or {}).get("error"))
        assert any(words in said for words in ("Upload the image", "not uploaded by a user", "null ")), said
    assert "root:" not in json.dumps(answer)
    assert watched_network == []
    assert files_under(cache).keys() <= before.keys()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_input_of_an_event_makes_the_app_fetch_an_address(app_url, watched_network, place):
    base, data = f"{app_url}/gradio_api/call/predict", [None, "binary", None, 0]
    data[place] = file_record("http://example.com/lesion.jpg")
    event = httpx.post(base, json={"data": data}).json()["event_id"]
    assert "Upload the image file" in httpx.get(f"{base}/{event}", timeout=60).text
    assert watched_network == []


def test_an_upload_is_gone_after_the_call(cache, client, encoded_photo, file_of):
    data = encoded_photo(4)
    before = files_under(cache)
    assert predict(client, file_of(data))["status"] == "ok"
    assert files_under(cache).keys() <= before.keys()
    assert data not in files_under(cache).values()


def test_an_upload_is_gone_even_if_it_was_refused(cache, client, encoded_photo, file_of):
    data = b"%PDF-1.7 not a photo"
    assert predict(client, file_of(data, "paper.jpg"))["error"]["code"] == "not_an_image"
    assert data not in files_under(cache).values()


def test_the_place_in_a_photo_is_nowhere_in_the_cache(cache, client, encoded_photo, file_of):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (59.0, 19.0, 45.67), 29: "1986:GPSMARKER"})
    data = encoded_photo(5, exif=exif)
    assert b"GPSMARKER" in data
    path = file_of(data)
    predict(client, path)
    client.predict(image=handle_file(path), task="binary", class_key=None, api_name="/explain")
    assert not [path for path, content in files_under(cache).items() if b"GPSMARKER" in content]


def test_a_name_with_html_is_text_and_escaped_on_the_page(client, predictors, encoded_photo, file_of):
    name = "<img src=x onerror=alert(1)>.jpg"
    data = encoded_photo(6)
    assert predict(client, file_of(data, name))["file"].endswith("alert(1).jpg")
    page = check_html(read_labels(predictors, decode_image(data, name=name), "binary"), "binary")
    assert "<img" not in page
    assert "&lt;img" in page


def test_many_callers_never_get_each_others_answer(client, predictors, encoded_photo, file_of):
    paths = [file_of(encoded_photo(seed, width=200 + seed), f"lesion{seed}.jpg") for seed in range(10, 42)]
    expected = [record.to_dict() for record in predictors["binary"].predict(paths)]
    photos = [decode_image(path) for path in paths]
    maps = [
        overlay_of(predictors["binary"], photo, grad_sam(predictors["binary"], photo)) for photo in photos
    ]

    def call_both(path):
        answer, _ = client.predict(
            image=handle_file(path), task="binary", class_key=None, api_name="/explain"
        )
        return predict(client, path), np.asarray(Image.open(answer))

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(call_both, paths))
    for (record, overlay), wanted, wanted_map in zip(answers, expected, maps, strict=True):
        assert record["sha256"] == wanted["sha256"]
        assert record["label"] == wanted["label"]
        assert record["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
        assert np.abs(overlay.astype(int) - wanted_map).max() <= 1


def test_many_callers_may_send_the_same_file(client, encoded_photo, file_of):
    path = file_of(encoded_photo(7))
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda _: predict(client, path), range(24)))
    assert {record["status"] for record in records} == {"ok"}


def test_nothing_leaves_this_machine(cache, start_app, watched_network, encoded_photo):
    app, url = start_app()
    try:
        assert httpx.get(url).status_code == 200
        [path] = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.jpg", encoded_photo(8))}).json()
        for api_name in ("predict", "explain", "report"):
            event, _ = call_raw(url, file_record(path), api_name)
            assert event == "complete"
    finally:
        app.close(verbose=False)
    assert watched_network == []


def test_a_defect_is_shown_as_an_id_and_logged_without_its_text(caplog):
    failure = presentable(OSError("/home/somebody/private.jpg"))
    [incident] = re.findall(r"\b[0-9a-f]{8}\b", failure.message)
    assert incident in caplog.text
    assert "private" not in caplog.text


@pytest.fixture
def watched_network(monkeypatch):
    """Hosts outside this machine that anything in the process looks up or connects to; neither is let through."""
    seen = []

    def is_local(host):
        name = host.decode() if isinstance(host, bytes) else host
        if name in (None, "", "localhost"):
            return True
        try:
            return ip_address(name).is_loopback or ip_address(name).is_unspecified
        except ValueError:
            return False

    def guard(function, host_of):
        def guarded(*arguments, **options):
            host = host_of(*arguments)
            if not is_local(host):
                seen.append(host)
                raise OSError("tests have no network")
            return function(*arguments, **options)

        return guarded

    def host_of_address(_, address, *rest):
        return address[0] if isinstance(address, tuple) else None

    monkeypatch.setattr(socket, "getaddrinfo", guard(socket.getaddrinfo, lambda host, *_: host))
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guard(getattr(socket.socket, name), host_of_address))
    return seen
