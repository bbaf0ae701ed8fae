"""LoRA files as adapters in a model of a pipeline, each loaded once.

diffusers reads some formats of LoRA files rightly, leaves parts of others out without a word, and
takes some for another strength. So every file is also converted by compose's own engine, as a merge
of one file at scale 1, and what diffusers has loaded is compared with that, layer by layer: where
its own reading is right, it stays, and images are those of diffusers bit for bit; else the
converted file is loaded in its place.
"""

from __future__ import annotations

import logging
import tempfile
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.errors import BadLora, TargetError
from composer.lora.composition import compose
from composer.lora.dtypes import F16, F32, F64
from composer.renderers.runtime import quiet
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.lora.fingerprint import Part
    from composer.renderers.runtime import Runtime

log = logging.getLogger(__name__)

TRANSFORMER, TEXT_ENCODER = "transformer", "text_encoder"
MOST_BYTES = 4 * 1024**3  # of the LoRAs that are kept loaded
_DOWN, _UP, _BIAS, _ALPHA = ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".alpha"
# The largest difference of what two readings of a file do, by the type of its weights: diffusers
# multiplies kohya's weights by their strength, and rounds the product to that type.
_TOLERANCE = {F64: 1e-5, F32: 1e-5, F16: 4e-3}
_ROUGH = 3e-2


@dataclass(frozen=True)
class Change:
    """What a LoRA does to one layer: alpha / rank * up @ down, and so much of a bias."""

    down: Any
    up: Any
    factor: float
    bias: Any = None

    def probe(self, torch: Any) -> Any:
        """What it adds to the output for one fixed input, in float64."""
        random = torch.Generator().manual_seed(self.down.shape[1])
        given = torch.randn(self.down.shape[1], generator=random, dtype=torch.float64)
        found = self.up.cpu().double() @ (self.down.cpu().double() @ given)
        bias = 0.0 if self.bias is None else self.bias.cpu().double()
        return self.factor * (found + bias)


@dataclass
class Adapters:
    """The LoRAs in one model of a pipeline. The one used longest ago leaves where memory ends."""

    pipeline: Any
    component: str
    runtime: Runtime
    _sizes: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def use(self, mix: Sequence[Part]) -> None:
        """From now on the model has these LoRAs at their scales, in this order, and no others.

        Raises `BadLora` for one that this model can't show, and `TargetError`.
        """
        mine = [part for part in mix if _changes(part, self.component)]
        for part in mine:
            self._ensure(part, {other.id for other in mine})
        with quiet():
            if mine:
                self.pipeline.enable_lora()
                self.pipeline.set_adapters([_name(p) for p in mine], [p.scale for p in mine])
            elif self._sizes:
                self.pipeline.disable_lora()

    def _ensure(self, part: Part, needed: set[str]) -> None:
        if part.id in self._sizes:
            self._sizes.move_to_end(part.id)
            return
        size = part.file.path.stat().st_size
        for other in [*self._sizes]:
            if sum(self._sizes.values()) + size > MOST_BYTES and other not in needed:
                self._remove(other)
        load_checked(self, part)
        self._sizes[part.id] = size

    def _remove(self, id: str) -> None:
        with quiet():
            self.pipeline.delete_adapters([_name_of(id)])
        del self._sizes[id]

    # --- what is loaded ------------------------------------------------------------------

    @property
    def model(self) -> Any:
        return getattr(self.pipeline, self.component)

    def load(self, path: Path, name: str) -> None:
        """Let diffusers load this file. Raises whatever it raises."""
        state, alphas, metadata = self.pipeline.lora_state_dict(
            str(path),
            return_alphas=True,
            return_lora_metadata=True,
            use_safetensors=True,
            local_files_only=True,
        )
        load = getattr(self.pipeline, f"load_lora_into_{self.component}")
        options = {"adapter_name": name, "metadata": metadata, "low_cpu_mem_usage": True}
        load(state, alphas, self.model, **options, _pipeline=self.pipeline)

    def unload(self, name: str) -> None:
        """Take out what is left of an adapter, if anything is."""
        with suppress(Exception):  # of an adapter that was never there
            self.pipeline.delete_adapters([name])
        getattr(self.model, "peft_config", {}).pop(name, None)

    def layer(self, path: str) -> Any:
        """The layer of this path, None if the model has none. CLIP's were called otherwise."""
        for name in (path, path.removeprefix("text_model.")):
            with suppress(AttributeError):
                return self.model.get_submodule(name)
        return None

    def loaded(self, name: str) -> dict[str, Change]:
        """What the adapter does now, by the names of the layers in the model."""
        changes = {}
        for path, layer in self.model.named_modules():
            if name in getattr(layer, "lora_A", ()):
                up = layer.lora_B[name]
                factor = float(layer.scaling[name])
                changes[path] = Change(layer.lora_A[name].weight, up.weight, factor, up.bias)
        return changes


def _name(part: Part) -> str:
    return _name_of(part.id)


def _name_of(id: str) -> str:
    return f"compose_{id}"


def _changes(part: Part, component: str) -> bool:
    """Whether this LoRA has weights for the component."""
    encoders = {
        bool(piece.module.encoder) for one in part.file.adapters for piece in one.layer.parts
    }
    return (component == TEXT_ENCODER) in encoders


def changes_encoder(part: Part) -> bool:
    """Whether the LoRA changes how a prompt is read."""
    return _changes(part, TEXT_ENCODER)


# --- loading, and checking what was loaded -----------------------------------------------


def load_checked(adapters: Adapters, part: Part) -> None:
    """Load the LoRA so that it does what its file says. Raises `BadLora` and `TargetError`."""
    if part.file.for_variant:
        raise BadLora(
            f"{_shown(part)} is made for a variant of FLUX.1 that also takes an image",
            hint="leave it out of previews on this machine",
        )
    with tempfile.TemporaryDirectory(prefix="compose-") as folder, quiet():
        converted = Path(folder) / "lora.safetensors"
        compose([(part.file, 1.0)], converted, metadata={}, format="diffusers")
        wanted = _wanted(adapters, part, converted)
        for path in (part.file.path, converted):
            if _loads(adapters, path, _name(part), wanted, _tolerance(part)):
                part.fingerprint.check_unchanged()
                return
    raise TargetError(
        f"diffusers {adapters.runtime.diffusers.__version__} does not load {_shown(part)}"
        " as its file says",
        hint="try other versions of diffusers and peft",
    )


def _shown(part: Part) -> str:
    return visible(part.file.path.name)


def _tolerance(part: Part) -> float:
    return max(_TOLERANCE.get(dtype, _ROUGH) for dtype in part.file.dtypes)


def _wanted(adapters: Adapters, part: Part, converted: Path) -> dict[str, Change]:
    """What the LoRA does to the layers that the model has. Raises `BadLora` if that is nothing."""
    tensors = import_module("safetensors.torch").load_file(converted)
    changes = _in_file(tensors, f"{adapters.component}.")
    layers = {path: adapters.layer(path) for path in changes}
    there = {path: change for path, change in changes.items() if _fits(layers[path], change)}
    if not there:
        raise BadLora(f"{_shown(part)} changes no layer that the base model has")
    if missing := len(changes) - len(there):
        log.warning(
            "%s changes %s that the base model does not have: left out",
            _shown(part),
            counted(missing, "layer"),
        )
    return there


def _in_file(tensors: Mapping[str, Any], prefix: str) -> dict[str, Change]:
    """The changes in a file that the engine wrote, by the path of the layer."""
    changes = {}
    for key, down in tensors.items():
        stem = key.removesuffix(_DOWN)
        if stem == key or not key.startswith(prefix):
            continue
        alpha = float(tensors.get(stem + _ALPHA, down.shape[0]))
        changes[stem.removeprefix(prefix)] = Change(
            down, tensors[stem + _UP], alpha / down.shape[0], tensors.get(stem + _BIAS)
        )
    return changes


def _fits(layer: Any, change: Change) -> bool:
    """Whether the model's layer has the rows and columns of the change."""
    linear = getattr(layer, "base_layer", layer)
    shape = getattr(linear, "out_features", 0), getattr(linear, "in_features", 0)
    return shape == (change.up.shape[0], change.down.shape[1])


def _loads(
    adapters: Adapters, path: Path, name: str, wanted: Mapping[str, Change], tolerance: float
) -> bool:
    """Whether diffusers loads the file as it should; if not, nothing of it stays."""
    try:
        adapters.load(path, name)
        if _agree(adapters, name, wanted, tolerance):
            return True
        log.info("diffusers reads %s otherwise than its file says", visible(path.name))
    except Exception as error:  # there are many ways not to like a file
        if isinstance(error, MemoryError | adapters.runtime.torch.OutOfMemoryError):
            adapters.unload(name)
            raise
        log.info("diffusers does not load %s: %s", visible(path.name), error)
    adapters.unload(name)
    return False


def _agree(adapters: Adapters, name: str, wanted: Mapping[str, Change], tolerance: float) -> bool:
    """Whether the adapter does what is wanted to the layers that are wanted, and to no others."""
    loaded, torch = adapters.loaded(name), adapters.runtime.torch
    for path, change in wanted.items():
        there = loaded.pop(path, None) or loaded.pop(path.removeprefix("text_model."), None)
        if there is None:
            return False
        expected = change.probe(torch)
        if not (there.probe(torch) - expected).norm() <= tolerance * expected.norm():
            return False
    return not any(change.probe(torch).any() for change in loaded.values())
