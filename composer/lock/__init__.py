"""The lock: `compose.lock`, and the journal in the state folder.

`read_lock` and `remember` read. An apply writes to a `Ledger`, while it holds `only_one` of
`files.exclusive`. What only writes or merges is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.late import late_names
from composer.lock.codec import Plain, plain_content, plain_entry, plain_parameters
from composer.lock.document import (
    dump,
    has_markers,
    lock_text,
    parse,
    read_file,
    read_lock,
    refuse_large,
    write_lock,
)
from composer.text import LOCK_NAME

if TYPE_CHECKING:
    from composer.lock.journal import Journal, remember
    from composer.lock.ledger import Ledger, latest_effect, steady_clock
    from composer.lock.merge import (
        flattened,
        merge_locks,
        read_conflicted,
        read_merged,
        undecided,
    )

__all__ = [
    "LOCK_NAME",
    "Journal",
    "Ledger",
    "Plain",
    "dump",
    "flattened",
    "has_markers",
    "latest_effect",
    "lock_text",
    "merge_locks",
    "parse",
    "plain_content",
    "plain_entry",
    "plain_parameters",
    "read_conflicted",
    "read_file",
    "read_lock",
    "read_merged",
    "refuse_large",
    "remember",
    "steady_clock",
    "undecided",
    "write_lock",
]

__getattr__ = late_names(
    __name__,
    {
        "journal": ("Journal", "remember"),
        "ledger": ("Ledger", "latest_effect", "steady_clock"),
        "merge": ("flattened", "merge_locks", "read_conflicted", "read_merged", "undecided"),
    },
)
