"""Samples that head weights are fitted to: features, labels, what ablations or a teacher say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from at2_rag.arrays import Bools, Floats
from at2_rag.data.examples import linked_groups
from at2_rag.errors import InputError
from at2_rag.reading.features import FeatureSpec
from at2_rag.readout.shortlist import Design, Shortlist
from at2_rag.training.answering.ablation import Ablations, contributions, drops
from at2_rag.training.collection.collection import Row
from at2_rag.training.collection.features import Features

Judge: TypeAlias = Literal["gold", "ablation", "teacher"]

LEAST_CONTRIBUTION = 1.0  # nats that a chunk adds to count as relevant without labels


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """What ablations do in I samples, of N chunks in all."""

    masks: tuple[Bools, ...]  # of each sample [M, S], True for kept chunks
    likelihoods: tuple[Floats, ...]  # of each sample [M], its answer's logit-probability
    drops: Floats  # [N], nats a token that each chunk's absence costs the answer
    contributions: Floats  # [N], nats that each chunk adds to the likelihood of question or answer

    @classmethod
    def of(cls, rows: Sequence[Row], *, contributions_to: Literal["question", "answer"]) -> Effects:
        """Compute effects from rows of an `AblationCollection`."""
        logits = "query_logits" if contributions_to == "question" else "token_logits"
        ablations = [Ablations(row["masks"], row["token_logits"]) for row in rows]
        return cls(
            tuple(row["masks"] for row in rows),
            tuple(one.logit_probabilities for one in ablations),
            np.concatenate([drops(one) for one in ablations]),
            np.concatenate([contributions(row["masks"], row[logits]) for row in rows]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples, ready to fit and to split: N chunks of I samples."""

    features: Features
    sources: tuple[str, ...]
    groups: tuple[int, ...]  # folds keep a group together
    left_out: Mapping[str, int]  # examples that gave no sample, by reason
    labels: Bools | None = None  # [N], gold or not; None without labels or not to use them
    doubtful: Bools | None = None  # [N], whose label is a guess, neither fitted to nor judged
    effects: Effects | None = None  # None where nothing was ablated
    teacher: Floats | None = None  # [N], see `soft_labels`; None without a teacher
    shortlist: Shortlist | None = None  # that the features were read with
    key_heads: int = 1  # of a layer

    def matrix(self, spec: FeatureSpec, depth: int) -> npt.NDArray[np.float32]:
        """Return what a readout is fitted to, [N, F]; with a shortlist [N, F + 2].

        The latter are the terms of a `Design`.
        """
        features = self.features.matrix(spec, depth)
        if self.shortlist is None:
            return features
        return Design.of(self.shortlist, features).terms(features)

    def linked_sources(self) -> npt.NDArray[np.int64]:
        """Return a number for each sample's source, [I], see `link_sources`."""
        return link_sources(self.sources, self.groups)

    def limit(self, depth: int, most: int | None) -> tuple[npt.NDArray[np.int64], int] | None:
        """Return the key head of each late feature, [L x H], and how many may have weights."""
        if most is None:
            return None
        heads = self.features.log.shape[3]
        return np.arange(depth * heads) // (heads // self.key_heads), most

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Chunks of each sample, [I]."""
        return self.features.counts

    @property
    def judged_by(self) -> Judge:
        """What says which chunks are relevant."""
        if self.labels is not None:
            return "gold"
        return "teacher" if self.effects is None else "ablation"

    @property
    def relevant(self) -> Bools:
        """Whether each chunk is gold, [N].

        Without labels: whether it adds `LEAST_CONTRIBUTION`, or without ablations either, whether
        the teacher ranks it first.
        """
        if self.labels is not None:
            return self.labels
        if self.effects is not None:
            return self.effects.contributions >= LEAST_CONTRIBUTION
        assert self.teacher is not None  # one of the three is known
        shares = np.nan_to_num(self.teacher)
        best = np.maximum.reduceat(shares, np.cumsum(self.counts) - self.counts)
        relevant: Bools = (shares > 0) & (shares == np.repeat(best, self.counts))
        return relevant

    @property
    def certain(self) -> Bools:
        """Whether it is known of each chunk if it is relevant, [N]."""
        if self.judged_by == "teacher":
            return self.scored
        if self.labels is None or self.doubtful is None:
            return np.ones(int(self.counts.sum()), dtype=bool)
        return ~self.doubtful

    @property
    def scored(self) -> Bools:
        """Whether each chunk has a share of its list's relevance by the teacher, [N]."""
        if self.teacher is None:
            return np.zeros(int(self.counts.sum()), dtype=bool)
        return ~np.isnan(self.teacher)


def link_sources(sources: Sequence[str], groups: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return a number for the source of each of I samples, the same where sources share groups.

    Raises:
        InputError: If that leaves one number alone.
    """
    keys = zip(sources, groups, strict=True)
    linked = np.array(linked_groups([[source, group] for source, group in keys]))
    if not linked.any():
        raise InputError(
            f"the sources {', '.join(sorted(set(sources)))} can't be left out in turn: there is "
            "one, or all share gold passages; pass more sources, or leave out --leave-out-sources"
        )
    return linked


def sum_by_sample(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the sum of each sample's values, [N] -> [I]."""
    return np.add.reduceat(values, np.cumsum(counts) - counts)
