"""Applies, edits, kills, restarts and faults at random: `python tests/soak SECONDS [--seed N]`.

A git repository of 20 to 50 recipes, the local target, a `compose serve` that runs throughout, and
one that is killed and restarted. At each quiet point recipes, lock, targets and results must agree.
At the end a table, and 1 as exit status if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from soak.run import Disagreement, Soak  # noqa: E402 - found by the line above
from soak.table import growth, table  # noqa: E402

TAIL = 60  # lines of the log that are shown after a failure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/soak", description=__doc__)
    parser.add_argument("seconds", type=float, help="how long; then one more quiet point")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--keep", action="store_true", help="keep the folder; its log is soak.log")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="compose-soak-"))
    isolate(folder)
    repeat = f"python tests/soak {given.seconds:g} --seed {given.seed}"
    print(f"{repeat} (in {folder})", flush=True)
    soak = Soak(folder, seed=given.seed, faults=max(20, round(given.seconds / 15)))
    try:
        with soak.running():
            soak.play(seconds=given.seconds)
        grown = growth(soak.usages)
    except (Exception, KeyboardInterrupt) as error:
        print(table(soak), failure(soak, error), sep="\n")
        print(f"Repeat it: {repeat}\nEverything is kept in {folder}")
        return 1
    print(table(soak))
    if grown:
        print("\n".join(grown), f"Everything is kept in {folder}", sep="\n")
        return 1
    if not given.keep:
        shutil.rmtree(folder)
    print("lock, targets and results agreed at every quiet point; memory and open files are flat")
    return 0


def isolate(folder: Path) -> None:
    """Nothing of the user's settings, and nothing in their state folder."""
    for name in list(os.environ):
        if name.startswith(("COMPOSE_", "SCENARIO_", "GIT_")):
            del os.environ[name]
    (folder / "home").mkdir()
    os.environ["HOME"] = str(folder / "home")
    os.environ["COMPOSE_STATE_DIR"] = str(folder / "state")


def failure(soak: Soak, error: BaseException) -> str:
    """The end of the log, and what was wrong."""
    words = str(error) if isinstance(error, Disagreement) else f"{type(error).__name__}: {error}"
    lines = (soak.folder / "soak.log").read_text(encoding="utf-8").splitlines()
    return "\n".join([*lines[-TAIL:], f"FAILED at {soak.elapsed:.0f} s: {words}"])


if __name__ == "__main__":
    sys.exit(main())
