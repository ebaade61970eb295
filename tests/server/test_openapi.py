"""The committed description of the API is that of the app, and the app is that of the description.

Hypothesis draws bodies from the description's schemas, and from anything that JSON can say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from at2_rag.server.app import describe_api
from tests.server.processes import ServerProcess

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
REQUESTS = int(os.environ.get("AT2_FUZZ_REQUESTS", "60"))
PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/prune", "/v1/attribute", "/v1/index")


def test_the_committed_description_is_the_apps() -> None:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert committed == describe_api(), "run: at2-rag serve --openapi > docs/openapi.json"


def test_every_reference_leads_somewhere() -> None:
    document = describe_api()
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in document["components"]["schemas"]
    assert set(PATHS) < document["paths"].keys()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_TEXTS = st.lists(st.text(max_size=40), max_size=6)


def _bodies() -> st.SearchStrategy[dict[str, Any]]:
    """Return bodies whose keys the description names, with likely and unlikely values."""
    schemas = describe_api()["components"]["schemas"]
    names = sorted({name for schema in schemas.values() for name in schema.get("properties", {})})
    likely = st.fixed_dictionaries(
        {},
        optional={
            "query": st.text(max_size=40),
            "documents": _TEXTS,
            "texts": _TEXTS,
            "chunks": _TEXTS,
            "answer": st.text(max_size=40),
            "top_n": st.integers(-2, 9),
            "top_k": st.integers(-2, 9),
            "unit": st.sampled_from(["chunk", "sentence"]),
            "max_tokens": st.integers(0, 99),
            "relevant_spans": st.fixed_dictionaries({"mode": st.just("enabled")}),
        },
    )
    odd = st.dictionaries(st.sampled_from(names), _JSON, max_size=2)
    return st.builds(lambda one, other: {**one, **other}, likely, odd)


def test_no_body_makes_the_server_fail(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, timeout=120) as client:

        @settings(
            max_examples=REQUESTS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(PATHS), _bodies())
        def post(path: str, body: dict[str, Any]) -> None:
            response = client.post(path, content=json.dumps(body), headers=JSON)
            assert response.status_code < 500 or (path, response.status_code) == (
                "/v1/attribute",
                501,
            ), (path, body, response.text)
            if response.headers["content-type"] == "application/json":
                json.loads(response.text)

        post()


JSON = {"Content-Type": "application/json"}
