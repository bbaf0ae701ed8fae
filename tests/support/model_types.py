"""The types of FLUX.1's models, which most tests are about."""

from __future__ import annotations

from composer.lora import families

FLUX = families.default().types
TYPES = (FLUX,)
COMPOSITION, LORA = FLUX.composition, FLUX.lora
COMPOSITION_TYPES = frozenset({COMPOSITION})
