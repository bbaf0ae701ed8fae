"""How a file stores a LoRA's change of the weights, and the two factors up @ down that it is.

LoRA stores the factors themselves. LoHa and LoKr store less, and are LoRAs all the same: of a
higher rank, but exactly. `adapters` builds these values from a file's keys; `contributions` reads
them. Formulas: LyCORIS, `lycoris/functional/{loha,lokr}.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from composer.lora.dtypes import finite
from composer.lora.errors import LoraFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from composer.lora.container import Source
    from composer.lora.header import Tensor

    Array = NDArray[Any]


class Delta(Protocol):
    """A change of one layer's weights, (outputs, inputs), as a product of `rank` columns and rows.

    All methods read from the open file. Arrays have the file's own type where the values are stored
    as they are, else float64. A value that is not a number makes every result of it one too.
    """

    @property
    def kind(self) -> str:
        """`LoRA`, `LoHa` or `LoKr`."""

    @property
    def rank(self) -> int:
        """Columns of `up`, rows of `down`."""

    @property
    def alpha_rank(self) -> int | None:
        """The rank that alpha is divided by, as in LyCORIS; None if alpha does not count."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The weights that it is stored as: the first has the inputs, the last the outputs."""

    @property
    def downs(self) -> tuple[Tensor, ...]:
        """Those that `down` is made of: deltas of one kind with equal ones have equal `down`s."""

    def down(self, source: Source) -> Array:
        """A, (rank, inputs)."""

    def up(self, source: Source, first: int, last: int) -> Array:
        """Rows `first` up to `last` of B, (last - first, rank)."""

    def dense(self, source: Source, first: int, last: int) -> Array:
        """The same rows of the product, (last - first, inputs), in float64."""


def read_finite(source: Source, tensor: Tensor, first: int = 0, last: int | None = None) -> Array:
    """Rows of a tensor, all by default; raises `LoraFormatError` if they aren't finite."""
    values = source.rows(tensor, first, tensor.shape[0] if last is None else last)
    if not finite(values):
        check_finite(source, tensor)
    return values


CHUNK = 1 << 22  # values that are checked at a time


def check_finite(source: Source, tensor: Tensor) -> None:
    """Raise `LoraFormatError` if a value is not finite, or the file changed."""
    count = tensor.shape[0] if tensor.shape else 1
    rows = max(1, CHUNK // max(1, prod(tensor.shape[1:])))
    starts = range(0, count, rows) if tensor.shape else ()
    whole = all(finite(source.rows(tensor, n, min(n + rows, count))) for n in starts)
    source.check()
    if not whole:
        raise LoraFormatError(f"{tensor.name} holds values that are not finite (NaN or infinity)")


def _wide(source: Source, tensor: Tensor) -> NDArray[np.float64]:
    return source.array(tensor).astype(np.float64)


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA as such: B @ A."""

    a: Tensor
    b: Tensor

    kind = "LoRA"

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def alpha_rank(self) -> int:
        return self.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.a, self.b

    @property
    def downs(self) -> tuple[Tensor, ...]:
        return (self.a,)

    def down(self, source: Source) -> Array:
        return source.array(self.a)

    def up(self, source: Source, first: int, last: int) -> Array:
        return source.rows(self.b, first, last)

    def dense(self, source: Source, first: int, last: int) -> Array:
        return self.up(source, first, last).astype(np.float64) @ _wide(source, self.a)


@dataclass(frozen=True, slots=True)
class Hadamard:
    """LoHa: (w1a @ w1b) * (w2a @ w2b) by elements, which is a LoRA of the two ranks' product.

    Column (p, q) of B is column p of w1a times column q of w2a; row (p, q) of A likewise.
    """

    w1a: Tensor
    w1b: Tensor
    w2a: Tensor
    w2b: Tensor

    kind = "LoHa"

    @property
    def rank(self) -> int:
        return self.w1b.shape[0] * self.w2b.shape[0]

    @property
    def alpha_rank(self) -> int:
        return self.w1b.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.w1a.shape[0], self.w1b.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.w1b, self.w2b, self.w2a, self.w1a

    @property
    def downs(self) -> tuple[Tensor, ...]:
        return self.w1b, self.w2b

    def down(self, source: Source) -> Array:
        first, second = _wide(source, self.w1b), _wide(source, self.w2b)
        return (first[:, None, :] * second[None, :, :]).reshape(self.rank, -1)

    def up(self, source: Source, first: int, last: int) -> Array:
        one, two = (
            source.rows(tensor, first, last).astype(np.float64) for tensor in (self.w1a, self.w2a)
        )
        return (one[:, :, None] * two[:, None, :]).reshape(last - first, -1)

    def dense(self, source: Source, first: int, last: int) -> Array:
        one, two = (
            source.rows(a, first, last).astype(np.float64) @ _wide(source, b)
            for a, b in ((self.w1a, self.w1b), (self.w2a, self.w2b))
        )
        product: Array = one * two
        return product


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a Kronecker product: a matrix, or two whose product it is."""

    whole: Tensor | None
    a: Tensor | None = None
    b: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        if self.whole is not None:
            return self.whole.shape[0], self.whole.shape[1]
        assert self.a is not None and self.b is not None
        return self.a.shape[0], self.b.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in (self.whole, self.a, self.b) if tensor is not None)

    @property
    def rank(self) -> int:
        """The width of its two factors: never more than its shorter side."""
        return min(*self.shape, *((self.b.shape[0],) if self.b is not None else ()))

    def matrix(self, source: Source) -> NDArray[np.float64]:
        if self.whole is not None:
            return _wide(source, self.whole)
        assert self.a is not None and self.b is not None
        product: NDArray[np.float64] = _wide(source, self.a) @ _wide(source, self.b)
        return product

    def factors(self, source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Left and right, whose product it is: its own two, or the matrix beside an identity."""
        if self.a is not None and self.b is not None and self.b.shape[0] == self.rank:
            return _wide(source, self.a), _wide(source, self.b)
        matrix, identity = self.matrix(source), np.eye(self.rank)
        return (identity, matrix) if self.shape[0] == self.rank else (matrix, identity)


@dataclass(frozen=True, slots=True)
class Kronecker:
    """LoKr: kron(w1, w2), which is kron(left1, left2) @ kron(right1, right2)."""

    w1: Side
    w2: Side

    kind = "LoKr"

    @property
    def rank(self) -> int:
        return self.w1.rank * self.w2.rank

    @property
    def alpha_rank(self) -> int | None:
        decisive = self.w2.b or self.w1.b
        return decisive.shape[0] if decisive else None

    @property
    def shape(self) -> tuple[int, int]:
        (outputs1, inputs1), (outputs2, inputs2) = self.w1.shape, self.w2.shape
        return outputs1 * outputs2, inputs1 * inputs2

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.w1.tensors + self.w2.tensors

    @property
    def downs(self) -> tuple[Tensor, ...]:
        return self.tensors  # which of them the inputs' side is made of depends on their ranks

    def down(self, source: Source) -> Array:
        return np.kron(self.w1.factors(source)[1], self.w2.factors(source)[1])

    def up(self, source: Source, first: int, last: int) -> Array:
        return _kron_rows(self.w1.factors(source)[0], self.w2.factors(source)[0], first, last)

    def used(self, source: Source, first: int, last: int) -> NDArray[np.bool_]:
        """Which columns of B, (rank,), may have more than zeros in these rows: a few rows of the
        product come of few rows of its first matrix."""
        height = self.w2.shape[0]
        left = self.w1.factors(source)[0][first // height : -(-last // height)]
        return np.repeat((left != 0).any(axis=0), self.w2.rank)

    def dense(self, source: Source, first: int, last: int) -> Array:
        return _kron_rows(self.w1.matrix(source), self.w2.matrix(source), first, last)


def _kron_rows(one: Array, two: Array, first: int, last: int) -> Array:
    """Rows `first` up to `last` of kron(one, two)."""
    rows = np.arange(first, last)
    left, right = one[rows // two.shape[0]], two[rows % two.shape[0]]
    product: Array = left[:, :, None] * right[:, None, :]
    return product.reshape(last - first, -1)
