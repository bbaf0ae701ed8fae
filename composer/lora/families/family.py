"""What a model family is: its types and base model on a target, and the LoRA files for it.

What metadata says that a file is for is untrusted text: a name, or a path on the trainer's machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from composer.lora.formats import BaseModel, FamilyFiles
    from composer.model import ModelTypes


# What may follow a model's name in a path and is none itself: parts of it, and generic names.
_PART = re.compile(
    r"snapshots|blobs|tree|resolve|main|original|transformer|unet|vae|(text_encoder|tokenizer)(_\d)?"
    r"|scheduler|lora|lokr|loha|locon|lycoris|model_index|(diffusion_)?(pytorch_)?model"
    r"([-.](fp16|\d+-of-\d+|safetensors\.index))?|checkpoint-\d+|\d+|(?=[a-f]*\d)[0-9a-f]{7,64}"
)
_FILE = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf|json)$")
_PATH = re.compile(rf"^[~.\\/]|^[a-z]:|\\|{_FILE.pattern}")
SAMPLE_PROMPT = "a knight in a garden"
_CACHED = re.compile(r"^models--.+?--(.+)")  # a folder of Hugging Face's cache


@dataclass(frozen=True, eq=False)
class Family:
    """A base model and the LoRAs for it.

    `load_files` is called when the first file is read: large tables are not built before.
    """

    types: ModelTypes
    training_job: str  # the type of a training's job on Scenario
    base_model: str  # its id on Scenario
    load_files: Callable[[], FamilyFiles]
    usages: Mapping[str, str] = field(default_factory=dict)  # program -> a template to fill in

    @cached_property
    def files(self) -> FamilyFiles:
        """What LoRA files of this family look like."""
        return self.load_files()

    def named_in(self, tag: str) -> BaseModel | None:
        """The model that a tag in metadata names; None if it is not known."""
        for name in names_in(tag):
            for model in self.files.base_models:
                if model.tag.search(name):
                    return model
        return None


def names_in(tag: str) -> tuple[str, ...]:
    """The names that a tag may give a model, the likeliest first: in lower case, with a space for
    each run of characters other than letters and digits.

    Of a path on the trainer's machine it is the last name that is not that of a part of a model,
    for folders may be called anything, and the repository's in Hugging Face's cache. In `Org/Name`
    the organisation counts where the name alone says nothing.
    """
    tag = tag.strip().lower()
    parts = [part for part in re.split(r"[\\/]", tag) if part not in ("", ".")]
    is_path = len(parts) > 2 or bool(_PATH.search(tag))
    cached = [match[1] for part in parts if (match := _CACHED.fullmatch(part))]
    parts = [_CACHED.sub(r"\1", _FILE.sub("", part)) for part in parts]
    named = [part for part in parts if not _PART.fullmatch(part)] or parts
    found = (*named[-1:], *cached[-1:], *(() if is_path else (tag,)))
    return tuple(" ".join(re.findall("[a-z0-9]+", name)) for name in found)
