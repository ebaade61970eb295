"""An MCP server that prunes context, ranks passages and cites answers: `at2-rag mcp`.

>>> from mcp_at2_rag import make_server
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_at2_rag.server import make_server

__all__ = ["make_server"]


def __getattr__(name: str) -> Any:
    """Import the server, and with it mcp, on first use."""
    if name != "make_server":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mcp_at2_rag.server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mcp":
            raise
        raise ImportError(
            'mcp_at2_rag needs mcp, which isn\'t installed; run: pip install "at2-rag[mcp]"'
        ) from error
    return make_server


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
