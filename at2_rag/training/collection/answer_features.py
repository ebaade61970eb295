"""Collects features of answers: what ablated answers attend to, read as `AT2Attributor` does.

They go with collected ablations: the same samples, and the answers that were ablated, each read
once more after its joint prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from at2_rag.data.examples import Example
from at2_rag.errors import PromptTooLongError
from at2_rag.reading.answer_pass import read_answer
from at2_rag.reading.scoring_model import ScoringModel
from at2_rag.training.collection.ablations import AblationCollection
from at2_rag.training.collection.collection import TOO_LONG, Collection, Row, split_evenly
from at2_rag.training.collection.features import feature_arrays

ANSWERS_FOLDER = "answers"
"""Where they are kept, within the folder of the ablations."""

SHARD_SAMPLES = 25
"""Samples of a shard."""


class AnswerFeatureCollection(Collection):
    """Features of ablated answers; a row has `log_mass` and `log_ratio`, [S, 1, L, H] float16.

    Samples whose prompt and answer exceed the model's window are left out.

    Args:
        model: The scoring model, cut to the deepest layer wanted.
        examples: What was ablated.
        ablations: Of which samples.
        ablated: What `ablations` collected; none to check the folder only.
    """

    remedy = "pass examples with fewer or shorter chunks"

    def __init__(
        self,
        model: ScoringModel,
        examples: Sequence[Example],
        ablations: AblationCollection,
        ablated: Mapping[int, Row],
    ) -> None:
        self._model, self._examples = model, examples
        self._samples, self._ablated = ablations.samples, ablated
        settings = {"depth": model.depth, "ablations": ablations.identity}
        shards = split_evenly(list(ablated), SHARD_SAMPLES)
        super().__init__(ablations.folder / ANSWERS_FOLDER, settings, shards)

    def read(self, item: int) -> Row | str:
        """Read one answer."""
        answer = self._ablated[item]["answer"].tobytes().decode()
        query, chunks = self._examples[item].query, self._samples[item].chunks
        try:
            layout = self._model.prompts.conversation(query, chunks, answer)
        except PromptTooLongError:
            return TOO_LONG
        whole = (0, len(layout.answer_ids))
        [attention] = read_answer(self._model, layout, [whole], layout.prompt.source_spans)
        return feature_arrays({"joint": attention}, ("joint",))
