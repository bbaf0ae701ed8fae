"""Flask's part of the server: the routes, and the checks before a call is handled.

`running` makes the app. Order of the checks: Host, credentials, project, body. Every answer is
JSON, refusals as `{"reason": ..., "error": ..., "details": {...}}`, but for the bytes of a result
or an image.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request, send_file
from werkzeug.exceptions import HTTPException

from composer.errors import ComposeError, NotFound
from composer.model import is_id
from composer.server import handlers, image_handlers
from composer.server.auth import LINK_LIFE, check_basic, check_host, check_link
from composer.server.calls import Answer, Call
from composer.server.request_fields import Query, Refusal, read_body, status_of
from composer.targets.local.generations import Generations
from composer.targets.local.records import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.server.asset_links import AssetLinks
    from composer.server.auth import Credentials
    from composer.server.calls import Handler, ImageWorker, Visibility
    from composer.targets.local.service import Engine

PREFIX = "/v1"
LARGEST_BODY = 1024 * 1024  # bytes
BINARY = "application/octet-stream"
DOWNLOAD, ASSET = "/downloads/<job>/<token>", "/assets/<id>/content"


@dataclass(frozen=True, slots=True)
class Backend:
    """What the app answers with: the same for every call."""

    engine: Engine
    credentials: Credentials
    links: AssetLinks
    visibility: Visibility
    images: ImageWorker | None = None  # None: this server makes no images


def create_app(backend: Backend, *, host: str, log: Callable[[str], None]) -> Flask:
    """The app; `host` is the address that it will be bound to.

    `log` gets what only the operator may know: unexpected errors.
    """
    app = Flask("compose", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.merge_slashes = False  # no redirects: a client would send its secret after them

    app.before_request(lambda: _check_access(host, backend.credentials))
    app.register_error_handler(Exception, _error_handler(log))
    call = partial(_call, backend)
    for method, rule, handler in (*handlers.CALLS, *image_handlers.CALLS):
        _route(app, method, rule, handler.__name__, _view(handler, call))
    for rule, view in ((DOWNLOAD, _download), (ASSET, _asset)):
        _route(app, "GET", rule, view.__name__, partial(view, backend))
    return app


def _check_access(host: str, credentials: Credentials) -> None:
    check_host(request.headers.get("Host"), host)
    if request.endpoint not in (_download.__name__, _asset.__name__):
        check_basic(request.headers.get("Authorization"), credentials)


def _view(handler: Handler, call: Callable[[], Call]) -> Callable[..., Response]:
    def answer(**ids: str) -> Response:
        if not all(is_id(id) for id in ids.values()):
            raise NotFound("no model, job or asset has such an id")
        return _json(handler(call(), **ids))

    return answer


def _download(backend: Backend, job: str, token: str) -> Response:
    check_link(job, token, backend.credentials)
    return _result(backend.engine.of_project(_project(_query())), job)


def _asset(backend: Backend, id: str) -> Response:
    """The bytes of an image, to whoever has a link that is still good."""
    query = _query()
    backend.links.check(id, query.text("expires"), query.text("signature"))
    if not Generations(backend.engine.store).has_asset(id):
        raise NotFound(f"no asset has the id {id}")
    return _file(backend.engine.folder.asset(id), "image/png")


def _route(app: Flask, method: str, rule: str, name: str, view: Callable[..., Response]) -> None:
    app.add_url_rule(PREFIX + rule, name, view, methods=[method], provide_automatic_options=False)


def _call(backend: Backend) -> Call:
    """The current request as a call; raises `Refusal`."""
    query = _query()
    project = _project(query)
    raw = request.get_data()
    if raw.strip() and request.mimetype != "application/json":
        raise Refusal("a body must be application/json", status=415)
    return Call(
        engine=backend.engine.of_project(project),
        project=project,
        query=query,
        body=read_body(raw),
        visibility=backend.visibility,
        credentials=backend.credentials,
        base=f"http://{request.host}{PREFIX}",
        links=backend.links,
        images=backend.images,
    )


def _query() -> Query:
    return Query({name: request.args.getlist(name) for name in request.args})


def _project(query: Query) -> str:
    project = query.text("projectId") or ""
    if project and not is_id(project):
        raise Refusal("projectId is not a valid id")
    return project


def _result(engine: Engine, job: str) -> Response:
    """The bytes of a result, all or a range of them, to whoever has the link, for an hour."""
    offered = engine.download(job)
    if offered is None or now_ms() - offered.created_at > LINK_LIFE * 1000:
        raise NotFound("this link has expired", hint="ask for a new download")
    return _file(engine.result(offered.model), BINARY)


def _file(path: Path, type: str) -> Response:
    try:
        response = send_file(path.absolute(), type, as_attachment=True, conditional=True, max_age=0)
    except FileNotFoundError as error:
        raise NotFound("the file has been deleted meanwhile") from error
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


# --- answers -----------------------------------------------------------------------------


def _json(answer: Answer) -> Response:
    text = json.dumps(answer.body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    response = Response(text, status=answer.status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _error_handler(log: Callable[[str], None]) -> Callable[[Exception], Response]:
    def handle(error: Exception) -> Response:
        if not isinstance(error, ComposeError | HTTPException):
            log(f"compose: internal error:\n{traceback.format_exc()}")
        return _refused(error)

    return handle


def _refused(error: Exception) -> Response:
    """Any error as an answer, which tells nothing about an unexpected one."""
    match error:
        case ComposeError():
            return _refusal(status_of(error), error.message, hint=error.hint)
        case HTTPException():
            response = _refusal(error.code or 500, error.name)
            response.headers.extend(
                (name, value) for name, value in error.get_headers() if name == "Allow"
            )
            return response
    return _refusal(500, "internal error of the server; see its output")


def _refusal(status: int, message: str, *, hint: str | None = None) -> Response:
    body: dict[str, Any] = {"reason": message, "error": message}
    if hint:
        body["details"] = {"hint": hint}
    response = _json(Answer(body, status))
    if status == 503:  # another process writes to the database
        response.headers["Retry-After"] = "1"
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="compose", charset="UTF-8"'
    return response
