"""What previews show, and how their images are made: as `compose.toml` says it.

It is apart from cells so that `compose validate` starts without what makes their digests.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """How an image is made, whatever it shows: pixels, steps of the sampler, guidance."""

    width: int = 1104
    height: int = 832
    steps: int = 28
    guidance: float = 3.5


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """The table `[previews]` of `compose.toml`."""

    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (7,)
    look: Look = Look()
    base_model: str | None = None


NO_PREVIEW_SETTINGS = PreviewSettings()
