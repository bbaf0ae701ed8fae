"""Writing a safetensors file, tensor after tensor, without ever holding it whole.

Laid out as the reference writer does it: the header padded with spaces to a multiple of 8, tensors
by descending size of their type, then by name. Equal input gives equal bytes. `composition` writes
through this, and so does the script that makes the sample LoRAs.
"""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.files.atomic import no_link
from composer.lora.header import BITS, Positioned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from io import FileIO
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        bits = BITS[self.dtype]
        for dimension in self.shape:
            bits *= dimension
        return bits // 8


def order(spec: Spec) -> tuple[int, str]:
    """Sort key of a tensor's place in the file."""
    return -BITS[spec.dtype], spec.name


def header(specs: Iterable[Spec], metadata: Mapping[str, str]) -> bytes:
    """The file's beginning: the length and the JSON header, for tensors in the file's order."""
    fields: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for spec in specs:
        start, end = end, end + spec.size
        fields[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [start, end]}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded


AHEAD = 32 * 1024 * 1024  # bytes that are written before the disk is told to take them


def sync(file: int) -> None:
    """Wait until the bytes of the file with this descriptor are on the disk. Raises `OSError`."""
    getattr(os, "fdatasync", os.fsync)(file)  # macOS and Windows have the second alone


class _Syncing:
    """Has the disk take a file while it is still being written: its last sync then waits for
    little. Called from several threads."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._waiting = 0  # bytes
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "compose-sync")  # starts its thread when it is needed
        self._running: Future[None] | None = None

    def wrote(self, size: int) -> None:
        """Count what was written, and sync if it is enough. Raises `OSError` of an earlier sync."""
        with self._lock:
            self._waiting += size
            if self._waiting < AHEAD or (self._running and not self._running.done()):
                return
            if self._running:
                self._running.result()
            self._waiting = 0
            self._running = self._pool.submit(sync, self._file.fileno())

    def close(self) -> None:
        """Wait for the sync that is running. Raises its `OSError`: no other sync will report it."""
        self._pool.shutdown()
        if self._running:
            self._running.result()


class Output:
    """A file being written; tensors may come in any order and from any thread, each once."""

    def __init__(self, file: FileIO, specs: Sequence[Spec], metadata: Mapping[str, str]) -> None:
        self._file = Positioned(file)
        self._syncing = _Syncing(file)
        self._specs = specs
        beginning = header(specs, metadata)
        self._length = len(beginning)
        self._places: dict[str, tuple[int, Spec]] = {}
        end = self._length
        for spec in specs:
            self._places[spec.name] = (end, spec)
            end += spec.size
        self._file.reserve(end)
        self._file.write(0, memoryview(beginning))

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Write the tensor of this name."""
        start, spec = self._places.pop(name)
        if values.shape != spec.shape or values.nbytes != spec.size:
            raise ValueError(f"{name} isn't what the header announces")
        self._file.write(start, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self._syncing.wrote(spec.size)

    def close(self) -> None:
        """Wait until nothing works on the file any more. Raises `OSError`."""
        self._syncing.close()

    def annotate(self, metadata: Mapping[str, str]) -> None:
        """Put other metadata into the header: as long as what was there, to the byte."""
        beginning = header(self._specs, metadata)
        if len(beginning) != self._length:
            raise ValueError("the metadata has another length")
        self._file.write(0, memoryview(beginning))

    @property
    def missing(self) -> list[str]:
        return list(self._places)


@contextmanager
def writing(path: Path, specs: Iterable[Spec], metadata: Mapping[str, str]) -> Iterator[Output]:
    """A new file at `path`, with tensors in the given `order`; a link there is an error.

    When the context ends, the file is complete; the caller syncs it to the disk. If it ends with an
    error, the file is gone.
    """
    # Closed below, before it is removed.
    file = open(path, "wb", buffering=0, opener=no_link)  # noqa: SIM115
    try:
        with file:
            output = Output(file, list(specs), metadata)
            try:
                yield output
            finally:
                output.close()
            if output.missing:
                raise ValueError(f"{output.missing[0]} was announced and not written")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
