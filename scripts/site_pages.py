"""Makes pages of the docs site of files that lie elsewhere, with their links seen from docs/.

A hook of mkdocs. Such a page is one line, `--8<-- "CHANGELOG.md"`, a path from the project's root.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_PAGE = re.compile(r'\s*--8<-- "(.+)"\s*')
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page's text, of such a page that of the file."""
    match = _PAGE.fullmatch(markdown)
    if match is None:
        return markdown
    folder = posixpath.dirname(match[1])

    def seen_from_docs(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        return f"]({posixpath.relpath(target, 'docs')}"

    return _LINK.sub(seen_from_docs, Path(match[1]).read_text(encoding="utf-8"))
