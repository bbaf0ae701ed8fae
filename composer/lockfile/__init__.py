"""The lock: `compose.lock`, the journal beside it, and the folder `.compose/`.

`read_lock` and `remember` read; `Ledger` is what an apply writes to, under `only_one`; `salvage`
reads what only a repair can use.
"""

from composer.lockfile.blocks import Loss
from composer.lockfile.codec import Plain, plain_content, plain_entry, plain_parameters
from composer.lockfile.ledger import Ledger
from composer.lockfile.reading import (
    NAME,
    lock_text,
    read_lock,
    read_sides,
    remember,
    write_lock,
)
from composer.lockfile.salvage import Salvaged, is_conflicted, salvage
from composer.lockfile.sides import flat
from composer.lockfile.state import only_one, state_dir, write_atomically
from composer.lockfile.text import dump, parse, quoted

__all__ = [
    "NAME",
    "Ledger",
    "Loss",
    "Plain",
    "Salvaged",
    "dump",
    "flat",
    "is_conflicted",
    "lock_text",
    "only_one",
    "parse",
    "plain_content",
    "plain_entry",
    "plain_parameters",
    "quoted",
    "read_lock",
    "read_sides",
    "remember",
    "salvage",
    "state_dir",
    "write_atomically",
    "write_lock",
]
