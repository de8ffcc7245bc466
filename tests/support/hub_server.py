"""A stand-in for the Hugging Face Hub on loopback: takes one commit to a repository and gives its files back."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_stand_in"
SMALL = 100_000
"""Larger files are uploaded by themselves (LFS), as on the Hub."""


class HubServer(ThreadingHTTPServer):
    """`files` of all repositories by `ORG/NAME/path`, `objects` by SHA-256, and `created` repositories."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.objects, self.created = {}, {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository, lines):
        for line in map(json.loads, lines):
            value = line["value"]
            if line["key"] == "file":
                self.files[f"{repository}/{value['path']}"] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[f"{repository}/{value['path']}"] = self.objects[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created.append(asked)
            self._answer({"url": f"{self.server.url}/{asked['organization']}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > SMALL else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/objects/batch"):
            objects = [
                item | {"actions": {"upload": {"href": f"{self.server.url}/upload/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            repository = "/".join(self.path.split("/")[3:5])
            self.server.commit(repository, body.decode().splitlines())
            self._answer(
                {"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self._answer({"error": "not found"}, 404)

    def do_PUT(self):
        body = self._body()
        assert hashlib.sha256(body).hexdigest() == self.path.split("/")[-1]
        self.server.objects[self.path.split("/")[-1]] = body
        self._answer({})

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository = "/".join(parts[2:4])
            names = [name for name in self.server.files if name.startswith(f"{repository}/")]
            siblings = [{"rfilename": name.removeprefix(f"{repository}/")} for name in names]
            if not names:
                self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            elif "tree" in parts:
                self._answer([self._entry(name, name.removeprefix(f"{repository}/")) for name in names])
            else:
                self._answer({"id": repository, "sha": COMMIT, "siblings": siblings})
            return
        content = self.server.files.get("/".join((*parts[:2], *parts[4:])))
        if content is None:
            self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(content, 200, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def do_HEAD(self):
        self.do_GET()

    def _entry(self, name, path):
        content = self.server.files[name]
        digest = hashlib.sha256(content).hexdigest()
        lfs = (
            {"lfs": {"oid": digest, "size": len(content), "pointerSize": 134}} if len(content) > SMALL else {}
        )
        return {"type": "file", "path": path, "size": len(content), "oid": digest[:40], **lfs}

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content, status=200, headers=None):
        self._send(
            json.dumps(content).encode(), status, {"Content-Type": "application/json"} | (headers or {})
        )

    def _send(self, content, status, headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def hub_stand_in():
    """Runs a `HubServer` for as long as the block lasts."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
