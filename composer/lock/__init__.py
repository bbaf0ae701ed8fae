"""The lock: `compose.lock`, and the journal in the state folder.

`read_lock` and `remember` read; `Ledger` is what an apply writes to, under `only_one`; `salvage`
reads what only a repair can use.
"""

from composer.files.state import only_one
from composer.lock.blocks import Loss
from composer.lock.codec import Plain, plain_content, plain_entry, plain_parameters
from composer.lock.ledger import Ledger
from composer.lock.reading import NAME, lock_text, read_lock, read_sides, remember, write_lock
from composer.lock.salvage import Salvaged, is_conflicted, salvage
from composer.lock.sides import flat
from composer.lock.text import dump, parse, quoted

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
    "write_lock",
]
