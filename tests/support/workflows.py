"""ComfyUI workflows for tests: in both forms, and in images, as ComfyUI saves them."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"


def api(*loaders: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The API's form: these loaders one after the other (their ids are 10, 11, ...), a sampler."""
    nodes: dict[str, Any] = {"4": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux"}}}
    before = "4"
    for n, (kind, inputs) in enumerate(loaders, start=10):
        link = {"lora_stack" if "Stack" in kind else "model": [before, 0]}
        nodes[str(n)] = {"class_type": kind, "inputs": {**inputs, **link}}
        before = str(n)
    nodes["3"] = {"class_type": "KSampler", "inputs": {"model": [before, 0], "seed": 1}}
    return nodes


def loader(file: str, strength: float, clip: float | None = None) -> tuple[str, dict[str, Any]]:
    """ComfyUI's own loader, with one strength for both unless `clip` says otherwise."""
    clip = strength if clip is None else clip
    inputs = {"lora_name": file, "strength_model": strength, "strength_clip": clip}
    return "LoraLoader", inputs


def editors(*loaders: tuple[str, Any], modes: tuple[int, ...] = ()) -> dict[str, Any]:
    """The editor's form of the same: kinds and the values of their widgets."""
    nodes = [node(4, "UNETLoader", ["flux"], outputs=[1])]
    links: list[list[Any]] = []
    for n, (kind, values) in enumerate(loaders, start=10):
        links.append([n, 4 if n == 10 else n - 1, 0, n, 0, "MODEL"])
        name = "lora_stack" if "Stack" in kind else "model"
        made = node(n, kind, values, inputs=[{"name": name, "type": "MODEL", "link": n}])
        nodes.append({**made, "mode": modes[n - 10] if n - 10 < len(modes) else 0})
    last = 9 + len(loaders) if loaders else 4
    links.append([99, last, 0, 3, 0, "MODEL"])
    nodes.append(node(3, "KSampler", [1], inputs=[{"name": "model", "type": "MODEL", "link": 99}]))
    return {"version": 0.4, "nodes": nodes, "links": links}


def node(
    id: int, kind: str, values: Any, *, inputs: list[Any] | None = None, **fields: Any
) -> dict[str, Any]:
    named = {"id": id, "type": kind, "inputs": inputs or [], "widgets_values": values}
    return {**named, "mode": 0, **fields}


def with_subgraph(
    values: list[Any], *, host: dict[str, Any], strength_link: int | None = None
) -> dict[str, Any]:
    """A subgraph with a loader of these values, whose inputs `lora_name` and `strength_model` are
    the subgraph's second and third one; `host` are fields of its only instance, node 50."""
    inside = node(
        7,
        "LoraLoaderModelOnly",
        values,
        inputs=[
            {"name": "model", "type": "MODEL", "link": 1},
            {"name": "lora_name", "widget": {"name": "lora_name"}, "link": 2},
            {"name": "strength_model", "widget": {"name": "strength_model"}, "link": 3},
        ],
    )
    wires = [(1, -10, 0, 7, 0), (2, -10, 1, 7, 1), (3, -10, 2, 7, 2), (4, 7, 0, -20, 0)]
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    subgraph = {
        "id": "9f0e",
        "inputs": [{"name": name} for name in ("model", "lora_name", "strength_model")],
        "outputs": [{"name": "MODEL"}],
        "nodes": [inside],
        "links": [dict(zip(names, wire, strict=True)) for wire in wires],
    }
    ports = [{"name": "model", "link": 1}, {"name": "strength_model", "link": strength_link}]
    nodes = [
        node(4, "UNETLoader", ["flux"]),
        node(8, "PrimitiveFloat", [0.9]),
        node(50, "9f0e", [], inputs=ports) | host,
        node(3, "KSampler", [1], inputs=[{"name": "model", "link": 2}]),
    ]
    links = [[1, 4, 0, 50, 0, "MODEL"], [2, 50, 0, 3, 0, "MODEL"], [3, 8, 0, 50, 2, "FLOAT"]]
    return {"nodes": nodes, "links": links, "definitions": {"subgraphs": [subgraph]}}


def manager_recipe(*loras: dict[str, Any], title: str = "Knight") -> dict[str, Any]:
    """A recipe of LoRA Manager."""
    return {"id": "5e0c", "title": title, "base_model": "Flux.1 D", "loras": list(loras)}


def as_bytes(workflow: object) -> bytes:
    return json.dumps(workflow).encode()


# --- images ------------------------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one pixel with these chunks."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    return PNG + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    kind, body = part
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def text_chunk(key: str, value: str, kind: bytes = b"tEXt") -> tuple[bytes, bytes]:
    """A text in one of the three kinds of chunks; `iTXz` is a compressed `iTXt`."""
    head, raw = key.encode() + b"\0", value.encode()
    bodies = {
        b"tEXt": raw,
        b"comf": raw,
        b"zTXt": b"\0" + zlib.compress(raw),
        b"iTXt": b"\0\0en\0\0" + raw,
        b"iTXz": b"\1\0\0\0" + zlib.compress(raw),
    }
    return kind.replace(b"z", b"t") if kind == b"iTXz" else kind, head + bodies[kind]


def webp(
    *texts: tuple[int, str], comment: bytes = b"", order: str = "<", prefix: bytes = b""
) -> bytes:
    """A WebP without a pixel, whose EXIF data has these texts by their tags."""
    exif = prefix + exif_data(texts, comment=comment, order=order)
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in ((b"VP8L", b"\x2f\0\0\0\0"), (b"EXIF", exif))
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif_data(texts: tuple[tuple[int, str], ...], *, comment: bytes, order: str) -> bytes:
    raw = [(tag, 2, text.encode() + b"\0") for tag, text in texts]
    entries = len(raw) + bool(comment)
    at = 8 + 2 + 12 * entries + 4
    directory, values = struct.pack(order + "H", entries), b""
    for tag, kind, value in raw:
        directory += struct.pack(order + "HHII", tag, kind, len(value), at + len(values))
        values += value
    if comment:
        directory += struct.pack(order + "HHII", 0x8769, 4, 1, at + len(values))
        values += struct.pack(order + "H", 1)
        values += struct.pack(order + "HHII", 0x9286, 7, len(comment), at + len(values) + 16)
        values += b"\0\0\0\0" + comment
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8) + directory + b"\0\0\0\0" + values
