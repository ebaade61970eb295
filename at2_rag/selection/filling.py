"""Fills a context up to a number of tokens, counting all of it as seldom as it can."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Sequence

from at2_rag.text.tokens import TokenCounter
from at2_rag.text.units import UnitSpan

TextsOf = Callable[[Sequence[int]], Sequence[str]]


class ContextTokens:
    """Counts the tokens of contexts, and about how many more they have with one more unit.

    Args:
        count: Counts the tokens of a text.
        separator: Text between two chunks.
        texts_of: Returns, for the indices of some units, what is kept of each of their chunks with
            these, in the order in which the chunks are named.
        units: Where each unit is, by its index; None if each is a chunk. May grow meanwhile.
    """

    def __init__(
        self,
        count: TokenCounter,
        separator: str,
        texts_of: TextsOf,
        units: Sequence[UnitSpan] | None = None,
    ) -> None:
        self._count, self._separator, self._texts_of = count, separator, texts_of
        self._units = units
        self._costs: dict[tuple[int, ...], int] = {(): 0}
        self._around = count(f"a{separator}a")
        self.empty = 2 * count("a") - self._around
        """What the costs of a context's chunks add up to is less than its tokens by this number."""

    def unit(self, index: int) -> UnitSpan:
        """Return the chunk of a unit, and where in its text it is."""
        return (index, 0, 0) if self._units is None else self._units[index]

    def of(self, indices: Sequence[int]) -> int:
        """Return the tokens of the context of these units."""
        return self._count(self._separator.join(self._texts_of(indices)))

    def growth(self, near: Sequence[int], index: int) -> int:
        """Return about how many more tokens a context has with a unit more.

        Exact where a token depends on few characters around it, as those of all common tokenizers.

        Args:
            near: The last unit before it, and the first after it, that the context has of its
                chunk.
            index: The unit.
        """
        with_it = sorted([*near, index], key=self.unit)
        return self._cost(tuple(with_it)) - self._cost(tuple(near))

    def _cost(self, indices: tuple[int, ...]) -> int:
        """Return what units of one chunk add to the tokens of a context that has none of it."""
        if indices not in self._costs:
            [text] = self._texts_of(indices)
            between = f"a{self._separator}{text}{self._separator}a"
            self._costs[indices] = self._count(between) - self._around
        return self._costs[indices]


class Filling:
    """A context that units are added to as long as they fit.

    The tokens of a context are added up from its parts. Wherever that sum may decide wrongly, if it
    is off by one token for each unit that was added, the whole context is counted.

    Args:
        tokens: Counts.
        listing: All units in the order in which a context has them. May grow meanwhile.
        max_tokens: Tokens that the context may have.
        held: Units that it has from the start.
    """

    def __init__(
        self, tokens: ContextTokens, listing: Sequence[int], max_tokens: int, held: Sequence[int]
    ) -> None:
        self._tokens, self._listing, self._most = tokens, listing, max_tokens
        self.kept = list(held)
        self._members: dict[int, list[int]] = {}
        for index in held:
            self._add_member(index)
        self._used = tokens.empty
        self._counted = 0  # how many of those kept were counted
        self._sure = len(held)  # how many of them stay
        if held:
            self._count()

    def tokens_with(self, *indices: int) -> int:
        """Return the tokens of the context with some units more."""
        kept = {*self.kept, *indices}
        return self._tokens.of([index for index in self._listing if index in kept])

    def add(self, index: int, *, exact: bool = False) -> bool:
        """Add a unit if it fits, and tell whether it did; `exact` counts the whole context."""
        growth = self._tokens.growth(self._near(index), index)
        doubt = len(self.kept) - self._counted
        if doubt and abs(self._used + growth - self._most) <= doubt:
            self._count()
        tokens = self._used + growth
        exact = exact or tokens == self._most
        if exact:
            tokens = self.tokens_with(index)
        if tokens > self._most:
            return False
        self.kept.append(index)
        self._add_member(index)
        self._used = tokens
        if exact:
            self._counted = self._sure = len(self.kept)
        return True

    def finish(self) -> list[int]:
        """Return the units that the context has, those at the end left out if it has too many."""
        if len(self.kept) > self._sure and self.tokens_with() > self._most:
            added = self.kept[self._sure :]
            del self.kept[self._sure :]
            fits = bisect(
                range(1, len(added) + 1), self._most, key=lambda n: self.tokens_with(*added[:n])
            )
            self.kept += added[:fits]
        return self.kept

    def _count(self) -> None:
        self._used, self._counted = self.tokens_with(), len(self.kept)
        if self._used <= self._most:
            self._sure = self._counted

    def _members_of(self, index: int) -> list[int]:
        return self._members.setdefault(self._tokens.unit(index)[0], [])

    def _add_member(self, index: int) -> None:
        insort(self._members_of(index), index, key=self._tokens.unit)

    def _near(self, index: int) -> list[int]:
        members = self._members_of(index)
        after = bisect(members, self._tokens.unit(index), key=self._tokens.unit)
        return members[max(0, after - 1) : after + 1]
