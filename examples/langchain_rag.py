"""A whole RAG chain in LangChain, offline: BM25, then at2-rag, then a small local model.

python examples/langchain_rag.py
python examples/langchain_rag.py "Which river flows through four national capitals?"
"""

import sys
from typing import Any

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from pydantic import PrivateAttr

from langchain_at2_rag import pruning_runnable
from local_parts import BM25Index, generate, read_passages

QUESTION = "Who worked out nuclear fission together with Otto Frisch?"
PROMPT = PromptTemplate.from_template(
    "Answer the question from the passages.\n\n{context}\n\nQuestion: {query}\nAnswer:"
)


class BM25Retriever(BaseRetriever):
    """Finds the `k` best documents by BM25 over title and text."""

    documents: list[Document]
    k: int = 10
    _index: BM25Index = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        """Index the documents."""
        self._index = BM25Index([as_text(document) for document in self.documents])

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [self.documents[index] for index, _score in self._index.search(query, self.k)]


def as_text(document: Document) -> str:
    """Return the document as the generator sees it."""
    return f"{document.metadata['title']}\n{document.page_content}"


def main() -> None:
    """Answer the question and print the documents that the answer is from."""
    question = " ".join(sys.argv[1:]) or QUESTION
    documents = [
        Document(id=row["id"], page_content=row["text"], metadata={"title": row["title"]})
        for row in read_passages()
    ]
    generator = PROMPT | RunnableLambda(lambda prompt: generate(prompt.to_string()))
    chain = (
        RunnableParallel(query=RunnablePassthrough(), documents=BM25Retriever(documents=documents))
        | RunnablePassthrough.assign(documents=pruning_runnable(top_n=3))
        | RunnablePassthrough.assign(
            context=lambda state: "\n\n".join(map(as_text, state["documents"]))
        )
        | RunnablePassthrough.assign(answer=generator)
    )
    state = chain.invoke(question)

    print(f"Question: {question}\n")
    for document in state["documents"]:
        print(f"{document.metadata['relevance_score']:8.3f}  {document.metadata['title']}")
    print(f"\nAnswer: {state['answer']}")


if __name__ == "__main__":
    main()
