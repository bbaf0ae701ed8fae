"""Writing a safetensors file, tensor after tensor, without ever holding it whole.

Laid out as the reference writer does it: the header padded with spaces to a multiple of 8, tensors
by descending size of their type, then by name. Equal input gives equal bytes. `composition` writes
through this, and so does the script that makes the sample LoRAs.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.files.atomic import no_link
from composer.lora.container import Positioned
from composer.lora.dtypes import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Output:
    """A file being written; tensors may come in any order and from any thread, each once."""

    def __init__(self, file: FileIO, specs: Sequence[Spec], metadata: Mapping[str, str]) -> None:
        self._file = Positioned(file)
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
            yield output
            if output.missing:
                raise ValueError(f"{output.missing[0]} was announced and not written")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
