"""Calls of endpoints as a hostile program makes them."""

import json

import httpx

SERVER_FILE = "/etc/passwd"


def file_record(path):
    return {"path": path, "orig_name": "lesion.jpg", "meta": {"_type": "gradio.FileData"}}


NOT_UPLOADS = {
    "a path of the server": file_record(SERVER_FILE),
    "a path that climbs out": file_record("../../../../../../etc/passwd"),
    "a path without metadata": {"path": SERVER_FILE},
    "a path with the address of another file": {"path": SERVER_FILE, "url": "https://example.com/a.jpg"},
    "a path of the kernel": file_record("/proc/self/environ"),
    "a device without end": file_record("/dev/zero"),
    "a folder": file_record("/"),
    "a data URL as a path": file_record("data:image/png;base64,iVBORw0KGgo="),
    "a data URL": {"url": "data:image/png;base64,iVBORw0KGgo=", "meta": {"_type": "gradio.FileData"}},
    "a web address as a path": file_record("http://example.com/lesion.jpg"),
    "a web address as a path, encrypted": file_record("https://example.com/lesion.jpg"),
    "a web address": {"url": "https://example.com/lesion.jpg", "meta": {"_type": "gradio.FileData"}},
    "a path with a NUL byte": file_record("a\0b"),
    "a text in place of a record": SERVER_FILE,
    "nothing": None,
}
"""What a hostile program names in place of an upload."""


def call_raw(app_url, image, api_name="predict"):
    """Calls an endpoint as a program without our client would, and returns its last event."""
    base = f"{app_url}/gradio_api/call/{api_name}"
    rest = {"predict": [None, 0], "explain": [None, "grad-cam"], "report": [None, None, None, False]}
    data = [image, "binary", *rest.get(api_name, [])]
    event = httpx.post(base, json={"data": data}).json()["event_id"]
    lines = httpx.get(f"{base}/{event}", timeout=60).text.strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))
