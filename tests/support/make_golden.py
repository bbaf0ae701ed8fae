"""Writes the documents in `output/golden/`: `python -m support.make_golden`, then `git diff`.

Every situation as Markdown; those in `ALSO` as text and as annotations too; and the screens.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from support import screens
from support.golden_cases import CASES

from composer.output.plan_formats import PLAN_FORMATS
from composer.output.plan_view import PlanView

if TYPE_CHECKING:
    from support.golden_cases import Case

GOLDEN = Path(__file__).parents[1] / "output" / "golden"
ALSO = ("change_over_drift", "hostile_names", "lock_only_edit", "offline")


def document(case: Case) -> str:
    return PLAN_FORMATS["markdown"](PlanView(case.plan, prices=case.prices, budget=case.budget))


@cache
def documents() -> dict[str, str]:
    """File name -> what must be in it."""
    cases = {name: make() for name, make in CASES.items()}
    found = {f"{name}.md": document(case) for name, case in cases.items()}
    for name in ALSO:
        found[f"{name}.txt"] = PLAN_FORMATS["text"](PlanView(cases[name].plan))
        found[f"{name}.github.txt"] = PLAN_FORMATS["github"](PlanView(cases[name].plan))
    return found | screens.documents()


if __name__ == "__main__":
    (GOLDEN / "screens").mkdir(parents=True, exist_ok=True)
    for file, text_ in documents().items():
        (GOLDEN / file).write_text(text_, encoding="utf-8", newline="\n")
        print(file)
