"""The kinds of renderers by name, and choosing one.

To add a built-in kind, give `BUILT_IN` a line with its name and its module, which defines
`KIND = RendererKind(...)` and imports what is large (torch, an HTTP client) only when `KIND.open`
is called: looking for a renderer imports the modules of all of them. A distribution adds a kind
by an entry point of the group `composer.renderers` whose value is a `RendererKind`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.plugins import find_plugin, plugin_names
from composer.renderers.base import RendererKind
from composer.text import did_you_mean

if TYPE_CHECKING:
    from composer.targets.base import Target

GROUP = "composer.renderers"
# Name -> module, in the order in which they are asked whether they can show a target's LoRAs.
BUILT_IN: dict[str, str] = {
    "scenario": "composer.renderers.scenario",
    "diffusers": "composer.renderers.diffusers",
}


def kind_names() -> list[str]:
    """The names of all kinds, built-in ones first."""
    return list(dict.fromkeys([*BUILT_IN, *plugin_names(GROUP)]))


def find_kind(name: str) -> RendererKind:
    """The kind of this name; a built-in one can't be replaced. Raises `UsageError`."""
    if name in BUILT_IN:
        kind = import_module(BUILT_IN[name]).KIND
        assert isinstance(kind, RendererKind)
        return kind
    if other := find_plugin(GROUP, name, RendererKind, "renderer"):
        return other
    near = did_you_mean(name, kind_names())
    hint = f"did you mean {near}?" if near else f"the renderers are {', '.join(kind_names())}"
    raise UsageError(f"unknown renderer {name}", hint=hint)


def choose(target: Target, name: str | None = None) -> RendererKind:
    """The kind of this name, else the first one that can show the LoRAs of this target.

    Raises `UsageError` if the named one can't, or if there is none.
    """
    if name is not None:
        kind = find_kind(name)
        if not kind.renders_for(target):
            raise UsageError(
                f"the renderer {name} can't show the LoRAs of {target.key}", hint=_others(target)
            )
        return kind
    suitable = _suitable(target)
    if not suitable:
        raise UsageError(f"no renderer can show the LoRAs of {target.key}", hint=_others(target))
    return suitable[0]


def _suitable(target: Target) -> list[RendererKind]:
    kinds = (find_kind(name) for name in kind_names())
    return [kind for kind in kinds if kind.renders_for(target)]


def _others(target: Target) -> str:
    names = [kind.name for kind in _suitable(target)]
    return f"use --renderer {' or '.join(names)}" if names else "choose another one: --target"
