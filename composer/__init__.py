"""compose: composed LoRA models, declared in YAML and made exactly once.

The house, from the ground up: `errors`, `entities`; then `recipes`, `lockfile`, `plan`
and `target`; then `engine`, `apply` and `render`; and `cli` on top.
"""

__version__ = "0.1.0"
