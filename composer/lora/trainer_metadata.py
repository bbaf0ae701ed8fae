"""What a LoRA's metadata tells an artist: trigger words, tags, and how it was trained.

Trainers write it, so it is a stranger's text, and any of it may be missing or nonsense: what can't
be read is passed over, what is long is cut. Keys: modelspec (Stability AI), `ss_*` (sd-scripts),
`software` and `training_info` (ai-toolkit).
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING

from composer.lora.format_error import LoraFormatError
from composer.lora.inspection_values import Ingredient
from composer.lora.report import KEPT
from composer.lora.result_metadata import trigger_phrase
from composer.lora.strict_json import strict_json
from composer.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Metadata = Mapping[str, str]

LONGEST = 300  # characters of a text
TAGS = 10  # the commonest ones
SCALE_LIMIT = 2.0  # of a concept: -2..2
UNREADABLE = "unreadable"
CONCEPTS = "compose.concepts"  # what a result of ours is made of

# Label -> the keys that may say it, the first one that does counts.
_SAID: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("base model", ("ss_base_model_version", "modelspec.architecture")),
    ("author", ("modelspec.author",)),
    ("description", ("modelspec.description", "ss_training_comment")),
    ("usage", ("modelspec.usage_hint",)),
    ("licence", ("modelspec.license",)),
    ("date", ("modelspec.date",)),
    ("output name", ("ss_output_name", "name")),
    ("images", ("ss_num_train_images",)),
    ("epochs", ("ss_epoch", "ss_num_epochs")),
    ("steps", ("ss_steps", "ss_max_train_steps")),
    ("batch size", ("ss_total_batch_size", "ss_batch_size_per_device")),
    ("learning rate", ("ss_unet_lr", "ss_learning_rate")),
    ("optimizer", ("ss_optimizer",)),
    ("resolution", ("modelspec.resolution", "ss_resolution")),
    ("made with", ("modelspec.implementation",)),
)


def triggers(metadata: Metadata) -> tuple[str, ...]:
    """The words that its maker says call it up."""
    phrase = trigger_phrase(metadata)
    return (_cut(phrase),) if phrase else ()


def tags(metadata: Metadata) -> tuple[tuple[str, int], ...]:
    """The commonest tags of the training images, with how often each occurs, in all folders."""
    counts: Counter[str] = Counter()
    folders = _json(metadata, "ss_tag_frequency")
    for tagged in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tagged.items() if isinstance(tagged, dict) else ():
            if type(count) is int and count > 0 and tag.strip():
                counts[_cut(tag)] += count
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(common[:TAGS])


def notes(metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Label and text of what it says about itself, in the order to show them."""
    found = {
        label: text
        for label, keys in _SAID
        if (text := next(filter(None, (_text(metadata, key) for key in keys)), ""))
    }
    return tuple({**found, **dict(_ai_toolkit(metadata)), **dict(_unreadable(metadata))}.items())


def _ai_toolkit(metadata: Metadata) -> Iterator[tuple[str, str]]:
    info, software = _json(metadata, "training_info"), _json(metadata, "software")
    for label, key in (("epochs", "epoch"), ("steps", "step")):
        if isinstance(info, dict) and isinstance(info.get(key), int):
            yield label, str(info[key])
    if isinstance(software, dict):
        told = [software.get(key) for key in ("name", "version")]
        said = " ".join(part for part in told if isinstance(part, str))
        if said:
            yield "made with", _cut(said)


# --- results of ours ---------------------------------------------------------------------


def made_of(metadata: Metadata) -> tuple[Ingredient, ...]:
    """The LoRAs that a result of ours was composed of, as it says; none for other files."""
    listed = _json(metadata, CONCEPTS)
    found = []
    for item in listed if isinstance(listed, list) else ():
        scale = _number(item.get("scale")) if isinstance(item, dict) else None
        if scale is not None and abs(scale) <= SCALE_LIMIT:
            labels = (item.get(key) for key in ("name", "title", "file", "modelId", "sha256"))
            label = next((label for label in labels if isinstance(label, str) and label), "?")
            found.append(Ingredient(_cut(label), scale))
    return tuple(found)


def kept(metadata: Metadata) -> dict[str, float]:
    """The share of each group's norm that a reduction kept, as the result says."""
    said = _json(metadata, KEPT)
    shares = said.items() if isinstance(said, dict) else ()
    numbers = {_cut(group): _number(share) for group, share in shares}
    return {group: s for group, s in numbers.items() if s is not None and 0 <= s <= 1}


def _unreadable(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """What a result of ours would say, where the file says something that none of them does."""
    for label, key, found in (
        ("made of", CONCEPTS, made_of(metadata)),
        ("kept", KEPT, kept(metadata)),
    ):
        said = _json(metadata, key)
        if key in metadata and (not isinstance(said, list | dict) or len(found) < len(said)):
            yield label, UNREADABLE


# --- a stranger's text -------------------------------------------------------------------


def _text(metadata: Metadata, key: str) -> str:
    """sd-scripts writes what wasn't given as "None"."""
    text = metadata.get(key, "").strip()
    return "" if text in ("None", "null", "{}", "[]") else _cut(text)


def _cut(text: str) -> str:
    return shorten(" ".join(text.split()), LONGEST)


def _json(metadata: Metadata, key: str) -> object:
    """What this JSON says; None where it isn't sound."""
    try:
        return strict_json(metadata.get(key, "null").encode("utf-8", "replace"), key)
    except LoraFormatError:
        return None


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and isfinite(number) else None
