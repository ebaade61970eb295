"""A retriever that prunes what another one returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.load.serializable import Serializable
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, Field, model_validator

from at2_rag.adapters import OnResult, PrunerNames, RetrieverSettings
from at2_rag.errors import InputError
from at2_rag.options import SharedOverrides
from langchain_at2_rag.compressor import AT2DocumentCompressor
from langchain_at2_rag.configurable import Configurable

if TYPE_CHECKING:
    from at2_rag.pruner import AT2Pruner


MMR_FETCH_K = 20
"""How many documents LangChain's vector stores choose among by default."""


class RetrieverKeywords(SharedOverrides, PrunerNames, total=False):
    """The settings of `AT2Retriever` but the first ones, for type checkers."""

    k: int | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    title_key: str | None
    score_key: str
    metadata_prefix: str
    on_result: OnResult | None


class AT2Retriever(Configurable, RetrieverSettings, BaseRetriever):
    """Retrieves with another retriever, and keeps the documents relevant to the query.

        retriever = AT2Retriever(base=store.as_retriever(), fetch_k=30, k=4)

    Settings are those of `AT2DocumentCompressor`, with `k` for `top_n`, and a call overrides them:
    `retriever.invoke(query, k=2)`. Where LangChain can't write `base`, as it can't a vector store's
    retriever, it has to be passed again when settings are read.

    Attributes:
        base: The retriever.
        fetch_k: How many documents to ask it for; None for as many as it returns by itself.
        k: Keep at most this many documents (or sentences); None for no such limit.
        score_key: As in `AT2DocumentCompressor`, like all other settings.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    base: BaseRetriever
    fetch_k: int | None = Field(default=None, ge=1)
    score_key: str = "score"

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            base: BaseRetriever,
            fetch_k: int | None = None,
            pruner: AT2Pruner | None = None,
            **settings: Unpack[RetrieverKeywords],
        ) -> None: ...

    @model_validator(mode="after")
    def _check_base(self) -> Self:
        if self.fetch_k is not None:
            _fetching(self.base, self.fetch_k)
        return self

    def _unwritable(self) -> list[str]:
        is_written = isinstance(self.base, Serializable) and self.base.is_lc_serializable()
        return [] if is_written else ["base"]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **settings: Any
    ) -> list[Document]:
        retriever = self.with_settings(**settings)
        callbacks = run_manager.get_child()
        documents = retriever._base().invoke(query, {"callbacks": callbacks})
        return retriever._compressor().compress_documents(documents, query, callbacks)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **settings: Any
    ) -> list[Document]:
        retriever = self.with_settings(**settings)
        callbacks = run_manager.get_child()
        documents = await retriever._base().ainvoke(query, {"callbacks": callbacks})
        return await retriever._compressor().acompress_documents(documents, query, callbacks)

    def _base(self) -> BaseRetriever:
        return self.base if self.fetch_k is None else _fetching(self.base, self.fetch_k)

    def _compressor(self) -> AT2DocumentCompressor:
        settings = self.set_fields()
        if "k" in settings:
            settings["top_n"] = settings.pop("k")
        names = AT2DocumentCompressor.model_fields.keys() - BaseRetriever.model_fields.keys()
        return AT2DocumentCompressor(
            **{name: value for name, value in settings.items() if name in names}
        )


def _fetching(base: BaseRetriever, k: int) -> BaseRetriever:
    """Return a copy of a retriever that returns `k` documents; `InputError` if there is no way."""
    if isinstance(base, VectorStoreRetriever):
        kwargs = {**base.search_kwargs, "k": k}
        if base.search_type == "mmr":  # which chooses among what it fetches
            kwargs["fetch_k"] = max(k, kwargs.get("fetch_k", MMR_FETCH_K))
        return base.model_copy(update={"search_kwargs": kwargs})
    if "k" in type(base).model_fields:
        return base.model_copy(update={"k": k})
    raise InputError(
        f"fetch_k is {k}, but a {type(base).__name__} has no k to set; say there "
        "how many documents it is to return, and leave out fetch_k"
    )
