"""A whole query engine in LlamaIndex, offline: BM25, then at2-rag, then a small local model.

python examples/llama_index_rag.py
python examples/llama_index_rag.py "Who worked out nuclear fission together with Otto Frisch?"
"""

import sys
from typing import Any

from llama_index.core import PromptTemplate
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from llama_index_at2_rag import AT2NodePostprocessor
from local_parts import BM25Index, generate, read_passages

QUESTION = "Which river flows through four national capitals?"
PROMPT = PromptTemplate(
    "Answer the question from the passages.\n\n{context_str}\n\nQuestion: {query_str}\nAnswer:"
)


class BM25Retriever(BaseRetriever):
    """Finds the `k` best nodes by BM25 over title and text."""

    def __init__(self, nodes: list[TextNode], k: int = 10) -> None:
        super().__init__()
        self._nodes, self._k = nodes, k
        self._index = BM25Index([node.get_content(MetadataMode.EMBED) for node in nodes])

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        results = self._index.search(query_bundle.query_str, self._k)
        return [NodeWithScore(node=self._nodes[index], score=score) for index, score in results]


class LocalLLM(CustomLLM):
    """The small local model as an LLM of LlamaIndex."""

    @property
    def metadata(self) -> LLMMetadata:
        """Sizes by which LlamaIndex fills the prompt."""
        return LLMMetadata(context_window=8192, num_output=48)

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Return the model's answer."""
        return CompletionResponse(text=generate(prompt))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **_: Any
    ) -> CompletionResponseGen:
        """Return the model's answer, in one piece."""
        yield self.complete(prompt)


def main() -> None:
    """Answer the question and print the nodes that the answer is from."""
    question = " ".join(sys.argv[1:]) or QUESTION
    nodes = [
        TextNode(id_=row["id"], text=row["text"], metadata={"title": row["title"]})
        for row in read_passages()
    ]
    engine = RetrieverQueryEngine.from_args(
        BM25Retriever(nodes),
        llm=LocalLLM(),
        node_postprocessors=[AT2NodePostprocessor(top_n=3)],
        text_qa_template=PROMPT,
    )
    response = engine.query(question)

    print(f"Question: {question}\n")
    for kept in response.source_nodes:
        print(f"{kept.score:8.3f}  {kept.node.metadata['title']}")
    print(f"\nAnswer: {response}")


if __name__ == "__main__":
    main()
