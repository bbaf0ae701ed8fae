"""The safetensors container: an open file, and its tensors as arrays, read one at a time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.lora.dtypes import NUMPY
from composer.lora.errors import LoraFormatError, shown
from composer.lora.header import Positioned, checked_header, file_state, read_exactly
from composer.lora.opening import opened

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from composer.lora.header import Header, Tensor


class Source:
    """An open safetensors file: its checked header, and its tensors as arrays, for any thread.

    Raises `LoraFormatError` where the file is not a valid safetensors file or can't be read. Once
    all is read that is needed, `check` tells whether it came from the same bytes. `expected` is
    the header that was read before: another one is a `LoraFormatError` too.
    """

    def __init__(self, path: Path, expected: Header | None = None) -> None:
        self._file = opened(path)
        self._bytes = Positioned(self._file)
        try:
            self._file_state = file_state(self._file)
            self.header = checked_header(self._bytes, self._file_state[0], expected)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """A tensor's values, in the file's own type."""
        array = np.empty(tensor.shape, _numpy(tensor))
        self.fill(tensor, array)
        return array

    def rows(self, tensor: Tensor, first: int, last: int) -> NDArray[Any]:
        """The values of the rows from `first` up to `last`, which isn't among them."""
        array = np.empty((last - first, *tensor.shape[1:]), _numpy(tensor))
        self.fill(tensor, array, first)
        return array

    def fill(self, tensor: Tensor, out: NDArray[Any], first: int = 0) -> None:
        """Put rows of a tensor, from `first` on, into an array of its type, in one piece."""
        before = first * prod(tensor.shape[1:]) * out.itemsize
        read_exactly(self._bytes, tensor.start + before, out.reshape(-1).view(np.uint8).data)

    def check(self) -> None:
        """Raise `LoraFormatError` if the file was written to since it was opened."""
        if file_state(self._file) != self._file_state:
            raise LoraFormatError(
                "was changed while it was read",
                hint="run the same command again once it no longer changes",
            )


def _numpy(tensor: Tensor) -> np.dtype[Any]:
    if tensor.dtype not in NUMPY:
        raise LoraFormatError(
            f"has {shown(tensor.name)} as {tensor.dtype}, which this version doesn't read"
        )
    return NUMPY[tensor.dtype]
