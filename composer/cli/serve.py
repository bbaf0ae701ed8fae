"""`compose serve`: the local target behind HTTP, for any client of the Scenario API."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import suggestions
from composer.cli.arguments import NumberOption
from composer.cli.extras import needing
from composer.cli.options import executor
from composer.cli.options import library as library_option
from composer.cli.project import open_project
from composer.cli.signals import until_signalled
from composer.errors import UsageError
from composer.project.options import RendererOptions
from composer.recipes import relative
from composer.targets.local.kind import executor_for, find_library, open_library
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.project import Project
    from composer.server.auth import Credentials
    from composer.server.page import Gallery
    from composer.server.rendering import RenderWorker
    from composer.server.running import Faults, Server
    from composer.targets.local.service import Engine


@click.command("serve")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on.",
)
@click.option(
    "--port",
    cls=NumberOption,
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8321,
    show_default=True,
    help="Port to listen on; 0 picks a free port.",
)
@library_option
@executor
@click.option(
    "--base-model",
    metavar="MODEL",
    shell_complete=suggestions.any_file,
    help="Also make images, with this base model: the folder or id of a local pipeline.",
)
@click.option("--page", is_flag=True, help="Also show the gallery of compose report, live, at /.")
@click.option(
    "--fault-script",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="For tests: YAML file that says which requests fail.",
)
@click.option(
    "--fault-log",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="For tests: file that gets a line of JSON for each request and each fault.",
)
def serve_command(
    host: str,
    port: int,
    library: Path | str | None,
    executor: str | None,
    base_model: str | None,
    page: bool,
    fault_script: Path | None,
    fault_log: Path | None,
) -> int:
    """Serve the local target as a Scenario API, until interrupted.

    \b
    Examples:
      compose serve
      compose serve --port 0 --library recipes/loras

    Prints the base URL to stdout. Uses SCENARIO_SDK_API_KEY and SCENARIO_SDK_API_SECRET if set.
    Otherwise creates a key and secret, and writes them to serve.json in the state folder.

    The gallery of --page is for browsers on this machine, which need no key: other users of this
    machine can read it, too.
    """
    with needing("the server needs", "serve"):
        from composer.server import auth, running
        from composer.targets.local.service import Engine
    gallery = _gallery_of(host) if page else None
    faults = _faults(host, fault_script, fault_log)
    project = open_project(may_be_empty=True, check=False)
    loras = _library(project, library)
    open_executor = executor_for(executor, loras, os.environ)
    state = project.prepare_state()
    credentials = auth.credentials(os.environ, state)
    _say(f"serving {loras} from {state}")
    with ExitStack() as stack:
        opened = open_library(loras, state)
        engine = stack.enter_context(Engine(state, opened, executor=open_executor()))
        renderer = RendererOptions("diffusers", base_model, executor)
        images = _open_images(stack, project, engine, renderer) if base_model else None
        more = running.Additions(images, gallery and gallery(engine), faults)
        server = running.Server(engine, credentials, host=host, port=port, additions=more, log=_say)
        _introduce(server, credentials, has_gallery=page)
        _run(server)
    return 0


def _library(project: Project, given: Path | str | None) -> Path | str:
    paths = [relative(file, project.root) or "" for file in project.files]
    found = find_library(
        project.root, paths, given=given, env=os.environ, defaults=project.target_defaults
    )
    return found.absolute() if isinstance(found, Path) else found


def _open_images(
    stack: ExitStack, project: Project, engine: Engine, options: RendererOptions
) -> RenderWorker:
    """What makes images, until the stack ends. Raises `UsageError`."""
    _say(f"images: {visible(options.base_model or '')}")  # loading it may take a while
    with needing("--base-model needs", "serve,render"):
        from composer.server.rendering import MOST_AT_ONCE, Interrupt, RenderWorker

        interrupt = Interrupt()
        options = replace(options, sleep=interrupt.sleep)
        renderer = stack.enter_context(project.open_renderer(engine, options))
    at_once = MOST_AT_ONCE if options.executor else 1
    return stack.enter_context(RenderWorker(engine, renderer, interrupt, at_once=at_once))


def _gallery_of(host: str) -> Callable[[Engine], Gallery]:
    """What makes the gallery of an engine. Raises `UsageError`."""
    with needing("--page needs", "serve,preview"):
        from composer.server.page import Gallery, check_loopback
    check_loopback(host)
    return partial(Gallery, partial(open_project, may_be_empty=True))


def _faults(host: str, script: Path | None, log: Path | None) -> Faults | None:
    if script is None and log is None:
        return None
    from composer.server.auth import is_loopback
    from composer.server.testing.fault_middleware import FaultInjection
    from composer.server.testing.fault_script import read_script

    if script and not is_loopback(host):
        raise UsageError("--fault-script works on loopback addresses only", hint="drop --host")
    return FaultInjection(read_script(script) if script else None, log)


def _introduce(server: Server, credentials: Credentials, *, has_gallery: bool) -> None:
    if credentials.file is None:
        _say("key and secret: from the environment")
    elif credentials.made and sys.stderr.isatty():
        _say(f"key {credentials.key}  secret {credentials.secret}  (kept in {credentials.file})")
    else:
        _say(f"key and secret: in {credentials.file}")
    if not server.is_private:
        _say("warning: other machines can reach this address, and HTTP is not encrypted")
    if has_gallery:
        _say(f"gallery: {server.url.removesuffix('v1')}")
    click.echo(server.url)
    sys.stdout.flush()


def _run(server: Server) -> None:
    """Serve until SIGINT or SIGTERM; then the exit status is 0."""
    # One thread reads and sends for all clients. By default it waits 5 ms for each of its turns
    # while others compute: with many clients that halves what the server can answer.
    sys.setswitchinterval(0.001)
    with until_signalled(server.stop):
        server.run()
    _say("stopped")


def _say(line: str) -> None:
    click.echo(line, err=True)
