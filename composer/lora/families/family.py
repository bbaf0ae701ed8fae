"""What a model family is: one value with all that reading, composing and inspecting must know."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from composer.lora.formats import KeyPrefix, OutputLayer, alone

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from composer.lora.formats import Module, OutputFormat, SourceFormat, TensorRole


@dataclass(frozen=True, eq=False)
class Family:
    """A base model and the LoRAs for it.

    `modules` are in the order of reports, `blocks` the names that they have there. The first of
    `output_formats` is that of compositions. `norm_keys` maps the key of a norm's scale, which has
    `norm_width` numbers, to its path. `encoder_format` is the format whose name is left out where
    a file has another one too. `peft_prefixes` begin the entries of PEFT's configuration.
    `other_models` (what metadata says) and `refusals` (keys) tell why a file can't be used.
    """

    label: str  # for messages
    lora_type: str
    composition_type: str
    base_model: str  # its id on Scenario
    architecture: str  # in the Model Spec
    modules: tuple[Module, ...]
    blocks: tuple[str, ...]
    source_formats: tuple[SourceFormat, ...]
    output_formats: Mapping[str, OutputFormat]
    norm_keys: Mapping[str, str] = field(default_factory=dict)
    norm_width: int = 0
    encoder_format: str | None = None
    peft_prefixes: tuple[str, ...] = ("transformer.",)
    other_models: tuple[tuple[re.Pattern[str], str], ...] = ()
    refusals: tuple[tuple[re.Pattern[str], str], ...] = ()

    @cached_property
    def prefixes(self) -> Mapping[str, tuple[KeyPrefix, Mapping[str, TensorRole]]]:
        """Each spelling of a layer, with the endings of its tensors."""
        return {
            text: (KeyPrefix(format.name, text, layer, self.label), format.suffixes)
            for format in self.source_formats
            for text, layer in format.layers.items()
        }

    @cached_property
    def endings(self) -> tuple[str, ...]:
        return tuple({ending for format in self.source_formats for ending in format.suffixes})

    @property
    def output_format(self) -> OutputFormat:
        """The format of compositions."""
        return next(iter(self.output_formats.values()))

    def named_format(self, name: str | None) -> OutputFormat:
        """The output format of this name, by default that of compositions; else `KeyError`."""
        return self.output_format if name is None else self.output_formats[name]

    @cached_property
    def inspected(self) -> OutputFormat:
        """An output format that holds every module, for reports."""
        output_format = self.output_format
        missing = [module for module in self.modules if module.path not in output_format.by_path()]
        more = (OutputLayer(module.path, alone(module)) for module in missing)
        return replace(output_format, name="inspected", layers=(*output_format.layers, *more))

    def has_key(self, key: str) -> bool:
        """Whether some format of the family spells a tensor like this."""
        return key in self.norm_keys or spelled(self, key) is not None


@lru_cache(maxsize=16384)  # a file's keys are looked up more than once
def spelled(family: Family, key: str) -> tuple[KeyPrefix, TensorRole] | None:
    """What a key means: a layer and a tensor's role, or None if no format has it."""
    for ending in family.endings:
        if key.endswith(ending) and (entry := family.prefixes.get(key.removesuffix(ending))):
            prefix, suffixes = entry
            if ending in suffixes:
                return prefix, suffixes[ending]
    return None
