"""Links of the documents to files outside this folder, which the site does not hold."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)\s#]*)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """MkDocs calls this for every page.

    Where `repo_url` is set, such a link leads there; else its words stay.
    """

    def resolve(link: re.Match[str]) -> str:
        words, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        if path.startswith("docs/"):
            return link[0]
        return f"[{words}]({config.repo_url}/blob/main/{path}{anchor or ''})" if config.repo_url else words

    return _LINK.sub(resolve, markdown)
