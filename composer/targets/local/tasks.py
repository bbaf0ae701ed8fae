"""Tasks: what is composed by another process or machine, and how a worker carries it out.

Task and result are small values. The weights are read and written by whoever carries the task out:
in folders that it shares with the engine, or in an object store, of which it keeps copies.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from composer.errors import BadLora, CredentialsError, TargetError, Unreachable, UsageError
from composer.lora.fingerprint import Fingerprint, Part, fingerprint_file
from composer.lora.merging import CompositionSpec, OutputOptions, write_composed
from composer.lora.threads import in_one_thread
from composer.targets.local.mirror import Mirror
from composer.targets.local.tickets import objects_at, scratch
from composer.text import visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.lora.signature import Hashes
    from composer.targets.local.tickets import Result, Ticket

FETCHING, DELIVERING = 0.001, 0.999  # the progress before and after composing
# Reading a header takes as long as hashing; many compositions have one LoRA. Raises `BadLora`.
read_once = lru_cache(maxsize=64)(Fingerprint.read)
_copies: dict[Path, Fingerprint] = {}  # of this process: hashing takes long, too
SPACE_HINT = "`compose prune --local` frees what no lock names"
PATH_HINT = "the workers must see the library under the same path (docs/cluster.md)"
CHANGED_HINT = "was it replaced meanwhile? run the same command again"
SCRATCH_HINT = "start the workers with --local-directory on another disk (docs/cluster.md)"


@dataclass(frozen=True, slots=True)
class StoredLora:
    """A LoRA of a library on an object store: its place there, and what it must be."""

    place: str
    hashes: Hashes


@dataclass(frozen=True, slots=True)
class Task:
    """A composition to make: its id, and its LoRAs with digests, each with its scale.

    `library` is the URL of the object store that has them; without one they have paths.
    """

    id: str
    loras: tuple[tuple[Fingerprint | StoredLora, float], ...]
    options: OutputOptions
    version: str = __version__
    library: str = ""

    @classmethod
    def of(cls, spec: CompositionSpec) -> Task:
        """What this spec says, without the headers that were read; for any working directory."""
        loras = ((_absolute(part.fingerprint), part.scale) for part in spec.parts)
        return cls(spec.title, tuple(loras), spec.options)

    def by_place(self, library: str) -> Task:
        """The same for workers that read the LoRAs from the library at this URL, not by path."""
        loras = ((stored_lora(lora), scale) for lora, scale in self.loras)
        return replace(self, loras=tuple(loras), library=library)


def _absolute(lora: Fingerprint) -> Fingerprint:
    root = None if lora.root is None else lora.root.absolute()
    return replace(lora, path=lora.path.absolute(), root=root)


def stored_lora(lora: Fingerprint | StoredLora) -> StoredLora:
    """The LoRA by its place in the library, for workers that don't see this machine's folders."""
    if isinstance(lora, StoredLora):
        return lora
    return StoredLora(lora.path.relative_to(lora.root or "").as_posix(), lora.hashes)


def carry_out(task: Task, ticket: Ticket) -> Result:
    """Write the composition to a new file, and deliver it as the ticket says.

    Raises what `write_composed` does, `TargetError` for a worker that isn't set up as it must be,
    and `NotWanted`; then nothing is left.
    """
    if task.version != __version__:
        raise TargetError(
            f"{socket.gethostname()} has compose {__version__}, and the task is of {task.version}",
            hint=f"on the workers: pip install 'lora-compose[local]=={task.version}'",
        )
    try:
        return _carry_out(task, ticket)
    except (CredentialsError, Unreachable, UsageError) as error:  # of the object store
        raise TargetError(f"{socket.gethostname()}: {error.message}", hint=error.hint) from None


def _carry_out(task: Task, ticket: Ticket) -> Result:
    report = _reporter(ticket)
    seen = partial(report, FETCHING)
    parts = tuple(part_here(task.library, lora, scale, seen) for lora, scale in task.loras)
    out = ticket.output()
    try:
        spec = CompositionSpec(parts, task.id, task.options)
        with in_one_thread():
            write_composed(spec, out, progress=report, hint=SPACE_HINT)
        return ticket.deliver(out, lambda: report(DELIVERING))
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def part_here(
    library: str,
    stored: Fingerprint | StoredLora,
    scale: float,
    seen: Callable[[], None] = lambda: None,
) -> Part:
    """The LoRA as this machine sees it, or a copy of it from the library at this URL.

    `seen` is called now and then, and may raise. Raises `BadLora` if it is another file here.
    """
    if isinstance(stored, StoredLora):
        lora, hint = _copy(library, stored.place, seen), CHANGED_HINT
    elif stored.still_reliable():
        lora, hint = stored, ""
    else:
        lora, hint = fingerprint_file(stored.path, root=stored.root), PATH_HINT
    if lora.hashes != stored.hashes:
        name = stored.place if isinstance(stored, StoredLora) else str(stored.path)
        raise BadLora(
            f"{visible(name)} on {socket.gethostname()} is another file than in the library",
            hint=hint,
        )
    return Part(lora, read_once(lora), scale)


def _copy(library: str, place: str, seen: Callable[[], None]) -> Fingerprint:
    """The copy of a LoRA, in a folder that the workers of one machine share."""
    mirror = Mirror(objects_at(library), scratch().parent / "lora-compose", hint=SCRATCH_HINT)
    path = mirror.fetch(place, seen)
    copy = _copies.get(path)
    if copy is None or not copy.still_reliable():
        copy = _copies[path] = fingerprint_file(path, root=mirror.folder)
    return copy


def _reporter(ticket: Ticket) -> Callable[[float], None]:
    """A function that reports the progress, at once and then now and then."""
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if 0 < share < 1 and time.monotonic() - last < ticket.interval:
            return
        last = time.monotonic()
        ticket.report(share)

    report(0.0)
    return report
