"""PEFT's configuration of a LoRA, where it and not an `.alpha` key says how strong it is.

Newer diffusers saves it as JSON in the file's metadata, PEFT itself as a file beside the weights,
which are often renamed. `reading` collects it, `adapters` asks for the factor of each module.
Meaning as in peft's `LoraConfig`, `LoHaConfig` and `LoKrConfig`, `get_pattern_key`, and
`update_layer` of their layers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.lora.errors import LoraFormatError, shown
from composer.lora.peft_files import (
    APART,
    CONFIG_LIMIT,
    PEFT_CONFIG,
    PEFT_PREFIXES,
    read_peft_config,
)
from composer.lora.untrusted_json import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from composer.lora.families import Family

KEY = "lora_adapter_metadata"

_TRANSFORMER = "transformer."
MOST = 1e9  # that an alpha or a rank may be
# PEFT's type -> what `Delta.kind` calls it, and the name of alpha.
_TYPES = {"LORA": ("LoRA", "lora_alpha"), "LOHA": ("LoHa", "alpha"), "LOKR": ("LoKr", "alpha")}

_PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+")
# A pattern is untrusted: only what can't make matching slow.
_REGEX = re.compile(r"[A-Za-z0-9_.^$\\|()+*?]{1,200}")
_QUANTIFIERS = 2
_REGEXES = 8


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What the configuration says about one model: the transformer, or a text encoder."""

    where: str  # for messages
    rank: int
    alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    kind: str | None = None  # LoRA, LoHa or LoKr; None where it does not say
    base_models: tuple[str, ...] = ()  # the names and classes that it gives the base model
    targets: tuple[str, ...] = ()  # the names of layers, or their ends; none: any layer

    @classmethod
    def of(cls, raw: Mapping[str, object], where: str) -> AdapterConfig:
        """The configuration in this JSON, with PEFT's defaults. Raises `LoraFormatError`."""
        if raw.get("use_dora"):
            raise LoraFormatError("is a DoRA, which needs the base model's weights to compose")
        type = str(raw.get("peft_type", ""))
        if type and type not in _TYPES:
            raise LoraFormatError(
                f"is a {shown(type)}, says its {where}: only LoRA, LoHa and LoKr are read"
            )
        kind, alpha = _TYPES.get(type, (None, "alpha" if "alpha" in raw else "lora_alpha"))
        if kind is None and "alpha" in raw and "lora_alpha" in raw:
            raise LoraFormatError(f"has lora_alpha and alpha in its {where}: which one counts?")
        return cls(
            where=where,
            rank=_whole("r", raw.get("r", 8), where),
            alpha=_number(alpha, raw.get(alpha, 8), where),
            rank_pattern=_pattern("rank_pattern", raw.get("rank_pattern"), where),
            alpha_pattern=_pattern("alpha_pattern", raw.get("alpha_pattern"), where),
            rslora=bool(raw.get("use_rslora")),
            kind=kind,
            base_models=tuple(_base_models(raw)),
        )

    def alpha_and_factor(self, *names: str) -> tuple[float, float]:
        """Those of the layer with these names, the first of which that a pattern hits counts.

        Raises `LoraFormatError`.
        """
        rank, alpha = self.rank_of(*names), _first(self.alpha_pattern, names, self.alpha)
        if rank < 1:
            raise LoraFormatError(f"is broken: its {self.where} says rank {rank:g} at {names[0]}")
        return alpha, alpha / (math.sqrt(rank) if self.rslora else rank)

    def rank_of(self, *names: str) -> float:
        """The rank of that layer."""
        return _first(self.rank_pattern, names, self.rank)

    def check_fits(self, name: str, kind: str, rank: int | None) -> None:
        """Raise `LoraFormatError` unless this may be the configuration of that layer's LoRA, of
        this kind and rank (None for a LoKr whose two matrices are whole)."""
        hint = APART if self.where == PEFT_CONFIG else None
        if self.kind not in (None, kind):
            raise LoraFormatError(
                f"has a {kind} at {name}, where its {self.where} says {self.kind}", hint=hint
            )
        if self.targets and not any(f".{name}".endswith(f".{target}") for target in self.targets):
            raise LoraFormatError(
                f"changes {name}, which target_modules in its {self.where} does not name", hint=hint
            )
        expected = self.rank_of(name)
        if rank not in (None, expected):
            raise LoraFormatError(
                f"has rank {rank} at {name}, where its {self.where} says {expected:g}", hint=hint
            )


@dataclass(frozen=True, slots=True)
class Configs:
    """The configurations of a file, by the prefix of the keys that each is about; mostly there is
    none. `covered` are all prefixes that there could be one for."""

    by_prefix: Mapping[str, AdapterConfig] = field(default_factory=dict)
    covered: tuple[str, ...] = ()

    @classmethod
    def of(cls, family: Family, metadata: Mapping[str, str]) -> Configs:
        """Those in a file's metadata. Raises `LoraFormatError`."""
        raw = _object(metadata.get(KEY, "{}").encode("utf-8"), KEY)
        configs = {}
        for prefix in family.files.peft_prefixes:
            entries = {key.removeprefix(prefix): raw[key] for key in raw if key.startswith(prefix)}
            if entries:
                configs[prefix] = AdapterConfig.of(entries, KEY)
        if "r" not in raw:
            return cls(configs, family.files.peft_prefixes)
        # Of one model saved alone, the keys are the bare names of layers.
        bare = {m.path.partition(".")[0] for m in family.files.modules if m.encoder is None}
        alone = AdapterConfig.of(raw, KEY)
        by_prefix = {_TRANSFORMER: alone, **configs, "": alone}
        return cls(by_prefix, (*family.files.peft_prefixes, *bare))

    @classmethod
    def beside(cls, path: Path, root: Path | None) -> Configs:
        """The one that PEFT saved beside its weights; none where `path` has others' keys."""
        raw = read_peft_config(path, root)
        if raw is None:
            return cls()
        if len(raw) > CONFIG_LIMIT:
            raise LoraFormatError(f"has an {PEFT_CONFIG} of more than {CONFIG_LIMIT:,} bytes")
        said = _object(raw, PEFT_CONFIG)
        config = replace(AdapterConfig.of(said, PEFT_CONFIG), targets=tuple(_targets(said)))
        return cls(dict.fromkeys(PEFT_PREFIXES, config), PEFT_PREFIXES)

    def base_models(self) -> Iterator[tuple[str, str]]:
        """Where a base model is named, and its name."""
        for config in self.by_prefix.values():
            yield from ((config.where, name) for name in config.base_models)

    def check(self, key_prefixes: Sequence[str]) -> None:
        """Raise `LoraFormatError` if one of these, which have no `.alpha`, is not covered."""
        others = [prefix for prefix in key_prefixes if not prefix.startswith(self.covered)]
        if self.by_prefix and others:
            where = next(iter(self.by_prefix.values())).where
            raise LoraFormatError(f"has {where}, but also {others[0]}, which it does not cover")

    def alpha_and_factor(
        self, key_prefix: str, kind: str, rank: int | None
    ) -> tuple[float | None, float]:
        """Those of the LoRA with this prefix, of this kind and rank.

        The factor is 1 where nothing is said, as in every loader, whatever `ss_network_alpha` says.
        PEFT divides alpha by the configured rank also where a LoKr's two matrices are whole.
        """
        config, name = self._entry(key_prefix)
        if config is None:
            return None, 1.0
        config.check_fits(name, kind, rank)
        return config.alpha_and_factor(name)

    def check_agrees(
        self, key_prefix: str, paths: Sequence[str], factor: float, tolerance: float
    ) -> None:
        """Raise `LoraFormatError` where the LoRA's own `.alpha` gives another factor than a
        configuration does; `paths` are the modules in it, which a pattern may name instead."""
        own, name = self._entry(key_prefix)
        for path in paths:
            other, module = self._entry(path)
            config = own or other
            if config is None:
                return
            _, said = config.alpha_and_factor(name, module.removeprefix(_TRANSFORMER))
            if not math.isclose(factor, said, rel_tol=tolerance):
                place = key_prefix if len(paths) == 1 else f"{key_prefix} ({module})"
                raise LoraFormatError(
                    f"has both .alpha keys and {config.where}, which disagree at {place}:"
                    f" factors {factor:g} and {said:g}",
                    hint=APART if config.where == PEFT_CONFIG else None,
                )

    def _entry(self, key_prefix: str) -> tuple[AdapterConfig | None, str]:
        """The configuration that speaks of this LoRA, and its name there."""
        for prefix, config in self.by_prefix.items():
            if key_prefix.startswith(prefix):
                return config, key_prefix.removeprefix(prefix)
        return None, key_prefix


def _targets(raw: Mapping[str, object]) -> Iterator[str]:
    """The names in `target_modules`; none where it is an expression, or all layers."""
    targets = raw.get("target_modules")
    if isinstance(targets, list):
        yield from (name for name in targets if isinstance(name, str))


def _object(raw: bytes, what: str) -> Mapping[str, object]:
    parsed = strict_json(raw, what)
    if not isinstance(parsed, dict):
        raise LoraFormatError(f"is broken: its {what} is not a JSON object")
    return parsed


def _base_models(raw: Mapping[str, object]) -> Iterator[str]:
    mapping = raw.get("auto_mapping")
    class_name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    for name in (raw.get("base_model_name_or_path"), class_name):
        if isinstance(name, str):
            yield name


def _number(name: str, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MOST:
        raise LoraFormatError(f"is broken: {name} in its {where} is not a usable number")
    return value


def _whole(name: str, value: object, where: str) -> int:
    number = _number(name, value, where)
    if number != int(number):
        raise LoraFormatError(f"is broken: {name} in its {where} is {number:g}, not a whole number")
    return int(number)


def _pattern(name: str, raw: object, where: str) -> Mapping[str, float]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise LoraFormatError(f"is broken: {name} in its {where} is not a JSON object")
    _safe(raw, where)
    return {key: _number(name, value, where) for key, value in raw.items()}


def _safe(patterns: Iterable[str], where: str) -> None:
    """Refuse patterns that might take long to match, or that aren't regular expressions."""
    regexes = [key for key in patterns if not _PLAIN.fullmatch(key)]
    for key in regexes:
        slow = sum(map(key.count, "+*?")) > _QUANTIFIERS or re.search(r"\)[+*?]", key)
        if slow or not _REGEX.fullmatch(key) or len(regexes) > _REGEXES:
            raise LoraFormatError(f"has a pattern in its {where} that is too complex: {shown(key)}")
        try:
            re.compile(key)
        except re.error:
            raise LoraFormatError(f"has an invalid pattern in its {where}: {shown(key)}") from None


def _first(patterns: Mapping[str, float], names: Sequence[str], default: float) -> float:
    """The value of the first pattern that hits, as peft's `get_pattern_key` finds it."""
    hits = (value for name in names for key, value in patterns.items() if _hits(key, name))
    return next(hits, default)


def _hits(key: str, name: str) -> bool:
    """peft's test is `(.*\\.)?(KEY)$`; nearly all keys are plain names, tested without it."""
    if not _PLAIN.fullmatch(key):
        return re.match(rf"(.*\.)?({key})$", name) is not None
    return name == key.removeprefix("^") or (key[0] != "^" and name.endswith("." + key))
