"""What a cell is called in a request to Scenario, and which cells it can't make as asked.

Scenario refuses some inputs and takes others silently that mean nothing, as a negative scale or
fewer scales than LoRAs. So all limits are checked here, before anything is sent. They are those
that the base model `model_bfl-flux-1-dev` names in its `inputs`.

Its scales have the step 0.05. Whether it rounds others, and how, is not known: nobody has seen one
refused. They are sent as the recipe has them; if the job tells others, the run says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.model import is_id
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.model import Concept
    from composer.previews.cells import Cell

NAME = "scenario"  # of the kind of renderer
MAX_LORAS = 6
MAX_SCALE = 2
MAX_PROMPT = 2048  # characters
SIDES, SIDE_STEP = (128, 2048), 16  # pixels
STEPS = (1, 50)
GUIDANCE = (0, 10)
SEEDS = (0, 2**31 - 1)


def image_input(cell: Cell) -> dict[str, object]:
    """The body of the request that makes this image."""
    look = cell.look
    body: dict[str, object] = {
        "prompt": cell.prompt,
        "numOutputs": 1,
        "seed": cell.seed,
        "numInferenceSteps": look.steps,
        "guidance": look.guidance,
        "width": look.width,
        "height": look.height,
    }
    if cell.concepts:
        body["loras"] = [concept.model_id for concept in cell.concepts]
        body["lorasScale"] = [concept.scale for concept in cell.concepts]
    return body


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise `UsageError` for the first cell that Scenario would not make as it is."""
    for cell in cells:
        for problem, hint in _problems(cell):
            raise UsageError(f"Scenario can't make this image: {problem}", hint=hint)


def _problems(cell: Cell) -> Iterator[tuple[str, str]]:
    yield from _of_concepts(cell.concepts)
    yield from _of_look(cell)
    if not 0 < len(cell.prompt) <= MAX_PROMPT:
        length = f"{len(cell.prompt):,} characters" if cell.prompt else "no character"
        yield f"the prompt has {length}", f"write 1 to {MAX_PROMPT:,} characters"
    if not is_id(cell.renderer.base_model):
        name = shorten(visible(cell.renderer.base_model), 100)
        yield f"the base model {name} is not an id", "name a model of Scenario: --base-model ID"


def _of_concepts(concepts: Sequence[Concept]) -> Iterator[tuple[str, str]]:
    if len(concepts) > MAX_LORAS:
        yield f"it takes {len(concepts)} LoRAs", f"Scenario takes {MAX_LORAS} for one image"
    for concept in concepts:
        name = shorten(visible(concept.model_id), 80)
        if not is_id(concept.model_id):
            yield f"{name} is not the id of a LoRA", "name a LoRA of Scenario"
        if concept.epoch is not None:
            epoch = shorten(visible(concept.epoch), 80)
            problem = f"{name} is wanted at epoch {epoch}, which no image request can say"
            yield problem, "leave out modelEpoch, or preview the recipe without it"
        if not 0 <= concept.scale <= MAX_SCALE:
            yield f"{name} has the scale {concept.scale:g}", f"scales are 0 to {MAX_SCALE}"


def _of_look(cell: Cell) -> Iterator[tuple[str, str]]:
    look, (least, most) = cell.look, SIDES
    for name, side in (("width", look.width), ("height", look.height)):
        if not least <= side <= most or side % SIDE_STEP:
            hint = f"write a multiple of {SIDE_STEP} from {least} to {most}"
            yield f"its {name} is {side} pixels", hint
    ranges = (
        ("number of steps", look.steps, STEPS),
        ("guidance", look.guidance, GUIDANCE),
        ("seed", cell.seed, SEEDS),
    )
    for name, value, (low, high) in ranges:
        if not low <= value <= high:
            yield f"its {name} is {value}", f"write {low} to {high}"
