"""The layers of a model that a LoRA can change, as values; each model family lists its own.

A module is one linear layer. Formats spell modules, and may fuse several into one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Module:
    """One linear layer: its path (diffusers' name), and the layer of the model's own code that
    holds it.

    `group` and `block` are what reports call the kind of layer and the block that it is in;
    `encoder` is the text encoder that it belongs to. `wider` are numbers of inputs that it has in
    variants of the model.
    """

    path: str
    native: str
    inputs: int
    outputs: int
    group: str
    block: str
    encoder: str | None = None
    wider: tuple[int, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """How many inputs a LoRA on it may have."""
        return (self.inputs, *self.wider)


@dataclass(frozen=True, slots=True)
class Part:
    """Where a module lies in a site: its first output row, and whether its halves are swapped."""

    module: Module
    start: int = 0
    swapped: bool = False

    @property
    def stop(self) -> int:
        return self.start + self.module.outputs


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """What one LoRA in a file applies to: a module, or several that a format fuses."""

    inputs: int
    outputs: int
    parts: tuple[Part, ...]

    @property
    def fused(self) -> bool:
        return len(self.parts) > 1


def alone(module: Module) -> TargetLayer:
    """The site that is one module."""
    return TargetLayer(module.inputs, module.outputs, (Part(module),))


def fused(modules: Iterable[Module], swapped: str = "") -> dict[str, TargetLayer]:
    """The layers of the model's own code by name, each with the modules that it holds; the halves
    of the module with the path `swapped` change places."""
    layers: dict[str, TargetLayer] = {}
    for module in modules:
        before = layers.get(module.native, TargetLayer(module.inputs, 0, ()))
        part = Part(module, before.outputs, module.path == swapped)
        layers[module.native] = TargetLayer(module.inputs, part.stop, (*before.parts, part))
    return layers
