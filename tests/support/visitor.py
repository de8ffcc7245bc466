"""A visitor of the page, for the tests that drive a browser."""

from urllib.parse import urlsplit

UPLOAD = "#photo input[type=file]"
HEATMAP = "#photo .dd-heat"
DONE = "#status :text('Done.')"


class Visit:
    """One open page and what went wrong in it."""

    def __init__(self, page, url):
        self.page = page
        self.errors = []
        self.foreign = []
        page.set_default_timeout(180_000)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note_request)
        page.goto(url)
        page.wait_for_selector(UPLOAD, state="attached")

    def _note_console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _note_request(self, request):
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.foreign.append(request.url)

    def upload(self, path):
        self.page.set_input_files(UPLOAD, path)

    def read(self, path):
        self.upload(path)
        self.page.wait_for_selector(DONE)
        return self.heatmap()

    def heatmap(self):
        """Address of the heatmap, once it is really there."""
        self.page.wait_for_function(
            "() => { const image = document.querySelector('#photo .dd-heat');"
            " return image && image.complete && image.naturalWidth > 0 }"
        )
        return self.page.get_attribute(HEATMAP, "src")

    def heatmap_after(self, before):
        """Address of the heatmap that replaces another one."""
        self.page.wait_for_function(
            "before => { const image = document.querySelector('#photo .dd-heat');"
            " return image && image.getAttribute('src') !== before && image.complete && image.naturalWidth > 0 }",
            arg=before,
        )
        return self.page.get_attribute(HEATMAP, "src")

    def bytes_of(self, address):
        return self.page.request.get(address).body()
