"""The ASGI app: paths, errors, middleware, and the API's description."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib.resources import files
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from at2_rag import __version__
from at2_rag.errors import AT2Error
from at2_rag.server import routes
from at2_rag.server.errors import ErrorKind, RequestError, as_request_error
from at2_rag.server.keys import Keys
from at2_rag.server.middleware import Admit, Authenticate, Observe
from at2_rag.server.routes import JsonResponse
from at2_rag.server.service import Service
from at2_rag.server.shapes import library
from at2_rag.server.shapes.paths import RERANK_PATHS, error_form_of
from at2_rag.server.telemetry.logs import access_log

_OPEN_PATHS = ("/", "/live", "/ready", "/health", "/metrics")
"""Paths that need no key: they show neither questions nor documents."""

_SCHEMA_PATH = "#/components/schemas/{model}"


def make_app(service: Service) -> ASGIApp:
    """Return the app that serves a service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with service.running():
            yield {"service": service}

    app = _routed(lifespan)
    work = {*RERANK_PATHS, "/v1/prune", "/v1/attribute", "/v1/index"}
    paths = {*work, *_OPEN_PATHS, "/info", "/openapi.json"}
    keys = Keys(service.settings.api_keys)
    return Observe(Authenticate(Admit(app, work), keys, _OPEN_PATHS), paths)


def describe_api() -> dict[str, Any]:
    """Return the API's description, as OpenAPI has it."""
    return _routed(None).openapi()


def _routed(lifespan: Any) -> FastAPI:
    app = FastAPI(
        title="at2_rag",
        summary="Prunes and reranks retrieved context, in the shapes that rerank clients speak.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            AT2Error: _on_error,
            Exception: _on_error,
            HTTPException: _on_http_error,
        },
    )
    posts: list[tuple[str, Any, tuple[type[BaseModel], ...]]] = [
        (path, routes.rerank, tuple(shape.body for shape in shapes))
        for path, shapes in RERANK_PATHS.items()
    ]
    posts += [
        ("/v1/prune", routes.prune, (library.PruneBody, library.PruneBatchBody)),
        ("/v1/attribute", routes.attribute, (library.AttributeBody,)),
        ("/v1/index", routes.index, (library.IndexBody,)),
    ]
    for path, handler, bodies in posts:
        app.post(path, response_class=Response, openapi_extra=_request_body(bodies))(handler)
    for path, handler in (
        ("/live", routes.live),
        ("/ready", routes.ready),
        ("/health", routes.ready),
        ("/info", routes.info),
        ("/metrics", routes.metrics),
    ):
        app.get(path, response_class=Response)(handler)
    app.get("/", response_class=HTMLResponse)(_page())
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        bodies = [body for _, _, several in posts for body in several]
        document.setdefault("components", {})["schemas"] = _schemas(bodies)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's docs have it
    return app


def _request_body(bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    references = [{"$ref": _SCHEMA_PATH.format(model=body.__name__)} for body in bodies]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _schemas(bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    inputs: list[tuple[type[BaseModel], Literal["validation"]]]
    inputs = [(body, "validation") for body in dict.fromkeys(bodies)]
    _, schema = models_json_schema(inputs, ref_template=_SCHEMA_PATH)
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def _page() -> Any:
    html = files("at2_rag.server").joinpath("page.html").read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "connect-src 'self'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )

    async def page() -> HTMLResponse:
        """Show a page on which to try pruning."""
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    return page


async def _on_error(request: Request, error: Exception) -> Response:
    """Answer with an error in the shape of the request, or in that of its path."""
    shown = as_request_error(error)
    if shown.kind is ErrorKind.FAILED:
        access_log.error("a request failed", exc_info=error)
    form = getattr(request.state, "error_form", error_form_of(request.url.path))
    return JsonResponse(form.body(shown), form.status(shown), headers=shown.headers)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == ErrorKind.WRONG_METHOD.status:
        shown = RequestError(
            ErrorKind.WRONG_METHOD, f"{request.method} isn't served here; see /openapi.json"
        )
    else:
        shown = RequestError(ErrorKind.UNKNOWN_PATH, "there is no such path; see /openapi.json")
    form = error_form_of(request.url.path)
    return JsonResponse(form.body(shown), form.status(shown), headers=error.headers)
