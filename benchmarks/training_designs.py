"""Ways to fit head weights, each judged on sources that were left out.

python benchmarks/training_designs.py FILES... --presets PRESETS --preset balanced
python benchmarks/training_designs.py FILES... --head-weights BEST --collected READ --hold-out 28

With --teacher labels are MiniLM's as well, and with --titles some lists have a title as question.

Weights are fitted in each way without one source (and what shares gold passages with it) at a time.
Figures are nDCG@10 on the questions of the source left out, macro over sources; intervals are
paired, over clusters of questions that share pages. The first takes the training questions of what
scripts/fit-presets wrote of the same FILES; the second the questions that at2-rag calibrate has
read, as they were retrieved, with no key heads but those in use. The shortlist of `best` is that of
all sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from left_out import FITTED, HELD_OUT, FittedWithout, Preset, chosen_fit
from report import FOLDER, POSITIVE, Row, markdown_table
from scipy.optimize import minimize
from title_lists import title_lists

from at2_rag.arrays import Bools, Floats
from at2_rag.data.bootstrap import Estimate, MeanDraws, macro_sample, resample_means
from at2_rag.data.clusters import item_clusters
from at2_rag.data.examples import Example, draw_per_source, linked_sources, read_examples
from at2_rag.model.hub import DEFAULT_MODEL
from at2_rag.model.loading import LoadedModel
from at2_rag.progress import StepProgress
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.readout.head_weights import HeadWeights
from at2_rag.readout.shortlist import Design
from at2_rag.training.calibrating.examples import choose_examples
from at2_rag.training.calibrating.held_out import hold_out
from at2_rag.training.calibrating.samples import SampleReader
from at2_rag.training.fitting.cross_validation import FEWEST_CHUNKS, ndcg_at_10
from at2_rag.training.fitting.fit import fit_few, fit_listwise
from at2_rag.training.fitting.losses import ListwiseData, Standardised
from at2_rag.training.fitting.samples import sum_by_sample
from at2_rag.training.fitting.soft_labels import soft_labels
from at2_rag_evals.rankers.embedding import EmbeddingRanker

BAG = 20  # readouts whose mean is taken
ROUNDS = 8  # of giving the worst source more weight
FEWER = (10, 25, 50)  # questions of each source
TITLES = 28  # of each source that has some
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
@click.option("--presets", type=FOLDER, help="What scripts/fit-presets wrote.")
@click.option("--preset", default="balanced")
@click.option("--head-weights", type=FOLDER, help="Instead, what at2-rag train wrote.")
@click.option("--collected", type=FOLDER, help="With --head-weights: what calibrate has read.")
@click.option("--hold-out", "held_out", type=POSITIVE, help="With --head-weights: as it was read.")
@click.option("--only", multiple=True, help="Only designs whose names start so.")
@click.option("--teacher", "taught", is_flag=True, help="Instead, ways to learn from MiniLM.")
@click.option(
    "--titles",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --teacher: also learn from lists made of titles, which are read into this folder.",
)
@click.option("--model", default=DEFAULT_MODEL, help="Name, folder or hub id.")
@click.option("--dtype", help="Of the model, as it was read.")
def main(
    *,
    files: tuple[str, ...],
    presets: Path | None,
    preset: str,
    head_weights: Path | None,
    collected: Path | None,
    held_out: int | None,
    only: tuple[str, ...],
    taught: bool,
    titles: Path | None,
    model: str,
    dtype: str | None,
) -> None:
    """Compare ways to fit head weights."""
    if (presets is None) == (head_weights is None or collected is None):
        raise click.UsageError("pass --presets, or --head-weights and --collected")
    if titles is not None and (
        not taught or head_weights is None or HeadWeights.load(head_weights).shortlist is not None
    ):
        raise click.UsageError("--titles needs --teacher, and --head-weights without a shortlist")
    examples = read_examples(files)
    loaded = LoadedModel.from_pretrained(model, dtype=dtype)
    torch.set_num_threads(1)
    with StepProgress() as progress:
        if presets is not None:
            readings = _training(Preset.load(presets, preset), loaded, examples, progress)
        else:
            assert head_weights is not None and collected is not None  # checked above
            if held_out is not None:
                examples, _ = hold_out(examples, held_out)
            readings = _calibrated(head_weights, collected, loaded, examples, progress)
        counts = readings.data.counts
        teacher = _teacher(readings.questions, counts, progress) if taught else None
        lists = readings.lists(teacher)
        designs: Mapping[str, Fit]
        if taught:
            by_ridge = partial(_listwise, ridge=readings.ridge)
            designs = {SHIPPED: _shipped(readings), **_taught(by_ridge)}
            if titles is not None:
                assert head_weights is not None  # checked above
                weights, ridge = HeadWeights.load(head_weights), readings.ridge
                of_titles = Preset(titles, weights, ridge, ridge).fitted(
                    loaded, title_lists(read_examples(files), TITLES), progress
                )
                designs |= _titled(of_titles, progress)
        else:
            designs = _designs(readings)
        chosen = [name for name in designs if name == SHIPPED or not only or name.startswith(only)]
        qualities = {}
        for number, name in enumerate(chosen):
            progress("designs", number, len(chosen))
            qualities[name] = _left_out(lists, readings.linked, designs[name])
        progress("designs", len(chosen), len(chosen))
    rows = [
        _figures(lists, name, quality, qualities[SHIPPED]) for name, quality in qualities.items()
    ]
    name = preset if head_weights is None else head_weights.name
    click.echo(markdown_table(f"Designs of {name}, nDCG@10 of sources left out", rows))


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What was read of I questions with N chunks in all, for weights to be fitted to."""

    data: ListwiseData  # with F terms a chunk
    questions: Sequence[Example]  # [I], with the chunks that were read
    linked: npt.NDArray[np.int64]  # [I], equal for sources that share gold passages
    ridge: float
    heads_per_layer: int
    heads_per_key_head: int
    few: int | None  # key heads that get weights, of those that were read; None: all

    def lists(self, teacher: Floats | None) -> Lists:
        """Return what a readout is fitted to, with a teacher's soft labels [N] or none."""
        sources = np.array([question.source for question in self.questions])
        unknown = np.full(len(self.data.features), np.nan)
        clusters = np.array(item_clusters(self.questions))
        return Lists(self.data, sources, clusters, unknown if teacher is None else teacher)

    @property
    def key_heads(self) -> npt.NDArray[np.int64]:
        """The key head of each term, [F]."""
        return np.arange(self.data.features.shape[1]) // self.heads_per_key_head

    @property
    def layers(self) -> npt.NDArray[np.int64]:
        """The layer of each term, [F], counted on from one pass to the next."""
        return np.arange(self.data.features.shape[1]) // self.heads_per_layer


def _training(
    preset: Preset, loaded: LoadedModel, examples: Sequence[Example], progress: StepProgress
) -> Readings:
    """Return what a preset was fitted to."""
    _, rest = hold_out(examples, HELD_OUT)
    fitted = preset.fitted(loaded, draw_per_source(rest, FITTED, seed=0), progress)
    samples, weights, shortlist = fitted.samples, fitted.weights, fitted.weights.shortlist
    if shortlist is None:
        terms = samples.features.matrix(weights.spec, weights.layers)
    else:
        terms = Design.of(shortlist, fitted.features).terms(fitted.features)
    assert samples.labels is not None  # the signal is evidence
    return Readings(
        ListwiseData(terms, samples.labels, samples.counts),
        fitted.questions,
        samples.linked_sources(),
        fitted.ridge,
        weights.heads,
        weights.heads // samples.key_heads,
        len(fitted.heads) if shortlist is None else None,
    )


def _calibrated(
    folder: Path,
    collected: Path,
    loaded: LoadedModel,
    examples: Sequence[Example],
    progress: StepProgress,
) -> Readings:
    """Return what was read of questions to calibrate weights, their lists as retrieved."""
    ridge, _ = chosen_fit(folder)
    weights = HeadWeights.load(folder)
    questions = choose_examples(examples)
    samples = SampleReader(loaded, weights, collected, progress=progress).read(questions)
    retrieved = [sample for sample in samples if sample.is_retrieved]
    features = np.concatenate([sample.features for sample in retrieved])
    if weights.shortlist is not None:
        features = Design.of(weights.shortlist, features).terms(features)
    chosen = [questions.chosen[sample.question] for sample in retrieved]
    of_source = linked_sources(examples)
    key_heads = ScoringModel(loaded.model, loaded.tokenizer, depth=weights.layers).key_heads
    return Readings(
        ListwiseData(
            features,
            np.concatenate([sample.gold for sample in retrieved]),
            np.array([len(sample.gold) for sample in retrieved]),
        ),
        chosen,
        np.array([of_source[question.source] for question in chosen]),
        ridge,
        weights.heads,
        weights.heads // key_heads,
        None,
    )


def _teacher(
    questions: Sequence[Example], counts: npt.NDArray[np.int64], progress: StepProgress
) -> Floats:
    """Return MiniLM's soft labels of all chunks, [N], of which each question has `counts` [I]."""
    ranker, cosines = EmbeddingRanker(batch_size=16), list[float]()
    ranker.prepare()
    for number, question in enumerate(questions):
        progress("MiniLM", number, len(questions))
        cosines += ranker.score(question.query, question.chunks).scores
    sources = np.array([question.source for question in questions])
    return soft_labels(np.array(cosines), counts, sources)


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


def _few(readings: Readings, most: int) -> Fit:
    """Return a fit that gives weights to so many key heads at most."""
    return lambda lists: (
        fit_few(
            lambda part: fit_listwise(
                replace(lists.data, features=lists.data.features[:, part]), ridge=readings.ridge
            ),
            lists.data.features,
            readings.key_heads,
            most,
        ).weight
    )


def _shipped(readings: Readings) -> Fit:
    """Return how the presets are fitted."""
    if readings.few is None:
        return partial(_listwise, ridge=readings.ridge)
    return _few(readings, readings.few)


def _designs(readings: Readings) -> Mapping[str, Fit]:
    """Return the ways to fit by name, the one of the presets first."""
    ridge, few = readings.ridge, readings.few
    listwise = partial(_listwise, ridge=ridge)
    designs: dict[str, Fit] = {SHIPPED: _shipped(readings)}
    if few is not None:
        designs |= {"all key heads": listwise}
        designs |= {f"{most} key heads": _few(readings, most) for most in (few // 2, 2 * few)}
    return {
        **designs,
        "a tenth of the ridge": partial(_listwise, ridge=ridge / 10),
        "ten times the ridge": partial(_listwise, ridge=10 * ridge),
        "pairwise": partial(_free, loss=_pairwise, ridge=ridge),
        "a temperature for each list": partial(_free, loss=_tempered, ridge=ridge),
        "group lasso over key heads, .003": partial(_free, groups=readings.key_heads, ridge=0.003),
        "group lasso over key heads, .01": partial(_free, groups=readings.key_heads, ridge=0.01),
        "a gain for each layer, .003": partial(_free, groups=readings.layers, ridge=0.003),
        "a gain for each layer, .01": partial(_free, groups=readings.layers, ridge=0.01),
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


def _titled(titles: FittedWithout, progress: StepProgress) -> Mapping[str, Fit]:
    """Return ways to fit that add the lists of titles of the sources that are fitted to."""
    samples, features = titles.samples, titles.features
    assert samples.labels is not None  # the signal is evidence
    teacher = _teacher(titles.questions, samples.counts, progress)

    def learn(lists: Lists, *, labels: Floats) -> Floats:
        known = np.repeat(sum_by_sample(labels, samples.counts) > 0, samples.counts)
        rows = known & np.repeat(np.isin(samples.sources, lists.sources), samples.counts)
        counts = sum_by_sample(rows.astype(np.int64), samples.counts)
        both = ListwiseData(
            np.concatenate([lists.data.features, features[rows]]),
            np.concatenate([lists.data.labels.astype(float), labels[rows]]),
            np.concatenate([lists.data.counts, counts[counts > 0]]),
        )
        return fit_listwise(both, ridge=titles.ridge).weight

    return {
        "and titles, gold what has them": partial(learn, labels=samples.labels.astype(float)),
        "and titles, MiniLM": partial(learn, labels=np.nan_to_num(teacher)),
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
