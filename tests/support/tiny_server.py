"""`compose`, for which FLUX.1 has the widths of `tiny_family`, in the processes of an executor too:

python -m support.tiny_server serve --base-model FOLDER
"""

from __future__ import annotations

import sys

from support.tiny_family import tiny_family

from composer.cli import run
from composer.lora import families

families.register(tiny_family())  # such processes import this module, and do not run it

if __name__ == "__main__":
    sys.exit(run())
