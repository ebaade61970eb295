"""Any LangChain chat model (or LLM, or runnable that takes a text)."""

from __future__ import annotations

from typing import Any

from at2_rag_evals.qa.generators.framework_model import FrameworkModel


class LangChainGenerator(FrameworkModel):
    """Asks a LangChain model by `invoke`; arguments as for `FrameworkModel`."""

    framework = "langchain"
    method = "invoke"

    def text_of(self, response: Any) -> str:
        """Return a message's text, its text blocks joined, or the string that an LLM returns."""
        content = getattr(response, "content", response)
        if isinstance(content, list):
            blocks = [
                block if isinstance(block, str) else block.get("text", "") for block in content
            ]
            return "".join(blocks)
        if not isinstance(content, str):
            raise TypeError(f"the answer is a {type(content).__name__}; expected a message")
        return content
