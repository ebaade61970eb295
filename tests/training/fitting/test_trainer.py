"""From examples to head weights: the fit, the choice of a design, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from at2_rag.data.examples import Example
from at2_rag.errors import InputError
from at2_rag.model.loading import LoadedModel
from at2_rag.reading.features import PASSES, FeatureSpec, Quantity, Reading
from at2_rag.training.collection.ablations import AblationPlan
from at2_rag.training.fitting import samples as samples_module
from at2_rag.training.fitting.fit import fit_listwise
from at2_rag.training.fitting.losses import ListwiseData
from at2_rag.training.fitting.objectives import OBJECTIVES, Signal
from at2_rag.training.fitting.trainer import RIDGES, Training, train
from at2_rag.training.fitting.training_data import TrainingData, TrainingPlan
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.training.planted_examples import planted_examples, taught_examples
from tests.training.small_examples import make_examples

LOADED = LoadedModel(tiny_model(), tiny_tokenizer())
DEPTH = 3
LOG = FeatureSpec("log", ("together", "apart"))
MASS = FeatureSpec("mass", ("apart",))
ABLATIONS = AblationPlan(masks=6, answer_tokens=4)


@pytest.fixture(autouse=True)
def small_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model hardly heeds its chunks."""
    monkeypatch.setattr(samples_module, "LEAST_CONTRIBUTION", 1e-3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders for what is read of `planted_examples`, so that each reading is read once."""
    return {name: tmp_path_factory.mktemp(name) for name in (*PASSES, "ablation", "teacher")}


def data(folder: Path, examples: Sequence[Example] = (), **plan: Any) -> TrainingData:
    """Return data of `planted_examples`, or of others."""
    examples = examples or planted_examples()
    plan = {"folds": 4, "ablations": ABLATIONS, **plan}
    return TrainingData(LOADED, examples, folder, TrainingPlan(**plan))


def run(*arguments: Any, **plan: Any) -> Training:
    return train(data(*arguments, **plan), workers=2)


@pytest.mark.parametrize("reading", sorted(PASSES))
def test_the_weights_are_fitted_on_all_samples_in_the_chosen_design(
    folders: dict[str, Path], reading: Reading
) -> None:
    training = run(folders[reading], reading=reading)
    design, weights = training.chosen.candidate, training.weights
    assert weights.reading == reading and training.chosen.ndcg > 0.9
    samples = data(folders[reading], reading=reading).gather()
    matrix = samples.features.matrix(design.spec, design.depth)
    assert samples.labels is not None
    listwise = ListwiseData(matrix, samples.labels, samples.counts)
    fit = fit_listwise(listwise, ridge=design.ridge)
    assert weights.spec == design.spec
    assert weights.weight.shape == (len(design.spec.passes), design.depth, 4)
    assert np.array_equal(weights.weight.ravel(), fit.weight.astype(np.float32))
    assert weights.bias == fit.bias and weights.fingerprint == LOADED.fingerprint
    assert training.samples == {"novels": 8, "seas": 8} and training.left_out == {}
    products = matrix * weights.weight.ravel()
    assert training.importance.shape == weights.weight.shape
    assert training.importance.ravel() == pytest.approx(products.std(axis=0), rel=1e-4, abs=1e-6)


def test_the_labels_of_added_chunks_that_hold_the_answer_are_doubtful(
    folders: dict[str, Path],
) -> None:
    both = data(folders["ablation"], signal="both").gather()
    assert both.doubtful is not None and both.labels is not None
    assert both.doubtful.any() and not both.labels[both.doubtful].any()
    plain = data(folders["ablation"], signal="ablation").gather()
    assert plain.labels is None and plain.doubtful is None


@pytest.mark.parametrize("signal", get_args(Signal))
def test_every_design_is_tried_and_the_best_is_chosen(
    folders: dict[str, Path], signal: Signal
) -> None:
    folder = folders[{"evidence": "independent", "teacher": "teacher"}.get(signal, "ablation")]
    steps: list[tuple[str, int, int]] = []
    specs = () if signal == "evidence" else (LOG, MASS)
    examples = taught_examples() if signal == "teacher" else ()
    plan = data(folder, examples, signal=signal, specs=specs, depths=(2, DEPTH, 1, 2))
    training = train(plan, progress=lambda *step: steps.append(step))
    tried = [result.candidate for result in training.results]
    every = {
        FeatureSpec(quantity, passes)
        for quantity in get_args(Quantity)
        for passes in (("late",), ("together", "apart"), ("late", "together", "apart"))
    }
    expected = {
        (spec, objective, ridge)
        for spec in specs or every
        for objective in OBJECTIVES[signal]
        for ridge in RIDGES
    }
    assert len(tried) == len(expected) + 2
    assert {(one.spec, one.objective, one.ridge) for one in tried[:-2]} == expected
    assert {one.depth for one in tried[:-2]} == {DEPTH}
    best = max(training.results[:-2], key=lambda result: result.ndcg).candidate
    assert tried[-2:] == [dataclasses.replace(best, depth=depth) for depth in (2, 1)]
    assert training.chosen.ndcg == max(result.ndcg for result in training.results)
    chosen = training.chosen.candidate
    assert (training.weights.spec, training.weights.layers) == (chosen.spec, chosen.depth)
    stages = list(dict.fromkeys(name for name, _, _ in steps))
    assert stages == ["reading", "cross-validation", "fit"]
    assert ("cross-validation", len(tried), len(tried)) in steps


def test_one_objective_alone_and_the_same_again_from_the_same_readings(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"signal": "ablation", "specs": (LOG,), "folds": 3}
    examples = make_examples("ab", each=6)
    first, second = (run(tmp_path, examples, objectives=("pearson",), **plan) for _ in "12")
    assert {result.candidate.objective for result in first.results} == {"pearson"}
    assert first.weights.score_scale == "additive"
    assert np.array_equal(first.weights.weight, second.weights.weight)
    assert first.results == second.results


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"depths": (2, 4)}, "depth is 4; pass 1 to 3, the depth collected"),
        (
            {"specs": (LOG, FeatureSpec("log", ("joint",)))},
            "of reading 'joint', to be fitted for is 'independent'; .* together, apart",
        ),
        ({"signal": "ablation", "objectives": ("mixed",)}, "no objective 'mixed'; pass contrib"),
        ({"objectives": ("drops",)}, "'evidence' has no objective 'drops'; pass evidence"),
        ({"signal": "both", "reading": "joint"}, "pass the reading 'independent' instead of"),
        ({"target": "answer"}, "the target 'answer' is learned from ablated answers"),
        ({"signal": "ablation", "folds": 50}, "has 16 examples, cross-validation needs 50"),
        ({"folds": 17}, "has 16 groups of examples that share gold passages, .* needs 17"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_read(
    tmp_path: Path, plan: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        data(tmp_path / "new", **plan).check()
    assert not (tmp_path / "new").exists()


def test_a_single_source_can_not_be_left_out_which_is_known_before_reading(
    tmp_path: Path,
) -> None:
    examples = planted_examples(["novels"], 6)
    with pytest.raises(InputError, match="sources novels can't be left out .* leave out --leave"):
        run(tmp_path / "new", examples, leave_out_sources=True)
    assert not (tmp_path / "new").exists()


def test_fewer_groups_than_folds_are_refused(tmp_path: Path) -> None:
    first, *others, last = planted_examples(["novels"], 6)
    shared = [
        dataclasses.replace(other, chunks=first.chunks, labels=first.labels) for other in others
    ]
    with pytest.raises(InputError, match="has 2 groups .* cross-validation needs 4; pass more"):
        run(tmp_path, [first, *shared, last])
