"""Prompts as a pipeline needs them: embeddings, made by its text encoders or read from a file.

FLUX.1's second text encoder has 9.5 GB. `encode_prompts` writes the embeddings of some prompts to a
file, so that a base model without encoders can show them, on a machine that has no room for those:

    >>> from composer.renderers.prompts import encode_prompts
    >>> encode_prompts("models/FLUX.1-dev", ["a knight in a garden"], "models/FLUX.1-dev-small")
"""

from __future__ import annotations

import gc
import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.errors import TargetError, UsageError
from composer.files.atomic import replacing
from composer.lora.errors import LoraFormatError
from composer.lora.opening import read_metadata
from composer.renderers.adapters import TEXT_ENCODER, Adapters, changes_encoder
from composer.renderers.base_models import (
    EMBEDDINGS,
    ENCODERS,
    encoders_identity,
    find_base_model,
)
from composer.renderers.hash_notes import HashNotes
from composer.renderers.loading import load_pipeline
from composer.renderers.runtime import Runtime, quiet
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from composer.lora.fingerprint import Part
    from composer.renderers.base_models import BaseModel

log = logging.getLogger(__name__)
KEPT = 64  # prompts whose embeddings are kept, each 4 MB in bfloat16
_HINT = "composer.renderers.prompts.encode_prompts adds it (docs/rendering.md)"


@dataclass(frozen=True, slots=True)
class Wording:
    """A prompt, and the LoRAs that change how it is read, with their scales."""

    prompt: str
    loras: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, prompt: str, mix: Iterable[Part]) -> Wording:
        """The prompt as this mix reads it."""
        loras = ((part.id, part.scale) for part in mix if changes_encoder(part))
        return cls(prompt, tuple(loras))


@dataclass(frozen=True, slots=True)
class Embedded:
    """What the transformer is given of a prompt: of each token, and of all of them together."""

    tokens: Any
    pooled: Any


@dataclass
class Embeddings:
    """The embeddings of prompts for one base model, each made once.

    The encoders are in memory only while they work: the transformer needs their room.
    """

    base_model: BaseModel
    runtime: Runtime
    _made: dict[Wording, Embedded] = field(default_factory=dict)

    def missing(self, wordings: Iterable[Wording]) -> list[Wording]:
        """Those that are still to be made."""
        return [wording for wording in wordings if wording not in self._made]

    def make(self, wordings: Mapping[Wording, Sequence[Part]]) -> None:
        """Make those that are missing, each with its mix.

        Raises `TargetError` for a prompt that a model without encoders does not have, `BadLora`
        for a LoRA that the encoder can't have, and `UsageError` for a broken base model.
        """
        missing = self.missing(wordings)
        if len(self._made) + len(missing) > KEPT:
            self._made = {w: made for w, made in self._made.items() if w in wordings}
        if not missing:
            return
        if not self.base_model.has_encoders:
            self._made |= {wording: self._stored(wording) for wording in missing}
            return
        with _encoders(self.base_model, self.runtime) as (pipeline, adapters):
            for wording in missing:
                adapters.use(wordings[wording])
                self._made[wording] = _encode(pipeline, wording.prompt)

    def __getitem__(self, wording: Wording) -> Embedded:
        """Of one that was made."""
        return self._made[wording]

    def _stored(self, wording: Wording) -> Embedded:
        if wording.loras:
            raise TargetError(
                "a LoRA changes the text encoder, and this base model has none",
                hint="use a base model with its text encoders",
            )
        stored = _read(self.base_model.folder / EMBEDDINGS).get(wording.prompt)
        if stored is None:
            words = visible(shorten(wording.prompt, 60))
            raise TargetError(f"{EMBEDDINGS} has no prompt {words!r}", hint=_HINT)
        return stored


@contextmanager
def _encoders(base_model: BaseModel, runtime: Runtime) -> Iterator[tuple[Any, Adapters]]:
    """The pipeline with its text encoders alone."""
    pipeline = load_pipeline(base_model, runtime, ENCODERS)
    adapters = Adapters(pipeline, TEXT_ENCODER, runtime)
    try:
        with runtime.torch.no_grad():
            yield pipeline, adapters
    finally:
        del pipeline, adapters
        gc.collect()
        runtime.free()


def _encode(pipeline: Any, prompt: str) -> Embedded:
    with quiet():  # of a prompt that is longer than CLIP reads
        length = len(pipeline.tokenizer_2(prompt)["input_ids"])
        tokens, pooled, _ = pipeline.encode_prompt(prompt, None)
    if length > tokens.shape[1]:
        start = visible(shorten(prompt, 40))
        log.warning("the model reads %d of the %d tokens of %r", tokens.shape[1], length, start)
    return Embedded(tokens.cpu(), pooled.cpu())


# --- a file of embeddings ----------------------------------------------------------------


def encode_prompts(
    base_model: str | Path, prompts: Iterable[str], folder: str | Path | None = None
) -> Path:
    """Write the embeddings of these prompts beside a pipeline, and give the file's path.

    `base_model` is a folder, or an id in Hugging Face's cache, with text encoders. `folder` is that
    of a pipeline without them, by default the same one. Prompts that the same encoders have put
    into the file before stay there. Raises `UsageError`.
    """
    runtime = Runtime.find()
    model = find_base_model(str(base_model), HashNotes())
    if not model.has_encoders:
        raise UsageError(f"the base model {visible(str(base_model))} has no text encoders")
    path = (Path(folder) if folder else model.folder) / EMBEDDINGS
    made_by = encoders_identity(model, HashNotes())
    embedded = _made_before(path, made_by)
    with _encoders(model, runtime) as (pipeline, _):
        embedded |= {prompt: _encode(pipeline, prompt) for prompt in prompts}
    _write(path, embedded, made_by)
    return path


def _made_before(path: Path, made_by: str) -> dict[str, Embedded]:
    try:
        return _read(path) if read_metadata(path).get("encoders") == made_by else {}
    except (LoraFormatError, UsageError):
        return {}


def _write(path: Path, embedded: Mapping[str, Embedded], made_by: str) -> None:
    tensors = {}
    for number, one in enumerate(embedded.values()):
        tensors[f"{number}.tokens"] = one.tokens.contiguous()
        tensors[f"{number}.pooled"] = one.pooled.contiguous()
    metadata = {"prompts": json.dumps([*embedded]), "encoders": made_by, "format": "pt"}
    with replacing(path) as temporary:
        import_module("safetensors.torch").save_file(tensors, temporary, metadata=metadata)


def _read(path: Path) -> dict[str, Embedded]:
    """The embeddings in a file, by prompt. Raises `UsageError`."""
    try:
        prompts = json.loads(read_metadata(path)["prompts"])
        tensors = import_module("safetensors.torch").load_file(path)
        return {
            prompt: Embedded(tensors[f"{number}.tokens"], tensors[f"{number}.pooled"])
            for number, prompt in enumerate(prompts)
        }
    except Exception as error:  # of safetensors, json, and what a stranger may have put there
        raise UsageError(
            f"{visible(str(path))} can't be read: {visible(str(error))}",
            hint="write it again with composer.renderers.prompts.encode_prompts",
        ) from error
