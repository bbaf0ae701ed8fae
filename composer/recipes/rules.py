"""What a recipe must keep that JSON Schema can't say: a scale's decimals, each concept once.

Decimals are counted in the source text: in binary, 0.65 is not a multiple of 0.0001.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from composer.recipes.nodes import quoted, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.recipes.nodes import KeyPath, Node, Report

MAX_DECIMALS = 4


def judge(root: Node, report: Report) -> None:
    """Reports scales with too many decimals, and concepts that are there twice."""
    concepts = list(_concepts(root))
    for path, concept in concepts:
        _check_decimals(concept.children.get("scale"), (*path, "scale"), report)
    for key in ("name", "modelId"):
        _check_once(key, concepts, report)


def _concepts(root: Node) -> Iterator[tuple[KeyPath, Node]]:
    if concepts := root.children.get("concepts"):
        for index, concept in concepts.children.items():
            yield ("concepts", index), concept


def _check_decimals(scale: Node | None, path: KeyPath, report: Report) -> None:
    if scale is None or scale.refused or not isinstance(scale.value, float):
        return
    if _too_fine(scale.text):
        message = f"{scale.shown} has more than {MAX_DECIMALS} decimal places"
        hint = f"write {round(scale.value, MAX_DECIMALS):g}" if 0 <= scale.value <= 1 else ""
        report.add(scale.place, "E105", said(path, message), hint)


def _too_fine(text: str) -> bool:
    """Whether a number has too many decimals, zeros at the end not counted."""
    try:
        _, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:  # an exponent of astronomic size
        return True
    kept = "".join(map(str, digits)).rstrip("0")
    return bool(kept) and int(exponent) + len(digits) - len(kept) < -MAX_DECIMALS


def _check_once(key: str, concepts: list[tuple[KeyPath, Node]], report: Report) -> None:
    first: dict[str, KeyPath] = {}
    for path, concept in concepts:
        node = concept.children.get(key)
        if node is None or node.refused or not isinstance(node.value, str):
            continue
        if node.value in first:
            message = f"{quoted(node.value)} is already concepts[{first[node.value][1]}]"
            hint = "keep one of the two, with the scale that you want"
            report.add(node.place, "E110", said((*path, key), message), hint)
        first.setdefault(node.value, path)
