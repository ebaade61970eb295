"""The committed description of the API is that of the app, and the app is that of the description.

Hypothesis draws requests for every path from the description's schemas, some with values that they
don't allow, and some that aren't JSON. `AT2_FUZZ_REQUESTS=5000` tries so many, from the seed
`AT2_FUZZ_SEED` on.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from at2_rag.server.app import describe_api
from tests.server.processes import ServerProcess, served
from tests.server.test_bad_input import wait_for_log

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
REQUESTS = int(os.environ.get("AT2_FUZZ_REQUESTS", "240"))
SEED = int(os.environ.get("AT2_FUZZ_SEED", "0"))
DESCRIPTION: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
PATHS: dict[str, dict[str, Any]] = DESCRIPTION["paths"]
SCHEMAS: dict[str, dict[str, Any]] = DESCRIPTION["components"]["schemas"]

KEY, WRONG_KEY = "the-right-key", "quite-another-key"
SECRET = "marmalade"  # in all texts


def test_the_committed_description_is_the_apps() -> None:
    assert describe_api() == DESCRIPTION, "run: at2-rag serve --openapi > docs/openapi.json"


def test_every_reference_leads_somewhere() -> None:
    document = describe_api()
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in document["components"]["schemas"]
    assert {"/rerank", "/v1/rerank", "/v2/rerank", "/v1/prune"} < document["paths"].keys()


@pytest.fixture(scope="module")
def guarded(arguments: list[str]) -> Iterator[ServerProcess]:
    """A server that asks for a key."""
    with served(*arguments, environment={"AT2_RAG_API_KEYS": KEY}) as running:
        yield running


_TEXT = st.text(max_size=40).map(lambda text: f"{SECRET} {text}")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_CHUNK = st.fixed_dictionaries(
    {"text": _TEXT}, optional={"title": _TEXT, "id": _TEXT, "retrieval_score": st.floats(0, 1)}
)


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that a schema of the description allows, not too many and not too large."""
    if "$ref" in schema:
        return _values(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(_values, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "type" not in schema:
        return _JSON
    least, most = schema.get("minimum", -1), schema.get("maximum", 20)
    of_type: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "array": lambda: st.lists(
            _values(schema["items"]),
            min_size=schema.get("minItems", 0),
            max_size=schema.get("maxItems", 6),
        ),
        "boolean": st.booleans,
        "integer": lambda: st.integers(least, most),
        "null": st.none,
        "number": lambda: st.floats(least, most),
        "object": lambda: _objects(schema) if "properties" in schema else _CHUNK,
        "string": lambda: _TEXT,
    }
    return of_type[schema["type"]]()


@st.composite
def _objects(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    """Draw an object with what is required and at most two other keys."""
    properties, required = schema["properties"], schema.get("required", [])
    others = st.sampled_from([name for name in properties if name not in required] or required)
    names = [*required, *draw(st.sets(others, max_size=2))]
    return {name: draw(_values(properties[name])) for name in names}


@dataclass(frozen=True)
class Drawn:
    """A request for a path, as the client is told to send it."""

    content: bytes
    headers: dict[str, str]
    params: dict[str, str]


@st.composite
def _requests(draw: st.DrawFn, operation: dict[str, Any]) -> Drawn:
    """Draw a request for an operation of the description."""
    key = draw(st.sampled_from([f"Bearer {KEY}"] * 8 + [f"Bearer {WRONG_KEY}", f"Basic {KEY}"]))
    headers = {"Content-Type": "application/json", "Authorization": key}
    params = draw(st.dictionaries(_TEXT, _TEXT, max_size=1))
    if "requestBody" not in operation:
        return Drawn(b"", headers, params)
    body = draw(_values(operation["requestBody"]["content"]["application/json"]["schema"]))
    odd = draw(st.integers(0, 9))
    if odd in (7, 8):  # a key that is there or not, with any value
        names = sorted({name for each in SCHEMAS.values() for name in each["properties"]})
        body[draw(st.sampled_from([*names, *body]))] = draw(_JSON)
    content = json.dumps(body).encode()
    if odd == 9:
        content = content[: draw(st.integers(0, len(content)))] + draw(st.binary(max_size=4))
    return Drawn(content, headers, params)


@pytest.mark.parametrize("path", PATHS)
def test_no_request_makes_the_server_fail(guarded: ServerProcess, path: str) -> None:
    [(method, operation)] = PATHS[path].items()
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=guarded.url, timeout=600) as client:

        @seed(SEED)
        @settings(
            max_examples=math.ceil(REQUESTS / len(PATHS)),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(_requests(operation))
        def send(drawn: Drawn) -> None:
            response = client.request(method, path, **vars(drawn))
            statuses[response.status_code] += 1
            assert response.status_code < 500 or is_unsupported(path, response), response.text
            assert response.status_code != 424, "how TEI's clients are told of a failure"
            kind = response.headers["content-type"].partition(";")[0]
            if kind in ("application/json", "application/x-ndjson"):
                answers = list(map(json.loads, response.text.splitlines()))
                assert not any(has_failed(answer) for answer in answers), response.text

        send()
        identity = f"last{path.replace('/', '.')}"
        client.get("/live", headers={"X-Request-Id": identity})
    assert statuses[200] + statuses[501] > 0, statuses
    wait_for_log(guarded, identity)
    log = json.dumps(guarded.log)
    assert not any(word in log for word in (SECRET, KEY, WRONG_KEY))
    assert not any("exception" in record for record in guarded.log)
    assert "not JSON" not in {record["logger"] for record in guarded.log}


def is_unsupported(path: str, response: httpx.Response) -> bool:
    """Tell whether a model without weights for answers is asked to attribute one."""
    return path == "/v1/attribute" and response.status_code == 501


def has_failed(answer: Any) -> bool:
    """Tell whether a line says that the server failed, as those of several questions may."""
    return isinstance(answer, dict) and answer.get("error") == "failed"
