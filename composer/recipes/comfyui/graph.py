"""A ComfyUI workflow as nodes: the API's form, and the editor's with its subgraphs unfolded.

The API's form maps ids to nodes, which have their inputs by name. In the editor's, values stand in
the order of a node's widgets, and links in a list; a subgraph is defined once, and each node whose
type is its id is an instance, with values and links of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_NODES = 5_000  # of a workflow; the largest that ComfyUI ships has about two hundred
MOST_LINKS = 20_000
MOST_LEVELS = 20  # of subgraphs in subgraphs
MUTED, BYPASSED = 2, 4  # modes of a node
_INPUTS, _OUTPUTS = "-10", "-20"  # the ids of a subgraph's own ends
_NO_NODE = "-1"  # where an instance lists its widgets: an input of the subgraph, not a node inside
_OWN = object()  # the value is the node's own


class NotAWorkflow(ValueError):
    """What was read is no workflow that compose can read; the message says why."""


@dataclass(frozen=True, slots=True)
class Link:
    """The value comes from another node, by its id."""

    node: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node, of whatever form. Ids in subgraphs are as ComfyUI's API has them: `112:43`.

    `inputs` are values and links by name, `widgets` the values that only have a position.
    `hashes` are the sha256 of model files by name, where the workflow has them.
    """

    id: str
    kind: str
    inputs: Mapping[str, object]
    widgets: tuple[object, ...] = ()
    mode: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.mode not in (MUTED, BYPASSED)

    @property
    def links(self) -> dict[str, Link]:
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}


def unfold(raw: dict[str, Any]) -> dict[str, Node]:
    """The nodes of a workflow by id. Raises `NotAWorkflow`."""
    nodes = _of_editor(raw) if is_editors(raw) else _of_api(raw)
    links = sum(len(node.links) for node in nodes.values())
    if len(nodes) > MOST_NODES or links > MOST_LINKS:
        raise NotAWorkflow(f"it has more than {MOST_NODES:,} nodes or {MOST_LINKS:,} links")
    return nodes


def is_editors(raw: Mapping[str, Any]) -> bool:
    return isinstance(raw.get("nodes"), list)


def is_api(raw: Mapping[str, Any]) -> bool:
    return any(isinstance(node, dict) and "class_type" in node for node in raw.values())


# --- the API's form ----------------------------------------------------------------------


def _of_api(raw: Mapping[str, Any]) -> dict[str, Node]:
    return {
        id: Node(id, _text(node["class_type"]), _api_inputs(node.get("inputs")))
        for id, node in raw.items()
        if isinstance(node, dict) and "class_type" in node
    }


def _api_inputs(raw: object) -> dict[str, object]:
    inputs = raw if isinstance(raw, dict) else {}
    return {name: _api_value(value) for name, value in inputs.items()}


def _api_value(value: object) -> object:
    """A link is a pair of a node's id and the number of its output."""
    if isinstance(value, list) and len(value) == 2 and _key(value[0]) and _key(value[1]):
        return Link(str(value[0]))
    return value


# --- the editor's form -------------------------------------------------------------------


class _Edge(NamedTuple):
    origin: str
    origin_slot: int
    target: str
    target_slot: int


class _Level:
    """One graph: the workflow itself, or an instance of a subgraph, whose node is `host`."""

    def __init__(self, raw: Mapping[str, Any], prefix: str = "", host: _Host | None = None) -> None:
        self.raw, self.prefix, self.host = raw, prefix, host
        self.inside: dict[str, _Level] = {}
        nodes = [node for node in _items(raw.get("nodes")) if _key(node.get("id"))]
        self.nodes = {str(node["id"]): node for node in nodes}

    @cached_property
    def edges(self) -> dict[str, _Edge]:
        """The links by id."""
        raw = self.raw.get("links")
        edges = (_edge(link) for link in (raw if isinstance(raw, list) else ()))
        return dict(edge for edge in edges if edge)

    @cached_property
    def outputs(self) -> dict[int, str]:
        """The link that leads to each of a subgraph's own outputs."""
        return {e.target_slot: id for id, e in self.edges.items() if e.target == _OUTPUTS}

    @cached_property
    def promoted(self) -> list[int]:
        """The subgraph's inputs that set widgets: an instance has a value for each, in order."""
        slots = set()
        for node in self.nodes.values():
            for input in _items(node.get("inputs")):
                edge = self.edges.get(_key(input.get("link")) or "")
                if edge and edge.origin == _INPUTS and input.get("widget"):
                    slots.add(edge.origin_slot)
        return sorted(slots)

    @property
    def plain(self) -> list[str]:
        """The ids of the nodes that are no instances."""
        return [id for id in self.nodes if id not in self.inside]

    def input_name(self, slot: int) -> str:
        """The name of one of the subgraph's inputs; its instances use the same."""
        named = _items(self.raw.get("inputs"))
        return _text(named[slot].get("name")) if 0 <= slot < len(named) else ""


@dataclass(frozen=True, slots=True)
class _Host:
    """The node that is an instance of a subgraph, and the level it stands in."""

    level: _Level
    node: Mapping[str, Any]

    def link(self, name: str) -> str | None:
        """The link that leads to this input of the instance."""
        inputs = (i for i in _items(self.node.get("inputs")) if i.get("name") == name)
        return next((_key(input.get("link")) for input in inputs), None)


def _of_editor(raw: Mapping[str, Any]) -> dict[str, Node]:
    definitions = raw.get("definitions")
    subgraphs = _items(definitions.get("subgraphs") if isinstance(definitions, dict) else None)
    levels = _levels(raw, {_text(subgraph.get("id")): subgraph for subgraph in subgraphs})
    nodes = (_node(level, id, mode) for level, mode in levels for id in level.plain)
    return {node.id: node for node in nodes}


def _levels(
    raw: Mapping[str, Any], subgraphs: Mapping[str, dict[str, Any]]
) -> list[tuple[_Level, int]]:
    """The workflow and every instance of a subgraph, each with the mode that its nodes inherit."""
    levels, count = [(_Level(raw), 0)], 0
    for level, mode in levels:  # the list grows meanwhile
        count += len(level.nodes)
        if count > MOST_NODES or level.prefix.count(":") > MOST_LEVELS:
            raise NotAWorkflow(
                f"it has more than {MOST_NODES:,} nodes, or {MOST_LEVELS} levels of subgraphs"
            )
        for id, node in level.nodes.items():
            if subgraph := subgraphs.get(_text(node.get("type"))):
                inner = _Level(subgraph, f"{level.prefix}{id}:", _Host(level, node))
                level.inside[id] = inner
                levels.append((inner, _mode(node, mode)))
    return levels


def _mode(node: Mapping[str, Any], inherited: int) -> int:
    own = node.get("mode")
    return own if own in (MUTED, BYPASSED) else inherited


def _node(level: _Level, id: str, inherited: int) -> Node:
    raw = level.nodes[id]
    values = raw.get("widgets_values")
    inputs = dict(values) if isinstance(values, dict) else {}
    for input in _items(raw.get("inputs")):
        name, link = _text(input.get("name")), _key(input.get("link"))
        bound = _bound(level, link) if link else _OWN
        if bound is not _OWN:
            inputs[name] = bound
    return Node(
        level.prefix + id,
        _text(raw.get("type")),
        inputs,
        tuple(values) if isinstance(values, list) else (),
        _mode(raw, inherited),
        _hashes(raw.get("properties")),
    )


def _bound(level: _Level, link: str) -> object:
    """What a link brings: a `Link`, or the value that an instance of a subgraph has for it.

    `_OWN` where it leads nowhere, so that the node's own value counts.
    """
    edge = level.edges.get(link)
    if edge is None or edge.origin != _INPUTS:
        origin = _source(level, link)
        return _OWN if origin is None else Link(origin)
    if level.host is None:
        return _OWN
    outer = level.host.link(level.input_name(edge.origin_slot))
    found = _bound(level.host.level, outer) if outer else _OWN
    return _instance_value(level, level.host, edge.origin_slot) if found is _OWN else found


def _instance_value(level: _Level, host: _Host, slot: int) -> object:
    """The instance's own value for one of the subgraph's inputs.

    Its values stand in the order of the inputs that set widgets. Where it lists `proxyWidgets`,
    they stand in the order of that list, which names the node inside, or -1 for an input; the
    value of a widget inside is that node's own.
    """
    values, properties = host.node.get("widgets_values"), host.node.get("properties")
    order: list[Any] = level.promoted
    wanted: object = slot
    proxies = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    if isinstance(proxies, list) and proxies:
        order, wanted = proxies, [_NO_NODE, level.input_name(slot)]
    if not isinstance(values, list) or len(values) != len(order) or wanted not in order:
        return _OWN
    return values[order.index(wanted)]


def _source(level: _Level, link: str | None) -> str | None:
    """The node that a link comes from, through the ends of subgraphs; None if from nowhere."""
    for _ in range(MOST_NODES):
        edge = level.edges.get(link) if link else None
        if edge is None:
            return None
        if edge.origin in level.inside:
            level = level.inside[edge.origin]
            link = level.outputs.get(edge.origin_slot)
        elif edge.origin != _INPUTS:
            return level.prefix + edge.origin
        elif level.host is None:
            return None
        else:
            link = level.host.link(level.input_name(edge.origin_slot))
            level = level.host.level
    return None  # a circle


def _hashes(properties: object) -> dict[str, str]:
    """The sha256 of the model files that a node names, by file name."""
    models = _items(properties.get("models") if isinstance(properties, dict) else None)
    return {
        _text(model.get("name")): _text(model.get("hash")).lower()
        for model in models
        if _text(model.get("hash_type")).upper() in ("SHA256", "SHA-256")
    }


# --- values of JSON ----------------------------------------------------------------------


def _items(raw: object) -> list[dict[str, Any]]:
    """The objects of a list; none if it is something else."""
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []


def _text(raw: object) -> str:
    return raw if isinstance(raw, str) else ""


def _key(raw: object) -> str | None:
    """An id, which is a number or a text; None for anything else."""
    return str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else None


def _edge(raw: object) -> tuple[str, _Edge] | None:
    """A link with its id; the top level has lists, subgraphs have objects."""
    if isinstance(raw, dict):
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        raw = [raw.get(name) for name in names]
    if not isinstance(raw, list) or len(raw) < 5:
        return None
    id, origin, target = (_key(raw[n]) for n in (0, 1, 3))
    slots = [raw[n] if isinstance(raw[n], int) else 0 for n in (2, 4)]
    if id is None or origin is None or target is None:
        return None
    return id, _Edge(origin, slots[0], target, slots[1])
