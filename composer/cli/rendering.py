"""What `compose preview` and `compose sweep` share: options of images, rendering, what is written.

A command adds `image_options`, which come as one value, and hands `rendered` a function that makes
the report. Whatever needs the extra `preview` is imported there.
"""

from __future__ import annotations

import re
import shlex
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from composer.cli import suggestions
from composer.cli.arguments import NumberOption
from composer.cli.extras import needing
from composer.cli.options import lock_timeout
from composer.cli.project import open_target
from composer.cli.selection import gathered
from composer.cli.signals import graceful
from composer.cli.terminal import LateMeter, emit, suggest, tell
from composer.errors import ExitStatus, Stopped, UsageError
from composer.project.options import RendererOptions
from composer.text import amount, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.output.preview_view import PreviewView
    from composer.previews.report import PreviewReport, Price
    from composer.project import Project
    from composer.renderers.base import Rendering
    from composer.targets.kind import TargetOptions

    Make = Callable[..., PreviewReport]  # of a target, a renderer, `on_price` and `on_rendering`

_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:-]+(?:/[A-Za-z0-9._~%-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are made, and where they go."""

    out: str | None
    force: bool
    max_cost: float | None
    renderer: str | None
    base_model: str | None
    image_executor: str | None  # not the field `executor` of `TargetOptions`
    batch: int
    image_url: str
    lock_timeout: float


def _image_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """The URL with a slash at its end. Markdown gets it unescaped, so only plain ones pass.

    Raises `UsageError`.
    """
    if value is None:
        return ""
    if not _PLAIN_URL.fullmatch(value):
        raise UsageError(
            f"--image-url: {visible(value)!r} is not a plain URL",
            hint="write it as https://example.com/previews/, without a user, a query or spaces",
        )
    return value if value.endswith("/") else f"{value}/"


image_options = gathered(
    ImageOptions,
    "images",
    click.option(
        "--out",
        type=click.Path(),
        metavar="DIR",
        help="Write contact sheets, index.html, previews.json and preview.md to this folder. It is "
        "created if it does not exist.",
    ),
    click.option("--force", is_flag=True, help="Replace files in DIR that compose did not write."),
    click.option(
        "--max-cost",
        cls=NumberOption,
        type=click.FloatRange(min=0),
        metavar="N",
        help="Refuse if all new images together cost more than N (in the target's units). "
        "Without it nothing is rendered where images cost something.",
    ),
    click.option(
        "--renderer",
        metavar="NAME",
        shell_complete=suggestions.renderers,
        help="What makes the images: diffusers, on this machine, or scenario. The default depends "
        "on the target.",
    ),
    click.option(
        "--base-model",
        metavar="MODEL",
        shell_complete=suggestions.any_file,
        help="The base model: an id of the target, or the folder or id of a local pipeline. The "
        "default is that of compose.toml, else the renderer's.",
    ),
    click.option(
        "--executor",
        "image_executor",
        metavar="EXECUTOR",
        shell_complete=suggestions.executors,
        help="Render in N processes (processes:N), or on a Dask cluster (dask://HOST:PORT); "
        "diffusers only.",
    ),
    click.option(
        "--batch",
        cls=NumberOption,
        type=click.IntRange(1, 16),
        default=1,
        show_default=True,
        metavar="N",
        help="Make up to N seeds at once (1 to 16), which may be faster on a GPU. With another N "
        "images are made again; diffusers only.",
    ),
    click.option(
        "--image-url",
        metavar="URL",
        callback=_image_url,
        help="In Markdown, the address where the contact sheets will be. The default is beside "
        "preview.md.",
    ),
    lock_timeout,
)


class Watcher:
    """Says the price before anything is rendered, and then how much of it is done.

    In a dry run the price is all that is printed, at the end. `sleep` raises `Stopped` once a
    signal asks to end.
    """

    def __init__(
        self, *, dry_run: bool, sleep: Callable[[float], None] = lambda seconds: None
    ) -> None:
        self.dry_run, self.sleep = dry_run, sleep
        self._meter = LateMeter("rendering images")
        self._guard = threading.Lock()
        self._total = 0
        self._done: set[str] = set()

    def on_price(self, price: Price) -> None:
        from composer.output.preview_view import price_words

        self._total = price.cells
        if price.cells and not self.dry_run:
            tell(f"{price_words(price)}.", err=True)

    def on_rendering(self, rendering: Rendering) -> None:
        """May be called by any thread."""
        from composer.renderers.base import DONE

        with self._guard:
            if rendering.state == DONE or rendering.error is not None:
                self._done.add(rendering.cell.digest)
            self._meter.say(min(len(self._done) / max(self._total, 1), 0.999))

    def end(self) -> None:
        self._meter.say(1)


def rendered(
    project: Project,
    target_options: TargetOptions,
    images: ImageOptions,
    output_format: str,
    make: Make,
    *,
    dry_run: bool,
) -> int:
    """Open target and renderer, let `make` make the report, write and print it; the exit status."""
    with graceful() as interruption:
        _check_out(project, images, dry_run=dry_run)
        watcher = Watcher(dry_run=dry_run, sleep=interruption.sleep)
        try:
            report = _made(project, target_options, images, make, watcher)
            view = _written(project, report, images, watcher)
        except Stopped:
            click.echo("interrupted", err=True)
            return interruption.status(ExitStatus.INTERRUPTED)
        _print(view, output_format)
        _suggest(view, images)
        return interruption.status(report.exit_status)


def _check_out(project: Project, images: ImageOptions, *, dry_run: bool) -> None:
    """Raise `UsageError` or `Refused` before anything is paid for."""
    with needing("previews need", "preview"):  # and so does all that follows
        from composer.project.preview_files import check_folder

    if images.out is not None:
        check_folder(project, images.out, force=images.force)
    elif not dry_run:
        raise UsageError("Missing option '--out'", hint="name a folder, as --out preview/")


def _made(
    project: Project,
    target_options: TargetOptions,
    images: ImageOptions,
    make: Make,
    watcher: Watcher,
) -> PreviewReport:
    """What `make` makes, with an open target and renderer."""
    sleep, dry_run = watcher.sleep, watcher.dry_run
    options = RendererOptions(
        images.renderer,
        images.base_model,
        images.image_executor,
        sleep=sleep,
        dry_run=dry_run,
        batch=images.batch,
    )
    try:
        with (
            open_target(
                project, target_options, run_jobs=False, dry_run=dry_run, sleep=sleep
            ) as target,
            project.open_renderer(target, options) as renderer,
        ):
            return make(
                target, renderer, on_price=watcher.on_price, on_rendering=watcher.on_rendering
            )
    finally:
        watcher.end()


def _written(
    project: Project, report: PreviewReport, images: ImageOptions, watcher: Watcher
) -> PreviewView:
    """Write the files, but not in a dry run or after an interruption; what they show."""
    from composer.output.preview_view import PreviewView
    from composer.project.preview_files import write_preview

    if watcher.dry_run or report.interrupted or images.out is None:
        return PreviewView(report, image_url=images.image_url, dry_run=watcher.dry_run)
    meter = LateMeter("writing the contact sheets")

    def progress(share: float) -> None:
        meter.say(share)
        watcher.sleep(0)

    try:
        return write_preview(
            project,
            report,
            images.out,
            force=images.force,
            image_url=images.image_url,
            progress=progress,
        )
    finally:
        meter.say(1)


def _print(view: PreviewView, output_format: str) -> None:
    from composer.output import preview_json, preview_markdown, preview_text

    if output_format == "json":
        click.echo(preview_json.as_json(view), nl=False)
    elif output_format == "markdown":
        click.echo(preview_markdown.markdown(view), nl=False)
    else:
        emit(lambda color: preview_text.text(replace(view, color=color)))


def _suggest(view: PreviewView, images: ImageOptions) -> None:
    report = view.report
    if view.folder and report.grids:
        suggest(f"open {visible(view.folder)}index.html in a browser{_promote(report)}")
    elif view.dry_run and report.price.cells:
        out = images.out or "preview/"
        cost = report.price.total
        limit = "" if cost is None else f" --max-cost {amount(cost)}"
        suggest(f"the same with --out {visible(out)}{limit} instead of --dry-run renders them")


def _promote(report: PreviewReport) -> str:
    """What may follow a sweep, too."""
    grid = report.grids[0].grid
    path = shlex.quote(visible(grid.path))
    return "" if grid.is_preview else f"; compose sweep {path} --promote PLACE"
