"""From examples to head weights: the fit, the choice of a design, what is refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from at2_rag import AT2Pruner
from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.model.fingerprint import model_fingerprint
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Quantity, Reading
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.text.chunks import Chunk
from at2_rag.training.collection.features import collect
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.trainer import Training, train
from at2_rag.training.fitting.validation import RIDGES, feature_matrix, source_weights
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.features_by_hand import features_by_hand
from tests.training.planted_examples import planted_examples

DEPTH = 3
LOG_RATIO = FeatureSpec("log_ratio", ("together", "apart"))
MASS = FeatureSpec("mass", ("apart",))


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    return ScoringModel(tiny_model(), tiny_tokenizer(), depth=DEPTH)


@pytest.fixture(scope="module")
def fingerprint() -> str:
    return model_fingerprint(tiny_model().base_model, tiny_tokenizer())


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of collected features, so that each reading is collected once."""
    return {reading: tmp_path_factory.mktemp(reading) for reading in PASSES}


def run(model: ScoringModel, folder: Path, fingerprint: str = "f", **options: Any) -> Training:
    examples = options.pop("examples", None) or planted_examples()
    return train(model, examples, folder, fingerprint=fingerprint, **{"folds": 4, **options})


def quality(training: Training) -> list[float]:
    return [result.ndcg for result in training.results]


# --- what is fitted --------------------------------------------------------------------------


@pytest.mark.parametrize("reading", sorted(PASSES))
def test_a_pruner_scores_with_the_weights_features_times_weights(
    model: ScoringModel, fingerprint: str, features: dict[str, Path], reading: Reading
) -> None:
    training = run(model, features[reading], fingerprint, reading=reading)
    weights = training.weights
    assert weights.reading == reading
    pruner = AT2Pruner(LoadedModel(tiny_model(), tiny_tokenizer()), head_weights=weights)
    query, chunks = "who wrote of the owl?", [Chunk("a bridge"), Chunk("Austen, of a mill " * 3)]
    found = [scored.score for scored in pruner.score(query, chunks)]
    matrix = features_by_hand(tiny_model(), query, chunks, weights.spec)[:, :, : weights.layers]
    expected = (matrix * weights.weight).sum((1, 2, 3)) + weights.bias
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    assert found[1] > found[0]


def test_the_weights_are_fitted_on_all_samples_in_the_chosen_design(
    model: ScoringModel, fingerprint: str, features: dict[str, Path]
) -> None:
    training = run(model, features["independent"], fingerprint)
    design, weights = training.chosen.candidate, training.weights
    collected = collect(
        model,
        planted_examples(),
        features["independent"],
        reading="independent",
        fingerprint=fingerprint,
        seed=0,
    )
    sources = [planted_examples()[index].source for index in collected.examples]
    data = ListwiseData(
        feature_matrix(collected, design.spec, design.depth),
        collected.labels,
        collected.counts,
        source_weights(sources),
    )
    fit = fit_listwise(data, ridge=design.ridge)
    assert weights.spec == design.spec
    assert weights.weight.shape == (len(design.spec.passes), design.depth, model.heads)
    assert weights.weight.ravel() == pytest.approx(fit.weight, rel=1e-5)
    assert weights.bias == pytest.approx(fit.bias)
    assert (weights.fingerprint, weights.template_hash) == (
        fingerprint,
        model.prompts.template_hash,
    )
    assert training.samples == {"novels": 8, "seas": 8}


def test_what_is_planted_is_found_out_of_fold(
    model: ScoringModel, fingerprint: str, features: dict[str, Path]
) -> None:
    training = run(model, features["independent"], fingerprint)
    assert training.chosen.ndcg > 0.9
    assert set(training.chosen.by_source) == {"novels", "seas"}
    mean = sum(training.chosen.by_source.values()) / 2
    assert training.chosen.ndcg == pytest.approx(mean)


def test_the_curve_ends_where_the_chosen_design_stands(
    model: ScoringModel, fingerprint: str, features: dict[str, Path]
) -> None:
    training = run(model, features["independent"], fingerprint)
    assert training.curve[-1].share == 1
    assert training.curve[-1].figures == {"ndcg_at_10": training.chosen.ndcg}
    sizes = [point.samples for point in training.curve]
    assert sizes == sorted(set(sizes)) and sizes[-1] == 12  # three of four folds
    assert training.left_out == {}


def test_importance_is_the_spread_that_a_head_gives_the_scores(
    model: ScoringModel, fingerprint: str, features: dict[str, Path]
) -> None:
    training = run(model, features["independent"], fingerprint)
    collected = collect(
        model,
        planted_examples(),
        features["independent"],
        reading="independent",
        fingerprint=fingerprint,
        seed=0,
    )
    weights = training.weights
    rows = feature_matrix(collected, weights.spec, weights.layers)
    products = rows * weights.weight.ravel()
    assert training.importance.shape == weights.weight.shape
    assert training.importance.ravel() == pytest.approx(products.std(axis=0), rel=1e-4, abs=1e-6)


# --- which design ----------------------------------------------------------------------------


def test_every_design_is_tried_and_the_best_is_chosen(
    model: ScoringModel, fingerprint: str, features: dict[str, Path]
) -> None:
    steps: list[tuple[str, int, int]] = []
    training = run(
        model,
        features["independent"],
        fingerprint,
        depths=[2, DEPTH, 1, 2],
        progress=lambda *step: steps.append(step),
    )
    tried = [result.candidate for result in training.results]
    assert {(design.spec, design.ridge) for design in tried[:27]} == {
        (FeatureSpec(quantity, passes), ridge)
        for quantity in get_args(Quantity)
        for passes in (("together",), ("apart",), ("together", "apart"))
        for ridge in RIDGES
    }
    assert {design.depth for design in tried[:27]} == {DEPTH}
    best = tried[quality(training).index(max(quality(training)[:27]))]
    assert [(d.spec, d.ridge, d.depth) for d in tried[27:]] == [
        (best.spec, best.ridge, depth) for depth in (2, 1)
    ]
    assert training.chosen.ndcg == max(quality(training))
    assert any(result is training.chosen for result in training.results)
    assert [step for step in steps if step[0] == "reading"][-1] == ("reading", 16, 16)
    assert [step[1:] for step in steps if step[0] == "cross-validation"] == [
        (done, 29) for done in range(30)
    ]
    assert list(dict.fromkeys(name for name, _, _ in steps)) == [
        "reading",
        "cross-validation",
        "learning curve",
        "fit",
    ]


@pytest.mark.parametrize("specs", [[LOG_RATIO, MASS], [MASS, LOG_RATIO]])
def test_only_the_features_given_are_tried(
    model: ScoringModel, fingerprint: str, features: dict[str, Path], specs: list[FeatureSpec]
) -> None:
    training = run(model, features["independent"], fingerprint, specs=specs)
    designs = [result.candidate for result in training.results]
    assert [(d.spec, d.ridge) for d in designs] == [(s, r) for s in specs for r in RIDGES]
    assert training.chosen.ndcg == max(quality(training))
    assert training.weights.spec == training.chosen.candidate.spec


def test_a_smaller_depth_that_ranks_better_is_chosen(model: ScoringModel, tmp_path: Path) -> None:
    examples = [
        Example(one.id, one.source, one.query, one.chunks, (True, *[False] * 4))
        for one in planted_examples()
    ]  # gold or not is chance, so that any depth may come out best
    chosen = set()
    for folds in range(2, 9):
        options: dict[str, Any] = {"specs": [MASS], "depths": [1, 2, DEPTH], "folds": folds}
        training = run(model, tmp_path, examples=examples, **options)
        assert training.chosen.ndcg == max(quality(training))
        assert training.weights.layers == training.chosen.candidate.depth
        chosen.add(training.chosen.candidate.depth)
    assert min(chosen) < DEPTH


def test_the_same_arguments_give_the_same_weights(
    model: ScoringModel, fingerprint: str, features: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"specs": [LOG_RATIO], "depths": [2]}
    known = run(model, features["independent"], fingerprint, **options)
    fresh = run(model, tmp_path, fingerprint, workers=2, **options)
    assert quality(known) == pytest.approx(quality(fresh))
    assert known.chosen.candidate == fresh.chosen.candidate
    assert np.allclose(known.weights.weight, fresh.weights.weight, rtol=1e-2, atol=1e-3)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [2, 4]}, "depth is 4; pass 1 to 3, the depth collected"),
        ({"depths": [0]}, "depth is 0"),
        (
            {"specs": [LOG_RATIO, FeatureSpec("log_mass", ("joint",))]},
            "of reading 'joint', to be fitted for is 'independent'; .* together, apart",
        ),
        (
            {"specs": [FeatureSpec("log_mass", ("apart",))], "reading": "joint"},
            "of reading 'independent', to be fitted for is 'joint'",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_read(
    model: ScoringModel, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(model, tmp_path / "features", **options)
    assert not (tmp_path / "features").exists()


def test_fewer_groups_than_folds_are_refused(model: ScoringModel, tmp_path: Path) -> None:
    first, *others = planted_examples(["novels"], 6)
    shared = [
        Example(
            other.id,
            other.source,
            other.query,
            (first.gold[0], *(c for c in other.chunks if c not in other.gold)),
            (True, *[False] * 4),
            other.answers,
        )
        for other in others[:4]
    ]
    with pytest.raises(InputError, match="has 2 groups .* cross-validation needs 4; pass more"):
        run(model, tmp_path, examples=[first, *shared, others[4]])


def test_examples_without_gold_are_refused(model: ScoringModel, tmp_path: Path) -> None:
    plain = [
        Example(one.id, one.source, one.query, one.chunks, (False,) * 5)
        for one in planted_examples()
    ]
    with pytest.raises(InputError, match="none of the 16 examples has both gold and other"):
        run(model, tmp_path, examples=plain)


def test_a_source_of_short_lists_is_fitted_on_and_named_once(
    model: ScoringModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examples = [*planted_examples(["novels"]), *pairs("short", 4)]
    with caplog.at_level(logging.WARNING, logger="at2_rag"):
        training = run(model, tmp_path, examples=examples, specs=[MASS], depths=[1, 2])
    [message] = [record.getMessage() for record in caplog.records]
    assert "leaves out 'short' (4 samples)" in message
    assert set(training.chosen.by_source) == {"novels"}
    assert training.samples == {"novels": 8, "short": 4}


@pytest.mark.parametrize("reading", sorted(PASSES))
def test_what_is_left_out_is_counted_by_reason(
    model: ScoringModel, tmp_path: Path, reading: Reading
) -> None:
    good = planted_examples(["novels"], 8)
    long = [dataclasses.replace(good[0], id="long", query="river " * 3000)]
    blind = [dataclasses.replace(good[i], id="b", labels=(False,) * 5) for i in (0, 1)]
    spec = FeatureSpec("mass", PASSES[reading])
    examples = [*good, *long, *blind]
    training = run(model, tmp_path, examples=examples, specs=[spec], reading=reading)
    assert training.samples == {"novels": 8}
    assert training.left_out == {
        "longer than the model's window": 1,
        "without both gold and other chunks": 2,
    }


def test_short_lists_alone_are_refused(model: ScoringModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 6 samples has 4 chunks or more"):
        run(model, tmp_path, examples=pairs("short", 6), specs=[MASS])


def pairs(source: str, count: int) -> list[Example]:
    """Examples of two chunks, in a source that has no further distractors for them."""
    return [
        Example(
            one.id,
            source,
            one.query,
            (one.gold[0], Chunk("the sea")),
            (True, False),
            one.answers,
        )
        for one in planted_examples([source], count)
    ]
