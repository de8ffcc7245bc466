"""A web server on loopback that misbehaves on demand, for tests of downloads."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` (name to bytes), and notes the headers of every request in `requests`.

    `cut_after` is how many bytes each of the next answers holds before the connection breaks; `statuses` are
    answered first, one a request.
    """

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.etags = {}
        self.cut_after = []
        self.statuses = []
        self.ranges = True
        self.validators = True
        self.ignores_if_range = False
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def etag(self, name):
        return self.etags.get(name, f'"{hash(self.files[name]):x}"')


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        server.requests.append((name, dict(self.headers)))
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if name not in server.files:
            self.send_error(404)
            return
        content, start = server.files[name], 0
        asked = self.headers.get("Range")
        unchanged = server.ignores_if_range or self.headers.get("If-Range") == server.etag(name)
        if asked and server.ranges and unchanged:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        if server.validators:
            self.send_header("ETag", server.etag(name))
        self.end_headers()
        length = server.cut_after.pop(0) if server.cut_after else len(content)
        self.wfile.write(content[start : start + length])

    def log_message(self, *_):
        pass


@contextmanager
def serving(files):
    """Runs a `FileServer` for as long as the block lasts."""
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
