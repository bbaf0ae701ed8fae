"""The best LoRA of a given rank for a sum of LoRAs, from their factors alone.

By Eckart and Young the best approximation of ΔW of rank r keeps its r largest singular values.
ΔW = B A is never built: its singular vectors come from BᵀB and A Aᵀ, which are small, or, where
their digits don't do, from the QR of each side and the SVD of the core between them (G. W. Stewart,
"Matrix Algorithms" I, 5.4). All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

# Of squares of singular values, which are known to 1e-16 of the largest, or of their sum.
LEAST_KEPT, LEAST_LOST = 1e-10, 1e-8

# Multiplications of LAPACK, for a square matrix whose side is to the power of three: measured.
_EIGH, _SVD = 8, 20
_PRODUCT = 1.5  # what a multiplication costs in a product of matrices, which is held up by memory


@dataclass(frozen=True, slots=True)
class Reduced:
    """A product of lower rank: `up` (outputs, rank) @ `down` (rank, inputs).

    `kept` and `whole` are the squared Frobenius norms of what is left, and of what there was.
    """

    down: Matrix
    up: Matrix
    kept: float
    whole: float


def factors_cost(outputs: int, inputs: int, total: int) -> float:
    """About how many multiplications `reduced` takes."""
    return (outputs + inputs) * total**2 + 2.5 * _EIGH * total**3


def dense_cost(outputs: int, inputs: int, rank: int) -> float:
    """The same of `reduced_dense`."""
    long, short = max(outputs, inputs), min(outputs, inputs)
    return 0 if rank >= short else long * short**2 + _EIGH * short**3


def building_cost(outputs: int, inputs: int, widths: int) -> float:
    """The same of a matrix that is a product, or several, of these widths together."""
    return _PRODUCT * outputs * inputs * widths


def kronecker_cost(sides: Iterable[tuple[int, int]]) -> float:
    """The same of `reduced_kronecker`, for matrices of these shapes."""
    return sum(_SVD * max(shape) * min(shape) ** 2 for shape in sides)


def reduced(down: Matrix, up: Matrix, rank: int) -> Reduced:
    """The best approximation of up @ down with `rank` at most its own; the rows of the new down
    are orthogonal.

    With V, the first right singular vectors, it is (ΔW V) Vᵀ: what V lacks in accuracy counts
    squared.
    """
    return _from_squares(down, up, rank) or _from_factors(down, up, rank)


def _from_squares(down: Matrix, up: Matrix, rank: int) -> Reduced | None:
    """With S of SᵀS = BᵀB, S A has the singular values and right vectors of B A: the eigenvalues
    and vectors of S (A Aᵀ) Sᵀ are theirs squared, and the left ones.

    Five times faster. But a square keeps half the digits: None where the smallest that is kept, or
    all that is lost, comes near to rounding.
    """
    squares, vectors = np.linalg.eigh(up.T @ up)
    root = np.sqrt(squares.clip(0))[:, None] * vectors.T
    core = root @ (down @ down.T) @ root.T
    if not np.isfinite(core).all():
        return None
    squares, left = np.linalg.eigh(core)
    first, rest = squares[::-1][:rank], squares[::-1][rank:]
    kept, whole = float(first.sum()), float(squares.sum())
    if first[-1] <= LEAST_KEPT * first[0] or rest.sum() <= LEAST_LOST * whole:
        return None
    right = down.T @ (root.T @ (left[:, ::-1][:, :rank] / np.sqrt(first)))
    right = _orthonormal(right)
    return _even(right.T, up @ (down @ right), kept, whole)


def _orthonormal(columns: Matrix) -> Matrix:
    """The nearest matrix with orthonormal columns, to one whose columns nearly are."""
    squares, vectors = np.linalg.eigh(columns.T @ columns)
    nearest: Matrix = columns @ ((vectors / np.sqrt(squares)) @ vectors.T)
    return nearest


def _from_factors(down: Matrix, up: Matrix, rank: int) -> Reduced:
    """No division by singular values, so factors that depend on each other do no harm."""
    outer = np.linalg.qr(up, mode="r")
    basis, inner = np.linalg.qr(down.T)
    core = outer @ inner.T
    values, right = _right_singular(core)
    vectors = basis @ right[:, :rank]
    squares = values**2
    kept, whole = float(squares[:rank].sum()), float(squares.sum())
    return _even(vectors.T, up @ (down @ vectors), kept, whole)


def reduced_dense(change: Matrix, rank: int) -> Reduced:
    """The same for a matrix (outputs, inputs), where its factors would be larger than itself;
    with a rank that holds all of it, it comes back as it is, beside an identity."""
    if change.shape[0] < change.shape[1]:
        turned = reduced_dense(change.T, rank)
        return Reduced(turned.up.T, turned.down.T, turned.kept, turned.whole)
    if rank >= change.shape[1]:
        whole = float((change**2).sum())
        return _even(np.eye(rank), change, whole, whole)
    squares, vectors = np.linalg.eigh(change.T @ change)
    first = vectors[:, ::-1][:, :rank]
    up = change @ first
    return _even(first.T, up, float((up**2).sum()), float(squares.sum()))


def reduced_kronecker(one: Matrix, two: Matrix, rank: int) -> Reduced:
    """The same for kron(one, two), which is never built: its SVD is the product of the two SVDs.

    Its singular values are all products of theirs, and its vectors the Kronecker products.
    """
    (left1, values1, right1), (left2, values2, right2) = (
        np.linalg.svd(matrix, full_matrices=False) for matrix in (one, two)
    )
    values = np.outer(values1, values2)
    largest = np.argsort(-values, axis=None, kind="stable")[:rank]
    first, second = np.unravel_index(largest, values.shape)
    chosen = values[first, second]
    up = (left1[:, None, first] * left2[None, :, second]).reshape(-1, rank) * chosen
    down = (right1[first, :, None] * right2[second, None, :]).reshape(rank, -1)
    return _even(down, up, float((chosen**2).sum()), float((values**2).sum()))


def _even(down: Matrix, up: Matrix, kept: float, whole: float) -> Reduced:
    """With rows of down and columns of up about equally long, for float16 loses what is small.

    They are shifted by powers of two, so no digit changes.
    """
    sizes = np.linalg.norm(up, axis=0), np.linalg.norm(down, axis=1)
    up_bits, down_bits = (np.frexp(size)[1] for size in sizes)  # 0 for a size of 0
    shift = (up_bits - down_bits) // 2
    return Reduced(np.ldexp(down, shift[:, None]), np.ldexp(up, -shift), kept, whole)


def _right_singular(core: Matrix) -> tuple[Matrix, Matrix]:
    """Singular values, descending, and right singular vectors as columns."""
    _, values, rows = np.linalg.svd(core, full_matrices=False)
    return values, rows.T
