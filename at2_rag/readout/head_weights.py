"""Head weights: the linear readout from a chunk's features to its score.

Standardisation is folded into the weights. On disk they are a folder of two files, see `files`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from at2_rag.errors import (
    AT2Error,
    HeadWeightsError,
    HeadWeightsNotFoundError,
    InputError,
    brief,
)
from at2_rag.options import DEFAULT_AT_LEAST, DEFAULT_MIN_P, PruneOptions
from at2_rag.reading.features import FeatureSpec, Reading
from at2_rag.reading.late import KeyHeads
from at2_rag.readout.calibration import Calibration, weighted
from at2_rag.readout.files import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    Tensors,
    read_folder,
    write_folder,
)
from at2_rag.readout.multi_hop import MultiHop
from at2_rag.readout.sentence_weights import SentenceWeights
from at2_rag.readout.shortlist import Shortlist, used_heads
from at2_rag.text.chunks import Prior

UNIFORM = "uniform"

TargetRule = Literal["question", "answer"]
"""Whose attention the weights are for: the question's tokens', or that of the positions that
predict the answer's tokens (each one token earlier, as in AT2)."""

ScoreScale = Literal["logit", "additive"]
"""What scores are: logits, whose softmax over one call's chunks is each one's estimated share, or
numbers that add up, as shares of attention do and effects whose sum was fitted."""

_PRIORS = ("prior_weight", "cosine_weight")
_SHIPPED = files("at2_rag") / "weights"


@dataclass(frozen=True, slots=True, eq=False)
class HeadWeights:
    """Linear weights over a source's features.

    Attributes:
        weight: [P, L, H] float32, P passes of `spec`, L layers in use, H query heads.
        bias: Added to every score.
        spec: Which features the weights are for.
        fingerprint: Fingerprint of the scoring model they were fitted on, see `fingerprint`;
            None for weights that belong to no model ("uniform").
        template_hash: Hash of the prompt's wording, see `PromptBuilder.template_hash`; None as
            above.
        provenance: For people: model id and revision, data, command, seed, figures.
        target_rule: Whose attention they are for, see `TargetRule`.
        score_scale: What the scores are, see `ScoreScale`.
        calibration: Makes probabilities of the scores; None if they weren't calibrated.
        prior_weight: Weight of the retriever's reciprocal ranks, see `prior_terms`, at least 0;
            None if it wasn't learned.
        cosine_weight: Weight of the retriever's cosines; likewise.
        multi_hop: Weights for reading the question again beside the best chunk; None likewise.
        sentences: Weights that make scores of sentences; None likewise.
        shortlist: Chooses the chunks that are read by more than the first pass, which is late; None
            to read all chunks by all passes.

    Raises:
        HeadWeightsError: If the shape isn't that of the passes, a number isn't finite, a hash is
            no text, a prior's weight is below 0, or the target rule or the score scale is
            unknown.
    """

    weight: npt.NDArray[np.float32]
    bias: float
    spec: FeatureSpec
    fingerprint: str | None = None
    template_hash: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    target_rule: TargetRule = "question"
    score_scale: ScoreScale = "logit"
    calibration: Calibration | None = None
    prior_weight: float | None = None
    cosine_weight: float | None = None
    multi_hop: MultiHop | None = None
    sentences: SentenceWeights | None = None
    shortlist: Shortlist | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", dict(self.provenance))
        for name, alias in (("target_rule", TargetRule), ("score_scale", ScoreScale)):
            known = get_args(alias)
            if (value := getattr(self, name)) not in known:
                raise HeadWeightsError(
                    f"{name} is {brief(value)}; this version of at2_rag reads {' and '.join(known)}"
                )
        for name in ("fingerprint", "template_hash"):
            if not isinstance(value := getattr(self, name), str | None):
                raise HeadWeightsError(
                    f"{name} is {brief(value)}; expected a hash as text, or None for weights that "
                    "belong to no model"
                )
        passes = len(self.spec.passes)
        if self.weight.ndim != 3 or self.weight.shape[0] != passes:
            raise HeadWeightsError(
                f"head weights have the shape {self.weight.shape}; expected [passes, layers, "
                f"heads] with {passes} passes ({', '.join(self.spec.passes)})"
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias)):
            raise HeadWeightsError("head weights hold NaN or infinity; train them again")
        for name in _PRIORS:
            if (number := getattr(self, name)) is not None and not 0 <= number < np.inf:
                raise HeadWeightsError(
                    f"{name} is {brief(number)}; expected a finite number of at least 0"
                )
        self._check_parts()

    def _check_parts(self) -> None:
        """Check that what was calibrated fits the weights."""
        calibration, multi_hop = self.calibration, self.multi_hop
        if self.score_scale == "additive" and (calibration or self.sentences):
            raise HeadWeightsError(
                "the head weights are calibrated, but their score scale is 'additive'; only scores "
                "that are logits can be, as those of weights fitted to evidence labels"
            )
        if calibration and calibration.evidence_weight.shape != self.weight.shape:
            raise HeadWeightsError(
                "the calibration's evidence weights have the shape "
                f"{calibration.evidence_weight.shape}, the head weights {self.weight.shape}; "
                "calibrate these very weights"
            )
        if multi_hop and (
            "together" not in self.spec.passes or multi_hop.weight.shape != self.weight.shape[1:]
        ):
            raise HeadWeightsError(
                f"the multi-hop weights have the shape {multi_hop.weight.shape}, the head "
                f"weights {self.weight.shape}, for the passes {', '.join(self.spec.passes)}; they "
                "belong to weights for the pass 'together' over as many layers and heads"
            )
        if self.shortlist and (
            self.spec.quantity != "log"
            or self.spec.passes[0] != "late"
            or len(self.spec.passes) == 1
            or self.shortlist.weight.shape != self.weight.shape[1:]
        ):
            raise HeadWeightsError(
                f"the shortlist's weights have the shape {self.shortlist.weight.shape}, the head "
                f"weights {self.weight.shape}, for the {self.spec.quantity} of the passes "
                f"{', '.join(self.spec.passes)}; it belongs to weights for the log of 'late' and "
                "other passes, over as many layers and heads"
            )

    @property
    def layers(self) -> int:
        """Layers in use, from the first; the scoring model stops after them."""
        return int(self.weight.shape[1])

    @property
    def heads(self) -> int:
        """Query heads of a layer."""
        return int(self.weight.shape[2])

    @property
    def reading(self) -> Reading:
        """The reading mode the weights are for."""
        return self.spec.reading

    @property
    def prior_weights(self) -> dict[Prior, float]:
        """The learned weight of each kind of prior."""
        learned: dict[Prior, float | None] = {
            "score": self.prior_weight,
            "order": self.prior_weight,
            "cosine": self.cosine_weight,
        }
        return {prior: weight for prior, weight in learned.items() if weight is not None}

    def key_heads(self, count: int) -> KeyHeads:
        """Return the key heads, `count` of a layer, that have a weight in late reading."""
        if "late" not in self.spec.passes:
            return ()
        late = self.spec.passes.index("late")
        weights = [self.weight[late]]
        if self.calibration is not None:
            weights.append(self.calibration.evidence_weight[late])
        if self.shortlist is not None:
            weights.append(self.shortlist.weight)
        return used_heads(weights, count)

    def score(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the scores [S] of sources with features [S, F].

        With a shortlist a source that isn't on it has NaN in all passes but the first.
        """
        scores = weighted(features, self.weight) + self.bias
        if self.shortlist is None:
            return scores
        return np.where(np.isnan(scores), self.shortlist.beside(features), scores)

    def check_options(self, options: PruneOptions) -> None:
        """Check that these weights can do what the options ask for.

        Raises:
            InputError: If an option needs a calibration or weights that these don't have.
        """
        for name in ("min_probability", "min_p", "max_missed", "if_unanswerable"):
            value = getattr(options, name)
            if value not in (None, "flag") and self.calibration is None:
                other = "pass min_score for raw scores" if name == "min_probability" else ""
                raise InputError(
                    f"{name} is {value!r}, but the head weights aren't calibrated; "
                    f"{other or 'leave it out'}, or use weights that `at2-rag calibrate` wrote"
                )
        if options.prior is not None and options.prior not in self.prior_weights:
            learned = "cosine" if options.prior == "cosine" else "score"
            raise InputError(
                f"prior is {options.prior!r}, but the head weights have no weight for it; leave it "
                f"out, or use weights that `at2-rag calibrate --prior {learned}` wrote from "
                "examples whose chunks have a retrieval_score"
            )
        if options.multi_hop and self.multi_hop is None:
            raise InputError(
                "multi_hop is True, but the head weights have no weights for it; leave it out, or "
                "use weights that `at2-rag calibrate --multi-hop` wrote"
            )

    def with_limit(self, options: PruneOptions) -> PruneOptions:
        """Return options that hold a limit: calibrated weights have a default one.

        Raises:
            InputError: If no limit is set and the weights aren't calibrated; as `check_options`.
        """
        self.check_options(options)
        if options.has_limit:
            return options
        if self.calibration is None:
            raise InputError(
                "no limit was given; pass at least one of top_k, max_tokens, min_score, top_p, "
                "or use calibrated head weights"
            )
        least = options.keep_at_least or DEFAULT_AT_LEAST
        return options.override(min_p=DEFAULT_MIN_P, keep_at_least=least)

    def save(self, folder: str | Path) -> None:
        """Write the two files; the folder is created if missing."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "weight": self.weight,
            "bias": np.array([self.bias], dtype=np.float64),
        }
        facts = ("fingerprint", "template_hash", "target_rule", "score_scale", "reading")
        description: dict[str, Any] = {name: getattr(self, name) for name in facts}
        description |= {"quantity": self.spec.quantity, "passes": list(self.spec.passes)}
        description |= {"layers": self.layers, "heads": self.heads}
        description["provenance"] = dict(self.provenance)
        if self.calibration is not None:
            tensors["evidence_weight"] = self.calibration.evidence_weight
            tensors["evidence_bias"] = np.array([self.calibration.evidence_bias], dtype=np.float64)
            description["calibration"] = self.calibration.numbers()
        if self.multi_hop is not None:
            tensors["multi_hop_weight"] = self.multi_hop.weight
            description["multi_hop"] = self.multi_hop.numbers()
        if self.sentences is not None:
            description["sentences"] = self.sentences.numbers()
        if self.shortlist is not None:
            tensors["shortlist_weight"] = self.shortlist.weight
            description["shortlist"] = self.shortlist.numbers()
        for name in _PRIORS:
            if (number := getattr(self, name)) is not None:
                description[name] = number
        write_folder(Path(folder), tensors, description)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> HeadWeights:
        """Read a folder that `save` wrote.

        Raises:
            HeadWeightsNotFoundError: If the folder lacks one of the files.
            HeadWeightsError: If a file is damaged, or of another format version.
        """
        folder = Path(folder)
        tensors, description = read_folder(folder)
        try:
            weights = cls._from_parts(tensors, description)
            stated = (len(weights.spec.passes), description["layers"], description["heads"])
            if weights.weight.shape != stated:
                raise HeadWeightsError(
                    f"{WEIGHTS_FILE} has the shape {weights.weight.shape}, {DESCRIPTION_FILE} "
                    f"states {stated} (passes, layers, heads); restore the files"
                )
        except AT2Error as error:
            raise HeadWeightsError(f"{folder} holds unusable head weights: {error}") from error
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise HeadWeightsError(
                f"{folder} holds unusable head weights ({error!r}); train or calibrate them again"
            ) from error
        return weights

    @classmethod
    def _from_parts(cls, tensors: Tensors, description: Mapping[str, Any]) -> HeadWeights:
        learned: dict[str, Any] = {
            name: float(description[name]) for name in _PRIORS if name in description
        }
        if "calibration" in description:
            learned["calibration"] = Calibration.from_numbers(
                description["calibration"],
                tensors["evidence_weight"].astype(np.float32),
                float(tensors["evidence_bias"][0]),
            )
        if "multi_hop" in description:
            learned["multi_hop"] = MultiHop.from_numbers(
                description["multi_hop"], tensors["multi_hop_weight"].astype(np.float32)
            )
        if "sentences" in description:
            learned["sentences"] = SentenceWeights.from_numbers(description["sentences"])
        if "shortlist" in description:
            learned["shortlist"] = Shortlist.from_numbers(
                description["shortlist"], tensors["shortlist_weight"].astype(np.float32)
            )
        facts = ("fingerprint", "template_hash", "provenance", "target_rule", "score_scale")
        return cls(
            weight=tensors["weight"].astype(np.float32),
            bias=float(tensors["bias"][0]),
            spec=FeatureSpec(description["quantity"], tuple(description["passes"])),
            **{name: description[name] for name in facts},
            **learned,
        )

    @classmethod
    def uniform(
        cls, *, layers: int, heads: int, reading: Reading, target_rule: TargetRule = "question"
    ) -> HeadWeights:
        """Return weights that average the attention mass over all heads of all layers.

        Such scores rank chunks, but they are shares of attention and not logits: `top_p`,
        which takes the softmax over them, means little.
        """
        spec = FeatureSpec("mass", ("joint",) if reading == "joint" else ("together",))
        weight = np.full((1, layers, heads), 1 / (layers * heads), dtype=np.float32)
        return cls(
            weight=weight, bias=0.0, spec=spec, target_rule=target_rule, score_scale="additive"
        )

    @classmethod
    def shipped(cls, name: str) -> HeadWeights:
        """Return weights that come with the package, for the default model.

        Raises:
            HeadWeightsNotFoundError: If there are none of that name; the message lists them.
        """
        known = shipped_names()
        if name not in known:
            raise HeadWeightsNotFoundError(
                f"no head weights named {brief(name)} are shipped; there are {', '.join(known)}, "
                f'or pass a folder as a Path, or head_weights="{UNIFORM}"'
            )
        return cls.load(Path(str(_SHIPPED / name)))

    def describe(self, **facts: Any) -> HeadWeights:
        """Return the same weights with facts added to their provenance."""
        return replace(self, provenance={**self.provenance, **facts})


def shipped_names() -> tuple[str, ...]:
    """Return the names of the weights that come with the package."""
    folders = _SHIPPED.iterdir() if _SHIPPED.is_dir() else ()
    return tuple(sorted(entry.name for entry in folders if entry.is_dir()))
