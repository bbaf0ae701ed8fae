"""What commands print on terminals of several widths: long, CJK and emoji names, 4 and 40 recipes.

`python -m support.make_golden` writes them to `output/golden/screens`; tests compare them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.fake_target import lora
from support.golden_cases import LORAS, entry, path_of, planned, there, wants

from composer.errors import BadLora, Problem
from composer.output import problems, results
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.output.style import wrapped
from composer.planner import DONE, Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.planner import Plan

LONG = "The Knight Whose Name Is As Long As A Name May Be, Which Is 64!!"
NAMES = ("Storybook Knight", "水彩の騎士と古い城", "👨‍👩‍👧 Family 🇩🇪 👍🏽 ❤️", LONG)
SCREENS = ((4, 60, False), (4, 80, True), (4, 120, False), (40, 60, False), (40, 80, False))
PROBLEMS = [
    Problem(
        "recipes/pixel-rogue.yaml", 4, 12, "E104", "concepts[0].scale: 1.7 is above 1; with"
        " scaleRange: extended, scales may be from -2 to 2 on the local target",
        "write a number from 0 to 1",
        "    scale: 1.7  # of all that we tried, this is the one that looks best",
    ),
    Problem(
        "recipes/水彩の騎士.yaml", 2, 1, "E101", "'nmae' is not a field", "did you mean name?",
        "nmae: 水彩",
    ),
]  # fmt: skip


def documents() -> dict[str, str]:
    """File name -> all screens of that width."""
    return {
        f"screens/{count}_at_{columns}{'_in_colour' * color}.txt": _screens(count, columns, color)
        for count, columns, color in SCREENS
    }


def _screens(count: int, columns: int, color: bool) -> str:
    shown = {name: make(color) for name, make in _pages(plan_of(count)).items()}
    return "".join(
        f"$ {name}\n{wrapped(page, columns)}\n{'-' * columns}\n" for name, page in shown.items()
    )


def plan_of(count: int) -> Plan:
    """A quarter new, a quarter with another scale, a quarter moved, a quarter as it was."""
    names = [NAMES[n] if n < 4 else f"Guard {n:02}" for n in range(count)]
    recipes, entries, models = [], {}, []
    for n, name in enumerate(names):
        path = path_of(f"guard {n:02}" if n else name)
        folder = "recipes/tutorial/" if n % 4 == 2 else "recipes/"
        scales = {"ink": 0.65, "wash": 0.8} if n % 4 == 1 else {"ink": 0.5, "wash": 0.8}
        recipes.append(wants(name, path.replace("recipes/", folder), **scales))
        if n % 4:
            entries[path] = entry(name, f"model_{n:02}", ink=0.5, wash=0.8)
            models.append(there(name, f"model_{n:02}", ink=0.5, wash=0.8))
    return planned(recipes, entries, models)


def report_of(plan: Plan) -> Report:
    """What an apply of it comes to, with one failure."""
    outcomes = [
        Outcome(action, DONE[action.shown], f"model_{n:02}")
        for n, action in enumerate(plan.actions)
    ]
    error = BadLora("ink.safetensors is not a LoRA: the header is cut", hint="download it again")
    return Report((*outcomes[:-1], replace(outcomes[-1], state="failed", error=error)))


def _pages(plan: Plan) -> dict[str, Callable[[bool], str]]:
    report = report_of(plan)
    loras = [lora(id, name) for id, name in LORAS.items()]
    named = [there(action.name, f"model_{n:02}") for n, action in enumerate(plan.actions)]
    ids = {model.name: model.id for model in named}
    place = "/home/ada/.local/share/lora-compose/projects/castle-1a2b3c4d/models"
    files = {id: f"{place}/{id}.safetensors" for id in ids.values()}
    refused = {"old": "old.pt is a pickle, which can run code when it is read: convert it"}
    return {
        "compose plan": lambda color: text(PlanView(plan, color=color)),
        "compose apply": lambda color: results.report(report, files=files, color=color),
        "compose status": lambda color: results.status(plan, color=color),
        "compose models": lambda color: results.models(
            [*loras, *named], rejected=refused, color=color
        ),
        "compose output": lambda color: results.outputs(ids, color=color),
        "compose validate": lambda color: problems.text(PROBLEMS, files=9, color=color),
    }
