"""Writing a safetensors file, tensor after tensor, without ever holding it whole.

Laid out as the reference writer does it: the header padded with spaces to a multiple of 8, tensors
by descending size of their type, then by name. Equal input gives equal bytes. `composition` writes
through this, and so does the script that makes the sample LoRAs.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.engine.lora.dtypes import BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

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


@contextmanager
def writing(
    path: Path, specs: Iterable[Spec], metadata: Mapping[str, str]
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """A file being written; the value is the function that appends an array's bytes.

    `specs` must be in `order`, and the arrays come in the same. When the context ends, the file is
    complete and on the disk; if it ends with an error, the file is gone.
    """
    ordered = list(specs)
    beginning = header(ordered, metadata)
    file = open(path, "wb")  # noqa: SIM115 - closed below, before it is removed
    try:
        with file:
            file.write(beginning)
            yield lambda values: _append(file, values)
            if file.tell() != len(beginning) + sum(spec.size for spec in ordered):
                raise ValueError("the tensors written aren't those that the header announces")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _append(file: BinaryIO, values: NDArray[Any]) -> None:
    file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
