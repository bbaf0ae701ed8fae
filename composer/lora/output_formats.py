"""The two forms of a result: diffusers' names, which load everywhere, and kohya's, on request.

A form says which layers a file of its kind has, how they are spelled, and which module lies where
in them. `terms` and `layout` follow it; nobody else needs to know the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.encoders import CLIP_MODULES, T5_MODULES
from composer.lora.modules import BY_BFL, BY_PATH, alone

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
    its rank as alpha. `whole_clip`: a part for CLIP comes with all of CLIP's layers.
    """

    name: str
    places: tuple[Place, ...]
    down: str
    up: str
    bias: str
    norm: str | None
    one_alpha: bool
    whole_clip: bool
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
            "ss_base_model_version": "flux1",
            "ss_network_module": self.network,
            "ss_network_dim": dimension,
            "ss_network_alpha": dimension,
        }


# diffusers loads a text encoder's LoRA rightly only where all of its layers are there, and has no
# slot for T5.
DIFFUSERS = Form(
    "diffusers",
    (
        *(Place(f"transformer.{path}", site) for path, site in BY_PATH.items()),
        *(Place(module.path, alone(module)) for module in CLIP_MODULES),
    ),
    down=".lora_A.weight",
    up=".lora_B.weight",
    bias=".lora_B.bias",
    norm="transformer.{}.weight",
    one_alpha=True,
    whole_clip=True,
)
KOHYA = Form(
    "kohya",
    tuple(
        Place(prefix + name.replace(".", "_"), site)
        for prefix, sites in (
            ("lora_unet_", BY_BFL),
            ("lora_te1_", {module.bfl: alone(module) for module in CLIP_MODULES}),
            ("lora_te3_", {module.bfl: alone(module) for module in T5_MODULES}),
        )
        for name, site in sites.items()
    ),
    down=".lora_down.weight",
    up=".lora_up.weight",
    bias=".diff_b",
    norm=None,
    one_alpha=False,
    whole_clip=False,
    network="networks.lora_flux",
)
FORMS: Mapping[str, Form] = {form.name: form for form in (DIFFUSERS, KOHYA)}
