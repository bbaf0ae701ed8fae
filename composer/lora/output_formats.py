"""The forms that a result can have, as values; each model family has its own.

A form says which layers a file of its kind has, how they are spelled, and which module lies where
in them. `terms` and `layout` follow it; nobody else needs to know the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.lora.modules import Part, TargetLayer


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A layer of a form: the beginning of its keys, and the modules in it. There is one of each."""

    stem: str
    site: TargetLayer


@dataclass(frozen=True, slots=True)
class Form:
    """How a file spells its layers. `norm` is None where it can't hold the scales of norms.

    `one_alpha`: no layer has an alpha, or all have the same one (the rank rule); otherwise each has
    its rank as alpha. `whole_encoder`: a part for this text encoder comes with all of its layers.
    `silent`: the path of the module that a result without any change has, with zeros.
    """

    name: str
    places: tuple[Place, ...]
    down: str
    up: str
    bias: str
    norm: str | None
    one_alpha: bool
    whole_encoder: str | None
    silent: str
    norm_width: int = 0
    implementation: str = "diffusers"  # whose names the keys have, for the Model Spec
    base: str = ""  # sd-scripts' name of the base model
    network: str | None = None  # sd-scripts' name of the module that reads it

    def by_path(self) -> Mapping[str, tuple[Place, Part]]:
        """Where each module lies."""
        return {
            part.module.path: (place, part) for place in self.places for part in place.site.parts
        }

    def metadata(self, ranks: Sequence[int]) -> dict[str, str]:
        """What the form's own tools look for in a file's metadata."""
        if self.network is None:
            return {}
        dimension = str(ranks[0]) if len(ranks) == 1 else "Dynamic"  # as sd-scripts' resize has it
        return {
            "ss_base_model_version": self.base,
            "ss_network_module": self.network,
            "ss_network_dim": dimension,
            "ss_network_alpha": dimension,
        }
