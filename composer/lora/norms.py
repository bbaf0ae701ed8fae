"""The scales of norms that some files bring along: new values, not changes of the old ones.

They take the place of the base model's, whatever the scale of the part. `layout` collects them,
`composition` copies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from composer.lora.factors import read
from composer.lora.format_error import LoraFormatError, Naming

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from composer.lora.container import Source, Tensor
    from composer.lora.output_formats import Form
    from composer.lora.terms import Opened


@dataclass(frozen=True, slots=True)
class Norm:
    """The scale of a norm in an open file."""

    source: Source
    path: Path
    tensor: Tensor

    def values(self) -> NDArray[np.float32]:
        """(128,); raises `BadLora` for values that aren't finite."""
        with Naming(self.path):
            return read(self.source, self.tensor).astype(np.float32)


def norms(parts: Iterable[Opened], form: Form) -> dict[str, Norm]:
    """By key of the form, those of these parts.

    Raises `BadLora` where two parts bring different ones, or the form can't hold any.
    """
    found: dict[str, Norm] = {}
    for part in parts:
        for key, norm in _of(part, form).items():
            if not np.array_equal(found.setdefault(key, norm).values(), norm.values()):
                other = f"brings another {norm.tensor.name} than {found[key].path.name}"
                raise LoraFormatError(other).of(part.lora.path)
    return found


def _of(part: Opened, form: Form) -> dict[str, Norm]:
    path, brought = part.lora.path, part.lora.norms
    if brought and form.norm is None:
        raise LoraFormatError(
            f"brings scales of norms, which the {form.name} form can't hold",
            hint="compose it in diffusers' form",
        ).of(path)
    key = form.norm or ""
    return {key.format(name): Norm(part.source, path, tensor) for name, tensor in brought.items()}
