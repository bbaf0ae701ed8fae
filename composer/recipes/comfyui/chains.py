"""Which LoRA loaders of a workflow change one and the same model: each such chain is a mix.

A workflow may sample with several models, for two stages of a video or to compare two styles. From
the last loader of a chain the way leads back through everything that passes a model on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from composer.recipes.comfyui.graph import NotAWorkflow
from composer.recipes.comfyui.nodes import is_loader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.recipes.comfyui.graph import Node

MOST_LOADERS = 100
# Inputs that bring a model; where a node has none of them, as a switch, all of its inputs count.
_BRINGS_MODEL = re.compile(r"model|unet|lora_?stack|ctx|context|pipe", re.IGNORECASE)


def chains(nodes: Mapping[str, Node]) -> tuple[list[list[Node]], list[Node]]:
    """The active loaders of each chain, the first one first, and those that nothing uses.

    Where no loader is connected to anything, all of them are one chain. Raises `NotAWorkflow` for
    more loaders than anybody has.
    """
    loaders = {id: node for id, node in nodes.items() if is_loader(node) and node.active}
    if len(loaders) > MOST_LOADERS:
        raise NotAWorkflow(f"it has more than {MOST_LOADERS} LoRA loaders")
    sources = _sources(nodes)
    used = _used(nodes, sources)
    ends = [id for id in loaders if id in used]
    if not ends:
        return ([[*loaders.values()]] if loaders else []), []
    found = _longest([[o for o in _before(id, sources) if o in loaders] for id in ends])
    reached = {id for chain in found for id in chain}
    unused = [node for id, node in loaders.items() if id not in reached]
    return [[nodes[id] for id in chain] for chain in found], unused


def _used(nodes: Mapping[str, Node], sources: Mapping[str, list[str]]) -> set[str]:
    """The nodes whose outputs other nodes than loaders use; a bypassed one passes them on."""
    users = (node for node in nodes.values() if node.active and not is_loader(node))
    stack = [link.node for node in users for link in node.links.values()]
    used: set[str] = set()
    seen: set[str] = set()
    while stack:
        id = stack.pop()
        if id in nodes and id not in seen:
            seen.add(id)
            if nodes[id].active:
                used.add(id)
            else:
                stack += sources[id]
    return used


def _longest(found: list[list[str]]) -> list[list[str]]:
    """Without those that are a part of another: of a chain every link may be used, as its CLIP."""
    sets = [frozenset(chain) for chain in found]
    return [
        chain
        for n, (chain, own) in enumerate(zip(found, sets, strict=True))
        if not any(own < other or (own == other and m < n) for m, other in enumerate(sets))
    ]


def _sources(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """For each node the nodes that its model may come from."""
    names = {_widget(node): id for id, node in nodes.items() if node.kind == "SetNode"}
    sources = {}
    for id, node in nodes.items():
        links = node.links
        bringing = [link.node for name, link in links.items() if _BRINGS_MODEL.search(name)]
        sources[id] = bringing or [link.node for link in links.values()]
        if node.kind == "GetNode" and (origin := names.get(_widget(node))):  # a link by name
            sources[id] = [origin]
    return sources


def _widget(node: Node) -> str:
    return str(node.widgets[0]) if node.widgets else ""


def _before(id: str, sources: Mapping[str, list[str]]) -> list[str]:
    """The nodes on the way to this one and itself, each after those that it gets its model from."""
    order: list[str] = []
    seen, stack = {id}, [(id, iter(sources[id]))]
    while stack:
        at, rest = stack[-1]
        following = next((s for s in rest if s in sources and s not in seen), None)
        if following is None:
            order.append(at)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(sources[following])))
    return order
