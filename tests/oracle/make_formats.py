"""Writes the measured tables into `docs/formats.md`:

    PYTHONPATH=.:tests python tests/oracle/make_formats.py

The oracle tests check every line. The third table is `tests/loaders.py`'s, which writes it itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from oracle import table
from oracle.cases import FORMATS
from oracle.judge import Judge
from oracle.page import put


def main() -> None:
    judge = Judge()
    with tempfile.TemporaryDirectory() as folder:
        rows = [table.measured(judge, case, Path(folder)).line(case) for case in FORMATS]
        merges = [table.merge_line(merge, Path(folder)) for merge in table.MERGES]
    put(table.PAGE, "formats", [*table.head(), *rows])
    put(table.PAGE, "merges", [*table.merge_head(), *merges])


if __name__ == "__main__":
    main()
