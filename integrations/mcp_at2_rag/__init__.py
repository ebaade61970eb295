"""An MCP server that prunes context, ranks passages and cites answers: `at2-rag mcp`.

>>> from mcp_at2_rag import make_server
"""

from __future__ import annotations

try:
    from mcp_at2_rag.server import make_server
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "mcp":
        raise
    raise ImportError(
        'mcp_at2_rag needs mcp, which isn\'t installed; run: pip install "at2-rag[mcp]"'
    ) from error

__all__ = ["make_server"]
