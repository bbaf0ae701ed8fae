"""What is known of inspected LoRAs: what each file is and says of itself, and the mix of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.lora.verdicts import headline, verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.lora.mix import Mix
    from composer.lora.verdicts import Verdict


T5_PART = "T5"  # the kind of layer that only kohya's form holds


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A LoRA that a result was composed of, as the result says."""

    label: str
    scale: float


@dataclass(frozen=True, slots=True)
class LoraInfo:
    """A LoRA file: its form, and what its maker noted. All texts are a stranger's.

    `modules`: kind of layer -> how many are changed. `norms` and `biases` are how many scales of
    norms it brings, and of how many layers it changes the bias. `notes`: label and text, in the
    order to show them. `made_of` and `kept` (group of layers -> share of its norm) are those of a
    result of ours.
    """

    file: str
    format: str
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    dtypes: tuple[str, ...]
    modules: Mapping[str, int]
    norms: int = 0
    biases: int = 0
    triggers: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()  # with how often each occurs, the commonest first
    notes: tuple[tuple[str, str], ...] = ()
    made_of: tuple[Ingredient, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A recipe (or files that were named together): its LoRAs, in the order of the mix."""

    title: str
    source: str  # the recipe's path; empty for files
    portraits: tuple[LoraInfo, ...]
    mix: Mix

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return verdicts(self.mix)

    @property
    def headline(self) -> str | None:
        """The verdict in one line, as a plan shows it."""
        return headline(self.mix)
