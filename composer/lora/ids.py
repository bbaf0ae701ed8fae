"""Ids that are derived, never drawn: equal bytes or equal content give an equal id anywhere.

The library names LoRAs with them, the service compositions and jobs. So a lock that was made
on one machine holds on another.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.model import Concept

DIGITS = 22  # base64url digits kept of a sha256: 132 bits


def lora_id(sha256: bytes) -> str:
    """The id of a LoRA file: `model_` + 22 base64url digits of its sha256 (32 bytes)."""
    return "model_" + _short(sha256)


def pair_id(sha256: bytes, config: bytes) -> str:
    """The same for a file that counts together with PEFT's configuration beside it: of both."""
    return lora_id(hashlib.sha256(sha256 + config).digest())


def composition_ids(name: str, concepts: tuple[Concept, ...]) -> Iterator[str]:
    """The ids that a composition may have, the preferred one first; twins take the next.

    `concepts` are in content order. Training parameters have no part in it: they are not known
    yet when a composition is created.
    """
    parts = [[concept.model_id, concept.epoch, concept.scale] for concept in concepts]
    return ("model_" + _short(_sha256([name, parts, counter])) for counter in count())


def is_derived(id: str) -> bool:
    """Whether it has the form of the ids that `lora_id` and `composition_ids` make."""
    return re.fullmatch(rf"model_[A-Za-z0-9_-]{{{DIGITS}}}", id) is not None


def job_id(composition: str) -> str:
    """The id of a composition's training job, the same for every attempt."""
    return "job_" + _short(hashlib.sha256(composition.encode()).digest())


def _sha256(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _short(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()[:DIGITS]
