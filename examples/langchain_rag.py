"""A whole RAG chain in LangChain, offline: BM25, then at2-rag, then a small local model.

python examples/langchain_rag.py
python examples/langchain_rag.py "Which river flows through four national capitals?"
"""

import sys

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

from langchain_at2_rag import AT2DocumentCompressor
from local_parts import BM25Index, generate, read_passages

QUESTION = "Who worked out nuclear fission together with Otto Frisch?"
PROMPT = PromptTemplate.from_template(
    "Answer the question from the passages.\n\n{context}\n\nQuestion: {query}\nAnswer:"
)


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
    index = BM25Index(list(map(as_text, documents)))

    def search(query: str) -> list[Document]:
        return [documents[number] for number, _ in index.search(query, 10)]

    generator = PROMPT | RunnableLambda(lambda prompt: generate(prompt.to_string()))
    chain = (
        RunnableParallel(query=RunnablePassthrough(), documents=RunnableLambda(search))
        | RunnablePassthrough.assign(documents=AT2DocumentCompressor(top_n=3))
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
