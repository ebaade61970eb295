"""Clusters of items about the same passage or page, which a bootstrap has to draw together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from at2_rag.data.examples import Example, linked_groups, passage_keys

PAGE_SHARE = 10


def item_clusters(items: Sequence[Example]) -> list[int]:
    """Return the cluster number of each item.

    Two items of a source belong to one cluster, directly or through others, if they share a gold
    passage, the title of one, or all of their chunks. A title that is gold in more than a tenth of
    the source's items (and in more than ten) doesn't count: it names a kind of passage ("Table"),
    or an article so broad that too few clusters would be left for a bootstrap.
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
