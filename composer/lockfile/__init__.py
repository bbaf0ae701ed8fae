"""The lock: `compose.lock`, the journal beside it, and the folder `.compose/`.

`read_lock` and `remember` read; `Ledger` is what an apply writes to, under `only_one`.
"""

from composer.lockfile.codec import Plain, plain_content, plain_entry, plain_parameters
from composer.lockfile.ledger import NAME, Ledger, read_lock, remember
from composer.lockfile.state import only_one, state_dir, write_atomically
from composer.lockfile.text import dump, parse, quoted

__all__ = [
    "NAME",
    "Ledger",
    "Plain",
    "dump",
    "only_one",
    "parse",
    "plain_content",
    "plain_entry",
    "plain_parameters",
    "quoted",
    "read_lock",
    "remember",
    "state_dir",
    "write_atomically",
]
