"""Pages from the templates in `templates/`; every value is escaped. Needs the extra `preview`.

A page is complete in itself: its style and its script stand in it, and its policy (CSP) names them
by their hashes, so that a browser runs nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from composer.version import __version__


def page(template: str, **values: object) -> str:
    """The text of a template, filled in. A value that a template uses and is not given raises."""
    return _environment().get_template(template).render(values)


@cache
def templates_digest() -> str:
    """The same while no template has changed, so that a page need not be made again."""
    environment = _environment()
    assert environment.loader
    digest = hashlib.sha256(__version__.encode())
    for name in environment.list_templates():
        digest.update(environment.loader.get_source(environment, name)[0].encode())
    return digest.hexdigest()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("composer.output"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,  # else it looks at the templates' files for each page
    )
    environment.filters["csp_hash"] = csp_hash
    environment.globals["version"] = __version__
    return environment


def csp_hash(text: str) -> str:
    """How a policy (CSP) names a style or a script that stands in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
