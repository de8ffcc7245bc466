"""Calls of endpoints as a hostile program makes them."""

import json

import httpx

SERVER_FILE = "/etc/passwd"


def file_record(path):
    return {"path": path, "orig_name": "lesion.jpg", "meta": {"_type": "gradio.FileData"}}


def call_raw(app_url, image, api_name="predict"):
    """Calls an endpoint as a program without our client would, and returns its last event."""
    base = f"{app_url}/gradio_api/call/{api_name}"
    rest = {"predict": [None, 0], "explain": [None, "grad-cam"], "report": [None, None, None, False]}
    data = [image, "binary", *rest.get(api_name, [])]
    event = httpx.post(base, json={"data": data}).json()["event_id"]
    lines = httpx.get(f"{base}/{event}", timeout=60).text.strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))
