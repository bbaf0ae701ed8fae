"""Previews and sweeps for programs: the JSON that `compose schema preview` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from composer.output.preview_view import PAGE
from composer.output.style import dumped
from composer.previews.grid import place_name

if TYPE_CHECKING:
    from composer.output.preview_view import PreviewView
    from composer.previews.cells import Cell
    from composer.previews.grid import Heading
    from composer.previews.report import CellImage, GridResult, PreviewReport

FORMAT_VERSION = 1
Plain: TypeAlias = "dict[str, Any]"


def as_json(view: PreviewView) -> str:
    """The report; no path of this machine, and no address of a service, is in it."""
    report = view.report
    return dumped(
        {
            "formatVersion": FORMAT_VERSION,
            "target": report.target,
            "dryRun": view.dry_run,
            "interrupted": report.interrupted,
            "page": PAGE if view.folder else None,
            "images": _counts(report),
            "price": report.price.total,
            "cost": report.spent,
            "recipes": [_grid(result, view) for result in report.grids],
            "notes": list(report.notes),
        }
    )


def _counts(report: PreviewReport) -> Plain:
    return {
        "missing": report.price.cells,
        "reused": report.price.reused,
        "made": report.made,
        "failed": len(report.failures),
    }


def _grid(result: GridResult, view: PreviewView) -> Plain:
    grid = result.grid
    stem = view.sheets.get(grid.path)
    differences = result.differences or (None,) * len(grid.rows)
    return {
        "recipe": grid.path,
        "name": grid.name,
        "sheets": [f"{stem}.png", f"{stem}.webp"] if stem else [],
        "columns": [_heading(heading) for heading in grid.columns],
        "rows": [
            {
                **_heading(heading),
                "difference": difference,
                "cells": [
                    _cell(cell, place_name(row, column), result.images[cell.digest])
                    for column, cell in enumerate(cells)
                    if cell is not None
                ],
            }
            for row, (heading, difference, cells) in enumerate(
                zip(grid.rows, differences, grid.cells, strict=True)
            )
        ],
    }


def _heading(heading: Heading) -> Plain:
    return {"title": heading.title, "lines": list(heading.lines)}


def _cell(cell: Cell, place: str, image: CellImage) -> Plain:
    return {
        "place": place,
        "digest": cell.digest,
        "state": "there" if image.file else "failed" if image.error else "missing",
        "error": str(image.error) if image.error else None,
        "prompt": cell.prompt,
        "seed": cell.seed,
        "width": cell.look.width,
        "height": cell.look.height,
        "steps": cell.look.steps,
        "guidance": cell.look.guidance,
        "concepts": [
            {
                "modelId": concept.model_id,
                **({"modelEpoch": concept.epoch} if concept.epoch else {}),
                "scale": concept.scale,
            }
            for concept in cell.concepts
        ],
        "renderer": {
            "name": cell.renderer.name,
            "version": cell.renderer.version,
            "baseModel": cell.renderer.base_model,
        },
    }
