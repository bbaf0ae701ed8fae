"""`compose`, for which FLUX.1 has the widths of `tiny_family`:

python -m support.tiny_server serve --base-model FOLDER
"""

from __future__ import annotations

import sys

from support.tiny_family import tiny_family

from composer.cli import run
from composer.lora import families

if __name__ == "__main__":
    families.register(tiny_family())
    sys.exit(run())
