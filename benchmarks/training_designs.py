"""Ways to fit head weights, each judged on sources that were left out.

python benchmarks/training_designs.py FILES... --presets FOLDER --preset balanced

FOLDER is what scripts/fit-presets wrote of the same FILES. Its training features are fitted to in
each way, without one source (and what shares gold passages with it) at a time. Figures are nDCG@10
on the training questions of the source left out, macro over sources; intervals are paired, over
clusters of questions that share pages. The shortlist of `best` is that of all sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from left_out import FITTED, HELD_OUT, FittedWithout, Preset
from report import FOLDER, Row, markdown_table
from scipy.optimize import minimize

from at2_rag.arrays import Bools, Floats
from at2_rag.data.bootstrap import Estimate, MeanDraws, macro_sample, resample_means
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import draw_per_source, read_examples
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.readout.shortlist import Design
from at2_rag.training.calibrating.held_out import hold_out
from at2_rag.training.fitting.cross_validation import FEWEST_CHUNKS, ndcg_at_10
from at2_rag.training.fitting.fit import fit_few, fit_listwise
from at2_rag.training.fitting.losses import ListwiseData, Standardised
from at2_rag.training.fitting.samples import sum_by_sample
from at2_rag.training.fitting.soft_labels import soft_labels
from at2_rag_evals.rankers.embedding import EmbeddingRanker

BAG = 20  # readouts whose mean is taken
ROUNDS = 8  # of giving the worst source more weight
FEWER = (10, 25, 50)  # questions of each source
SHIPPED = "as shipped"
SMOOTH = 1e-6  # makes the norm of a group differentiable at zero

Fit = Callable[["Lists"], Floats]
"""Returns the weights [F] that are fitted to lists."""


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Lists that a readout is fitted to or judged on."""

    data: ListwiseData
    sources: npt.NDArray[np.str_]  # [I]
    clusters: npt.NDArray[np.int64]  # [I], equal where questions share pages
    teacher: Floats  # [N], each chunk's share of its list by MiniLM; NaN where not embedded

    def take(self, chosen: Bools) -> Lists:
        """Return the lists where the mask [I] holds."""
        rows = np.repeat(chosen, self.data.counts)
        return Lists(
            self.data.take(chosen), self.sources[chosen], self.clusters[chosen], self.teacher[rows]
        )


@click.command("training_designs", context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--presets", required=True, type=FOLDER, help="What scripts/fit-presets wrote.")
@click.option("--preset", default="balanced")
@click.option("--only", multiple=True, help="Only designs whose names start so.")
@click.option("--teacher", "taught", is_flag=True, help="Instead, ways to learn from MiniLM.")
@click.option("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
@click.option("--dtype", help="Of the model, as it was read.")
def main(
    *,
    files: tuple[str, ...],
    presets: Path,
    preset: str,
    only: tuple[str, ...],
    taught: bool,
    model: str,
    dtype: str | None,
) -> None:
    """Compare ways to fit head weights."""
    _, rest = hold_out(read_examples(files), HELD_OUT)
    training = draw_per_source(rest, FITTED, seed=0)
    loaded = LoadedModel.from_pretrained(model, dtype=dtype)
    torch.set_num_threads(1)
    with StepProgress() as progress:
        fitted = Preset.load(presets, preset).fitted(loaded, training, progress)
        teacher = _teacher(fitted, progress) if taught else None
        lists, linked = _lists(fitted, teacher), fitted.samples.linked_sources()
        designs = _designs(fitted, lists.data.features.shape[1])
        if taught:
            designs = {SHIPPED: designs[SHIPPED], **_taught(partial(_listwise, ridge=fitted.ridge))}
        chosen = [name for name in designs if name == SHIPPED or not only or name.startswith(only)]
        qualities = {}
        for number, name in enumerate(chosen):
            progress("designs", number, len(chosen))
            qualities[name] = _left_out(lists, linked, designs[name])
        progress("designs", len(chosen), len(chosen))
    rows = [
        _figures(lists, name, quality, qualities[SHIPPED]) for name, quality in qualities.items()
    ]
    click.echo(markdown_table(f"Designs of {preset}, nDCG@10 of sources left out", rows))


def _teacher(fitted: FittedWithout, progress: StepProgress) -> Floats:
    """Return MiniLM's soft labels of all chunks, [N]."""
    ranker, cosines = EmbeddingRanker(batch_size=16), list[float]()
    ranker.prepare()
    for number, question in enumerate(fitted.questions):
        progress("MiniLM", number, len(fitted.questions))
        cosines += ranker.score(question.query, question.chunks).scores
    return soft_labels(np.array(cosines), fitted.samples.counts, np.array(fitted.samples.sources))


def _lists(fitted: FittedWithout, teacher: Floats | None) -> Lists:
    """Return the training questions with what a readout is fitted to."""
    samples, weights, shortlist = fitted.samples, fitted.weights, fitted.weights.shortlist
    if shortlist is None:
        terms = samples.features.matrix(weights.spec, weights.layers)
    else:
        terms = Design.of(shortlist, fitted.features).terms(fitted.features)
    assert samples.labels is not None  # the signal is evidence
    data = ListwiseData(terms, samples.labels, samples.counts)
    teacher = np.full(len(terms), np.nan) if teacher is None else teacher
    return Lists(
        data, np.array(samples.sources), np.array(item_clusters(fitted.questions)), teacher
    )


def _left_out(lists: Lists, linked: npt.NDArray[np.int64], fit: Fit) -> Floats:
    """Return the nDCG@10 of each list, [I], by weights fitted without its source."""
    scores = np.zeros(len(lists.data.features))
    for group in np.unique(linked):
        rows = np.repeat(linked == group, lists.data.counts)
        scores[rows] = lists.data.features[rows] @ fit(lists.take(linked != group))
    return ndcg_at_10(scores, lists.data.labels, lists.data.counts)


def _figures(lists: Lists, name: str, quality: Floats, shipped: Floats) -> Row:
    judged = lists.data.counts >= FEWEST_CHUNKS
    values = np.stack([quality, shipped], axis=1)
    rng, drawn = np.random.default_rng(0), dict[str, MeanDraws]()
    for source in np.unique(lists.sources[judged]).tolist():
        rows = judged & (lists.sources == source)
        drawn[source] = resample_means(values[rows], lists.clusters[rows].tolist(), rng=rng)
    macro = macro_sample(list(drawn.values()))
    change = macro.estimate(0, minus=1)
    changes = {source: float(one.means[0] - one.means[1]) for source, one in drawn.items()}
    least, most = min(changes, key=changes.__getitem__), max(changes, key=changes.__getitem__)
    return {
        "design": name,
        "macro": float(macro.means[0]),
        "less as shipped": f"{change.mean:+.4f}" + _limits(change),
        "worst source": f"{changes[least]:+.3f} {least}",
        "best source": f"{changes[most]:+.3f} {most}",
    }


def _limits(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def _designs(fitted: FittedWithout, columns: int) -> Mapping[str, Fit]:
    """Return the ways to fit by name, the one of the presets first."""
    samples, weights, ridge = fitted.samples, fitted.weights, fitted.ridge
    key_head = np.arange(columns) // (weights.heads // samples.key_heads)
    layer = np.arange(columns) // weights.heads
    listwise = partial(_listwise, ridge=ridge)

    def few(most: int) -> Fit:
        return lambda lists: (
            fit_few(
                lambda part: fit_listwise(
                    replace(lists.data, features=lists.data.features[:, part]), ridge=ridge
                ),
                lists.data.features,
                key_head,
                most,
            ).weight
        )

    designs: dict[str, Fit] = {SHIPPED: listwise}
    if weights.shortlist is None:
        shipped = len(fitted.heads)
        designs = {SHIPPED: few(shipped), "all key heads": listwise}
        designs |= {f"{most} key heads": few(most) for most in (shipped // 2, 2 * shipped)}
    return {
        **designs,
        "a tenth of the ridge": partial(_listwise, ridge=ridge / 10),
        "ten times the ridge": partial(_listwise, ridge=10 * ridge),
        "pairwise": partial(_free, loss=_pairwise, ridge=ridge),
        "a temperature for each list": partial(_free, loss=_tempered, ridge=ridge),
        "group lasso over key heads, .003": partial(_free, groups=key_head, ridge=0.003),
        "group lasso over key heads, .01": partial(_free, groups=key_head, ridge=0.01),
        "a gain for each layer, .003": partial(_free, groups=layer, ridge=0.003),
        "a gain for each layer, .01": partial(_free, groups=layer, ridge=0.01),
        "every source the same": lambda lists: _free(lists, shares=_evenly(lists), ridge=ridge),
        "the worst source counts more": partial(_worst_counts_more, ridge=ridge),
        f"a bag of {BAG}, half of the sources each": partial(_bag, fit=listwise),
        **{f"{n} questions of each source": partial(_fewer, n=n, fit=listwise) for n in FEWER},
    }


def _taught(fit: Fit) -> Mapping[str, Fit]:
    """Return ways to fit to gold labels of all sources or of half, and to a teacher's shares."""

    def learn(lists: Lists, *, labelled: Bools, share: float) -> Floats:
        """Fit to gold where `labelled` [I], else to the teacher, both where it has a share."""
        data, taught = lists.data, np.nan_to_num(lists.teacher)
        gold = data.labels / np.repeat(
            sum_by_sample(data.labels.astype(float), data.counts), data.counts
        )
        rows = np.repeat(labelled, data.counts)
        labels = np.where(rows, (1 - share) * gold + share * taught, taught)
        known = sum_by_sample(labels, data.counts) > 0
        return fit(replace(lists, data=replace(data, labels=labels)).take(known))

    def half(lists: Lists) -> Bools:
        return np.isin(lists.sources, np.unique(lists.sources)[::2])

    def everywhere(lists: Lists) -> Bools:
        return np.ones(len(lists.sources), dtype=bool)

    return {
        "gold .7, MiniLM .3": lambda lists: learn(lists, labelled=everywhere(lists), share=0.3),
        "gold .9, MiniLM .1": lambda lists: learn(lists, labelled=everywhere(lists), share=0.1),
        "MiniLM alone": lambda lists: learn(lists, labelled=~everywhere(lists), share=0.0),
        "gold of half of the sources": lambda lists: fit(lists.take(half(lists))),
        "gold of half of the sources, MiniLM of the others": lambda lists: learn(
            lists, labelled=half(lists), share=0.0
        ),
        "the same, MiniLM .3 everywhere": lambda lists: learn(
            lists, labelled=half(lists), share=0.3
        ),
    }


def _listwise(lists: Lists, *, ridge: float) -> Floats:
    return fit_listwise(lists.data, ridge=ridge).weight


def _bag(lists: Lists, *, fit: Fit) -> Floats:
    """Return the mean of weights that were each fitted to half of the sources."""
    rng, names = np.random.default_rng(0), np.unique(lists.sources)
    halves = [rng.permutation(names)[: (len(names) + 1) // 2] for _ in range(BAG)]
    weights = [fit(lists.take(np.isin(lists.sources, half))) for half in halves]
    mean: Floats = np.mean(weights, axis=0)
    return mean


def _fewer(lists: Lists, *, n: int, fit: Fit) -> Floats:
    """Return weights that are fitted to `n` lists of each source at most."""
    rng, chosen = np.random.default_rng(0), np.zeros(len(lists.sources), dtype=bool)
    for name in np.unique(lists.sources):
        chosen[rng.permutation(np.flatnonzero(lists.sources == name))[:n]] = True
    return fit(lists.take(chosen))


def _evenly(lists: Lists) -> Floats:
    """Return shares of the lists, [I], that sum to the same in every source, in all to one."""
    _, inverse, counts = np.unique(lists.sources, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[inverse] / len(counts))


def _worst_counts_more(lists: Lists, *, ridge: float) -> Floats:
    """Return weights where sources of a large loss count more.

    Group DRO (Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", 2020) in
    rounds: each multiplies a source's weight by the exponential of its loss.
    """
    shares = _evenly(lists)
    weight = np.zeros(0)
    for _ in range(ROUNDS):
        weight = _free(lists, shares=shares, ridge=ridge)
        losses = _listwise_losses(torch.from_numpy(lists.data.features @ weight), _Parts.of(lists))
        for name in np.unique(lists.sources):
            rows = lists.sources == name
            shares[rows] *= np.exp(float(losses.numpy()[rows].mean()))
        shares /= shares.sum()
    return weight


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What losses are made of, over N chunks of I lists."""

    list_of: torch.Tensor  # [N], the number of each chunk's list
    share: torch.Tensor  # [N], an even share of its list's gold, 0 for other chunks
    count: int  # I

    @classmethod
    def of(cls, lists: Lists) -> _Parts:
        counts, labels = lists.data.counts, lists.data.labels.astype(float)
        list_of = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        gold = np.repeat(sum_by_sample(labels, counts), counts)
        return cls(list_of, torch.from_numpy(labels / gold), len(counts))

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return each list's sum, [N] -> [I]."""
        return values.new_zeros(self.count).index_add(0, self.list_of, values)

    def log_total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of each list's sum of exponentials, [N] -> [I]."""
        top = values.new_full((self.count,), -torch.inf)
        top = top.scatter_reduce(0, self.list_of, values.detach(), "amax")
        return top + self.total((values - top[self.list_of]).exp()).log()


def _listwise_losses(scores: torch.Tensor, parts: _Parts) -> torch.Tensor:
    return parts.log_total(scores) - parts.total(parts.share * scores)


def _tempered(scores: torch.Tensor, parts: _Parts, logs: torch.Tensor) -> torch.Tensor:
    """Return the listwise loss with a factor for each list's scores, `logs` [I] its logarithm."""
    return _listwise_losses(scores * logs.exp()[parts.list_of], parts) + 0.5 * logs**2


def _pairwise(scores: torch.Tensor, parts: _Parts, _: torch.Tensor) -> torch.Tensor:
    """Return each list's mean logistic loss over pairs of a gold chunk and another.

    RankNet (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005).
    """
    losses = []
    start = 0
    for count in torch.bincount(parts.list_of).tolist():
        of_list, gold = scores[start : start + count], parts.share[start : start + count] > 0
        pairs = of_list[~gold][:, None] - of_list[gold]
        losses.append(torch.nn.functional.softplus(pairs).mean())
        start += count
    return torch.stack(losses)


def _plain(scores: torch.Tensor, parts: _Parts, _: torch.Tensor) -> torch.Tensor:
    return _listwise_losses(scores, parts)


def _free(
    lists: Lists,
    *,
    ridge: float,
    loss: Callable[[torch.Tensor, _Parts, torch.Tensor], torch.Tensor] = _plain,
    groups: npt.NDArray[np.int64] | None = None,
    shares: Floats | None = None,
) -> Floats:
    """Return weights [F] that minimise a loss of scores and free numbers [I], by autograd.

    With `groups` [F] the penalty is `ridge` times the sum of the norms of the groups' weights,
    times the roots of their sizes (Yuan and Lin, "Model selection and estimation in regression with
    grouped variables", 2006), otherwise half of the squared norm. A sum of norms is what free gains
    of the groups with a ridge on gains and weights come to. `shares` [I] are what each list counts,
    None for all the same.
    """
    standard, parts = Standardised(lists.data.features), _Parts.of(lists)
    part = torch.from_numpy(shares if shares is not None else np.ones(parts.count) / parts.count)
    size = len(standard.mean)

    def objective(vector: Floats) -> tuple[float, Floats]:
        free = torch.from_numpy(vector).requires_grad_()
        weight, logs = free[:size], free[size:]
        scores = (standard.matrix @ weight.float()).double()
        value = (part * loss(scores, parts, logs)).sum()
        if groups is None:
            value = value + ridge / 2 * (weight**2).sum()
        else:
            squares = weight.new_zeros(int(groups.max()) + 1)
            squares = squares.index_add(0, torch.from_numpy(groups), weight**2)
            roots = torch.from_numpy(np.sqrt(np.bincount(groups)))
            value = value + ridge * (roots * (squares + SMOOTH).sqrt()).sum()
        [slope] = torch.autograd.grad(value, free)
        return float(value.detach()), slope.numpy()

    numbers = parts.count if loss is _tempered else 0
    options = {"maxiter": 500, "ftol": 1e-7}
    start = np.zeros(size + numbers)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return np.asarray(found[:size] / standard.scale)


if __name__ == "__main__":
    main()
