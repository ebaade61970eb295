"""Which items depend on each other, for honest intervals.

Items that ask about the same passage or page are no independent observations; a bootstrap has to
draw them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from at2_rag.data.examples import Example, linked_groups, passage_keys

PAGE_SHARE = 10


def item_clusters(items: Sequence[Example]) -> list[int]:
    """Return the cluster number of each item.

    Two items of a source are linked, and with them all that either is linked to, if they

    - share a gold passage,
    - have the same set of chunks, or
    - share the title of a gold passage, where titles name pages. A title that is gold in more
      than a tenth of the source's items (and in more than ten) does not link: it names a kind of
      passage ("Table"), or an article so broad that a handful of clusters would remain, over
      which no bootstrap is of use.
    """
    totals = Counter(item.source for item in items)
    titled = Counter(key for item in items for key in _title_keys(item))
    links: list[set[Hashable]] = []
    for item in items:
        most = max(PAGE_SHARE, totals[item.source] / PAGE_SHARE)
        keys: set[Hashable] = {key for key in _title_keys(item) if titled[key] <= most}
        keys |= {(item.source, "passage", text) for text in passage_keys(item.gold)}
        keys.add((item.source, "chunks", passage_keys(item.chunks)))
        links.append(keys)
    return linked_groups(links)


def clusters_by_id(items: Sequence[Example]) -> dict[tuple[str, str], int]:
    """Return the cluster number of each item by its source and id."""
    keys = [(item.source, item.id) for item in items]
    return dict(zip(keys, item_clusters(items), strict=True))


def _title_keys(item: Example) -> set[tuple[str, str, str]]:
    titles = {" ".join((chunk.title or "").casefold().split()) for chunk in item.gold}
    return {(item.source, "title", title) for title in titles if title}
