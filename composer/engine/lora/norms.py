"""The scales of norms that some files bring along: new values, not changes of the old ones.

They take the place of the base model's, whatever the scale of the part. `layout` collects them,
`composition` copies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from composer.engine.lora.factors import read
from composer.engine.lora.flaw import Flaw, Naming
from composer.engine.lora.terms import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

    from composer.engine.lora.container import Source, Tensor
    from composer.engine.lora.forms import Form
    from composer.engine.lora.reading import LoraFile


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


def norms(parts: Sequence[tuple[LoraFile, float]], form: Form, stack: ExitStack) -> dict[str, Norm]:
    """By key of the form, those of the parts whose scale isn't 0.

    Raises `BadLora` where two parts bring different ones, or the form can't hold any.
    """
    found: dict[str, Norm] = {}
    for lora, scale in parts:
        if scale and lora.norms:
            for key, norm in _of(lora, form, stack).items():
                if not np.array_equal(found.setdefault(key, norm).values(), norm.values()):
                    other = f"brings another {norm.tensor.name} than {found[key].path.name}"
                    raise Flaw(other).of(lora.path)
    return found


def _of(lora: LoraFile, form: Form, stack: ExitStack) -> dict[str, Norm]:
    if form.norm is None:
        raise Flaw(
            f"brings scales of norms, which the {form.name} form can't hold",
            hint="compose it in diffusers' form",
        ).of(lora.path)
    source = opened(lora, stack)
    return {
        form.norm.format(path): Norm(source, lora.path, tensor)
        for path, tensor in lora.norms.items()
    }
