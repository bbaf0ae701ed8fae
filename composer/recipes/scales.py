"""Other scales in the text of a recipe's file; no other character changes."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from composer.model import rounded
from composer.recipes.problems import Report
from composer.recipes.writing import scale_text
from composer.recipes.yaml_tree import decode, offset_of, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.recipes.yaml_tree import Node


def with_scales(data: bytes, scales: Mapping[int, float]) -> bytes:
    """The bytes of a valid recipe, with these scales for the concepts of these indexes.

    A scale that the recipe has already stays as it is written. Raises `ValueError` if it is no
    valid YAML.
    """
    text, root = _read(data)
    nodes = {index: root.at(("concepts", index, "scale")) for index in scales}
    pieces, end = [], 0
    for index, node in sorted(nodes.items(), key=lambda item: item[1].place):
        if node.value == rounded(scales[index]):
            continue
        start = offset_of(text, node.place)
        pieces += [text[end:start], scale_text(rounded(scales[index]))]
        end = start + len(node.text)
    changed = "".join([*pieces, text[end:]]).encode()
    return codecs.BOM_UTF8 + changed if data.startswith(codecs.BOM_UTF8) else changed


def _read(data: bytes) -> tuple[str, Node]:
    """The text without its byte order mark, and the tree of its values."""
    report = Report("")
    text = decode(data, report)
    root = read_document(text, report).root if text is not None else None
    if text is None or root is None or report.problems:
        raise ValueError("the file is not valid YAML")
    return text, root
