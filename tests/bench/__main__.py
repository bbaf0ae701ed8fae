"""How fast, how large and how exact, beside its peers: `python tests/bench [SECTION…]`.

Every ratio is of two figures from the same run on the same machine. Sections: `concatenate`,
`reduce`, `inspect`, `growth`, `fidelity`, `scale`, `cluster`, `load`; by default all but `reduce`,
`scale`, `cluster` and `load`, which take minutes. Needs the extra `bench`: the peers are installed
from PyPI.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What is installed is compiled, the peers too; of the source tree, a first run compiles it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import cluster  # noqa: E402 - found by the line above
import concatenation  # noqa: E402 - found by the line above
import fidelity  # noqa: E402
import growth  # noqa: E402
import load  # noqa: E402
import reducing  # noqa: E402
import scaling  # noqa: E402

SECTIONS = {
    "concatenate": concatenation.run,
    "inspect": concatenation.run_inspect,
    "growth": growth.run,
    "fidelity": fidelity.run,
    "reduce": reducing.run,
    "scale": scaling.run,
    "cluster": cluster.run,
    "load": load.run,
}
SLOW = {"reduce", "scale", "cluster", "load"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--folder", type=Path, help="where the files go; 3 GB are needed")
    given = parser.parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for name in given.sections or [name for name in SECTIONS if name not in SLOW]:
            print(f"## {name}\n", flush=True)
            SECTIONS[name](Path(folder))
            print(flush=True)


if __name__ == "__main__":
    main()
