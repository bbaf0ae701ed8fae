"""The gallery of the project, live: `compose serve --page`.

Everything outside `/v1` is answered here, to browsers on this machine, without credentials and only
for reading. The pages are those of `compose report`; they are made again as time goes by, and a
script on the first one asks which jobs run.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from composer.errors import ComposeError, NotFound, UsageError
from composer.images.copies import web_copies
from composer.output.gallery import INDEX, WIDTHS, Pages, image_name
from composer.output.pages import page
from composer.server.auth import LOOPBACK, check_host, host_name, is_loopback
from composer.server.request_fields import Refusal, status_of
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from composer.output.gallery import Page
    from composer.project import Project
    from composer.project.reporting import ProjectReport
    from composer.targets.local.service import Engine

    WsgiApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

JOBS = "jobs.json"
MOST_JOBS = 20  # of each kind that are listed; the others are counted
FRESH = 2.0  # seconds for which pages are not found out again
SHARE = 5  # and at least so many times as long as that took
_IMAGES_KEPT = 256
_TYPES = {"html": "text/html", "css": "text/css", "webp": "image/webp", "json": "application/json"}
# Beside the policy in each page: nobody may frame it, and no other origin reads an answer.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def check_loopback(host: str) -> None:
    """Raise `UsageError` for an address that other machines reach: pages ask for no credentials."""
    if not is_loopback(host):
        raise UsageError("--page works on loopback addresses only", hint="leave out --host")


class Gallery:
    """The pages of a project as it is now. Thread-safe.

    `project` opens the project again; the pages also show the jobs of the engine. While
    recipes have problems, the last pages stay, and say so.
    """

    def __init__(self, project: Callable[[], Project], engine: Engine) -> None:
        self._project, self._engine = project, engine
        self._lock = threading.Lock()
        self._report: ProjectReport | None = None
        self._pages: dict[str, Page] = {}
        self._images: dict[str, tuple[str, int]] = {}
        self._good_until = 0.0
        self._image = lru_cache(maxsize=_IMAGES_KEPT)(_copy)

    def before(self, app: WsgiApp, *, host: str, log: Callable[[str], None]) -> WsgiApp:
        """An app that gives `/v1` to this one, the API, and answers everything else with pages.

        Raises `UsageError` unless `host` is a loopback address.
        """
        check_loopback(host)
        pages = create_page_app(self, host=host, log=log)

        def run(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = str(environ.get("PATH_INFO", ""))
            is_api = path == "/v1" or path.startswith("/v1/")
            return app(environ, start_response) if is_api else pages(environ, start_response)

        return run

    def page(self, name: str) -> str:
        """The text of a page. Raises `NotFound`, and what opening the project raises."""
        pages = self._current()
        if name not in pages:
            raise NotFound("there is no such page")
        return pages[name].text()

    def image(self, name: str) -> bytes:
        """A copy of an image that a page shows. Raises `NotFound`, `TargetError`."""
        self._current()
        if name not in self._images:
            raise NotFound("there is no such image")
        return self._image(*self._images[name])

    def jobs(self) -> dict[str, Any]:
        """The jobs that are queued or in progress."""
        now = self._engine.activity(most=MOST_JOBS)
        return {
            "jobs": [
                {
                    "name": visible(job.name),
                    "state": f"{job.kind}, {job.status.replace('-', ' ')}",
                    "progress": job.progress,
                }
                for job in now.jobs
            ],
            "more": now.more,
        }

    def _current(self) -> Mapping[str, Page]:
        """The pages, by their names."""
        with self._lock:
            began = time.monotonic()
            if self._report is None or began >= self._good_until:
                self._find_out()
                now = time.monotonic()
                self._good_until = now + max(FRESH, SHARE * (now - began))
            return self._pages

    def _find_out(self) -> None:
        try:
            report = self._project().report(self._engine)
        except ComposeError as error:
            if self._report is None:
                raise
            words = f"this is how it was: {error.message}"
            notes = (*(n for n in self._report.notes if not n.startswith("this is how")), words)
            report = replace(self._report, notes=notes)
        self._report = report
        pages = Pages(report, report.details, compared=report.compared, jobs=JOBS)
        self._pages = {one.name: one for one in pages}
        self._images = {
            image_name(digest, end): (str(file), width)
            for digest, file in report.files.items()
            for end, width in WIDTHS.items()
        }


def _copy(file: str, width: int) -> bytes:
    with open(file, "rb") as opened:
        (copy,) = web_copies(opened.read(), (width,))
    return copy


def create_page_app(gallery: Gallery, *, host: str, log: Callable[[str], None]) -> Flask:
    """The app that answers pages; `host` is the loopback address that it is bound to."""
    app = Flask("compose.page", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 0
    app.before_request(lambda: _check_origin(host))
    app.after_request(_with_headers)
    app.register_error_handler(Exception, partial(_refused, log))
    for rule, view in (
        ("/", lambda: _answer(INDEX, gallery.page(INDEX))),
        (f"/{JOBS}", lambda: _answer(JOBS, json.dumps(gallery.jobs()))),
        ("/<name>", lambda name: _answer(name, gallery.page(name))),
        (
            "/images/<name>",
            lambda name: _answer(name, gallery.image(f"images/{name}")),
        ),
        (
            "/<any(c,l):folder>/<name>",
            lambda folder, name: _answer(name, gallery.page(f"{folder}/{name}")),
        ),
    ):
        app.add_url_rule(rule, rule, view, methods=["GET"], provide_automatic_options=False)
    return app


def _check_origin(host: str) -> None:
    """Raise `Refusal` for a request that another site's page sends, or sends under a name of its
    own that it made lead here (DNS rebinding)."""
    check_host(request.headers.get("Host"), host)
    origin = request.headers.get("Origin")
    if origin is not None and host_name(origin.partition("://")[2]) not in LOOPBACK:
        raise Refusal("these pages answer no other site", status=403)
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.path != "/":
        raise Refusal("these pages answer no other site", status=403)


def _answer(name: str, body: str | bytes) -> Response:
    type = _TYPES[name.rpartition(".")[2]]
    return Response(body, mimetype=type)


def _with_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response


def _refused(log: Callable[[str], None], error: Exception) -> Response:
    """Any error as a page, which tells nothing about an unexpected one."""
    match error:
        case ComposeError():
            words, hint, status = error.message, error.hint or "", status_of(error)
        case HTTPException():
            words, hint, status = error.name, "", error.code or 500
        case _:
            log(f"compose: internal error:\n{traceback.format_exc()}")
            words, hint, status = "internal error of the server; see its output", "", 500
    text = page("gallery_problem.html", title="compose", words=visible(words), hint=visible(hint))
    return Response(text, status=status, mimetype="text/html")
