"""Whether to paint, and progress on stderr: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import codecs
import heapq
import io
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from composer.output.style import bar, painted, wrapped
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from rich.console import RenderableType

    from composer.planner import Action, Step

log = logging.getLogger(__name__)

_ESCAPED = "composer.escaped"  # the name of an error handler of codecs
HEARTBEAT = 30.0  # seconds of silence after which a log shows that we are still there


class _Output(io.FileIO):
    """The file under stdout or stderr. Once a write has failed, what is written is dropped.

    So a command whose reader has left (`compose models | head`) goes on to its end, and its exit
    status is its own. A full disk under stdout raises an `OSError` that names it.
    """

    def __init__(self, descriptor: int, label: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._label = label
        self.lost = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            told, self.lost = self.lost, True
            if told or self._label == "stderr" or isinstance(error, BrokenPipeError):
                return len(data)
            raise OSError(error.errno, error.strerror, self._label) from error


def prepare_streams() -> None:
    """Make stdout and stderr safe to print to, whatever their encoding, and if they are closed.

    What their encoding lacks (on Windows, a redirected stdout has a code page) is printed as
    `\\u2192`: an escape that JSON allows, too.
    """
    codecs.register_error(_ESCAPED, _escape)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif type(stream) is io.TextIOWrapper and type(_file_under(stream)) is io.FileIO:
            setattr(sys, name, _guarded(stream, name))
        elif reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ESCAPED)


def _file_under(stream: io.TextIOWrapper) -> Any:
    """Of a console of Windows, and after `prepare_streams`, it is another type than FileIO."""
    return getattr(stream.buffer, "raw", stream.buffer)


def _guarded(stream: io.TextIOWrapper, name: str) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), name)),
        encoding=stream.encoding,
        errors=_ESCAPED,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def reader_left() -> bool:
    """Whether something that was printed on stdout could not be written."""
    output = _file_under(sys.stdout) if isinstance(sys.stdout, io.TextIOWrapper) else None
    return isinstance(output, _Output) and output.lost


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def colours(stream: TextIO | None) -> bool:
    """FORCE_COLOR says yes, NO_COLOR no; else a terminal that isn't dumb, outside CI."""
    if os.environ.get("NO_COLOR") or stream is None:
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_live(stream)


def is_live(stream: TextIO) -> bool:
    """A terminal on which lines can be drawn again."""
    env = os.environ
    return stream.isatty() and env.get("TERM") != "dumb" and not env.get("CI")


def columns(stream: TextIO | None) -> int | None:
    """How wide the terminal under a stream is, COLUMNS before what it says; None if it is none."""
    if stream is None or not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    with suppress(OSError, ValueError):  # a console that does not tell, or no file
        return os.get_terminal_size(stream.fileno()).columns or None
    return None


def emit(render: Callable[[bool], str], *, err: bool = False) -> None:
    """Print what `render` gives, told whether to use colours; on a terminal, in its width."""
    stream = sys.stderr if err else sys.stdout
    color, wide = colours(stream), columns(stream)
    text = render(color)
    click.echo(wrapped(text, wide) if wide else text, err=err, nl=False, color=color)


def tell(text: str, *, err: bool = False) -> None:
    """Print lines without colours; on a terminal, in its width."""
    emit(lambda color: f"{text}\n", err=err)


def suggest(step: str) -> None:
    """Say on stderr what may come next."""
    tell(f"Next: {step}", err=True)


class _Display:
    """A part of the terminal that is drawn again and again while a `with` block runs."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or sys.stderr
        self._last_line = time.monotonic()
        self._console: Any = None  # rich's, on a terminal
        self._live: Any = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
        """Begin to draw, if this is a terminal."""
        if is_live(self._stream):
            from rich.console import Console
            from rich.live import Live

            self._console = Console(file=self._stream, highlight=False, markup=False)
            self._live = Live(
                console=self._console,
                transient=True,
                refresh_per_second=8,
                get_renderable=self._drawn,
            )
            self._live.start()

    def _drawn(self) -> RenderableType:
        """What is shown now; a thread of rich asks."""
        raise NotImplementedError

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()


MANY = 20  # more changes than these are counted as they go on, not listed
# Nothing is waited for here: the report at the end tells them, and once is enough.
_ONLY_RESULTS = frozenset({"kept", "left alone", "blocked"})
_FINISHED = "finished"  # of a training, whose result is reported as created, trained, ...
_FAILED = frozenset({"failed", "not trained"})
_ENDS = _FAILED | {"trained", "adopted", "kept", "delete", "forget", "clean up"}


class Progress(_Display):
    """Shows the steps of an apply; `say` may be called by any thread.

    On a terminal: what is at work, as far as it fits the screen, and a line of totals below.
    Elsewhere: only the totals, now and then.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._colour = colours(self._stream)
        self._guard = threading.RLock()
        self._expected: set[str] = set()  # paths whose steps will be told
        self._ended: dict[str, str] = {}
        self._working: dict[str, Step] = {}
        self._since: dict[str, float] = {}
        self._began = 0.0  # when the first model was at hand

    def __enter__(self) -> Self:
        return self  # nothing is drawn before the first step: a person may be asked first

    def begin(self, actions: Iterable[Action]) -> None:
        """Tell how much is to come."""
        from composer.planner import Verb

        moving = (Verb.WAIT, Verb.FORGET)
        self._expected = {a.path for a in actions if a.is_change or a.verb in moving}

    @property
    def is_many(self) -> bool:
        """Whether there are too many changes for a line each."""
        return len(self._expected) > MANY

    def say(self, step: Step) -> None:
        path = step.action.path
        if step.state in _ONLY_RESULTS and path not in self._expected:
            return
        with self._guard:
            if not self._since:
                self._start()
            before = self._working.get(path)
            is_other = before is None or before.state != step.state
            if is_other:
                self._since[path] = time.monotonic()
            if not self._began and step.state not in ("creating", "created"):
                self._began = time.monotonic()
            if step.state in _ENDS:
                self._working.pop(path, None)
                self._ended[path] = step.state
            else:
                self._working[path] = step
            if self._live is None:
                self._write(step, is_other=is_other)

    def _write(self, step: Step, *, is_other: bool) -> None:
        """In a log: after a silence, the totals. The report at the end has a line for each recipe,
        and `--verbose` shows the steps."""
        if is_other:
            log.info("%s", _told(step))
        if time.monotonic() - self._last_line > HEARTBEAT:
            self._line(self._totals(), "dim")

    def _line(self, words: str, colour: str) -> None:
        self._last_line = time.monotonic()
        text = painted(words, colour, color=self._colour)
        click.echo(text, file=self._stream, color=self._colour)

    def _totals(self) -> str:
        """`412/1,000 done, 8 training, 3 min left`."""
        failed = sum(state in _FAILED for state in self._ended.values())
        done, total = len(self._ended) - failed, len({*self._expected, *self._since})
        states = Counter(step.state.partition(" ")[0] for step in self._working.values())
        parts = [f"{done:,}/{total:,} done", *([f"{failed:,} failed"] if failed else [])]
        parts += [f"{count:,} {state}" for state, count in sorted(states.items())]
        parts += [left for left in [self._left(total)] if left]
        return ", ".join(parts)

    def _left(self, total: int) -> str:
        """How long it will take by what was done so far, and at least as long as any training."""
        working = self._working.values()
        share = (len(self._ended) + sum(step.progress or 0 for step in working)) / total
        longest = max((step.remaining or 0 for step in working), default=0)
        if not (0.05 < share < 1 or longest):
            return ""
        elapsed = time.monotonic() - self._began
        return _duration(max(longest, elapsed * (1 - share) / share if share > 0.05 else 0))

    def _drawn(self) -> RenderableType:
        """What is furthest, as many lines as the screen has room for; below, the totals."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column()
        for _ in range(4):
            table.add_column(no_wrap=True)
        with self._guard:
            room = max(0, self._console.size.height - 2)
            for step in heapq.nlargest(room, self._working.values(), key=self._weight):
                name = Text(visible(step.action.name), no_wrap=True, overflow="ellipsis")
                table.add_row(name, str(step.action.shown), step.state, *self._share(step))
            totals = Text(self._totals(), no_wrap=True, overflow="ellipsis")
        return Group(table, totals) if table.rows else totals

    def _weight(self, step: Step) -> tuple[float, float]:
        return step.progress or 0.0, -self._since[step.action.path]

    def _share(self, step: Step) -> tuple[str, str]:
        """A bar, and the time that is left."""
        done, left = step.progress or 0.0, step.remaining
        if left is None and 0.05 < done < 1:
            left = (time.monotonic() - self._since[step.action.path]) * (1 - done) / done
        return bar(done), "" if left is None else _duration(left)


def _told(step: Step) -> str:
    """A step as a line of a log."""
    share = f" {step.progress:.0%}" if step.progress and step.state == "training" else ""
    id = f"  {step.id}" if step.id else ""
    state = _FINISHED if step.state == "trained" else step.state
    return f"{state}{share}  {visible(step.action.name)}{id}"


def _duration(seconds: float) -> str:
    """`45s left`, `3 min left`, `2 h left`."""
    if seconds < 90:
        return f"{seconds:.0f}s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.0f} h left"


class Meter(_Display):
    """Shows how far one piece of work is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._what = what
        self._began = self._last_line
        self._share: float | None = None

    def _drawn(self) -> str:
        share = self._share
        if share is None:
            return ""
        return f"{self._what} {bar(share)} {share:4.0%}{self._left(share)}"

    def say(self, share: float) -> None:
        """That this share of the work, 0..1, is done."""
        self._share = share
        if self._live is None and time.monotonic() - self._last_line > HEARTBEAT:
            self._last_line = time.monotonic()
            click.echo(f"{self._what} {share:.0%}{self._left(share)}", file=self._stream)

    def _left(self, share: float) -> str:
        if not 0.05 < share < 1:
            return ""
        elapsed = time.monotonic() - self._began
        return f" {_duration(elapsed * (1 - share) / share)}"


PATIENCE = 1.0  # seconds before work that is mostly short is shown


class LateMeter:
    """As `Meter`, but begins to show something only once the work has taken a while."""

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what, self._stream = what, stream
        self._began: float | None = None
        self._meter: Meter | None = None

    def say(self, share: float) -> None:
        """That this share of the work, 0..1, is done; 1 ends it."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if share >= 1:
            self._end()
            return
        if self._meter is None and now - self._began >= PATIENCE:
            self._meter = Meter(self._what, self._stream).__enter__()
        if self._meter:
            self._meter.say(share)

    def _end(self) -> None:
        if self._meter:
            self._meter.__exit__()
        self._meter = self._began = None
