"""Any LlamaIndex LLM."""

from __future__ import annotations

from typing import Any

from at2_rag_evals.qa.generators.framework_model import FrameworkModel


class LlamaIndexGenerator(FrameworkModel):
    """Asks a LlamaIndex LLM by `complete`; arguments as for `FrameworkModel`."""

    framework = "llama_index"
    method = "complete"

    def text_of(self, response: Any) -> str:
        """Return a completion's text."""
        if not isinstance(response.text, str):
            raise TypeError(f"the answer is a {type(response.text).__name__}; expected a string")
        return response.text
