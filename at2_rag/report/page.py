"""Pages from templates: one HTML file that loads nothing."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_PACKAGE = "at2_rag.report"


def render_page(template: str, *, package: str = _PACKAGE, **values: Any) -> str:
    """Return the page of a template in the package's folder `templates`.

    It may include templates of this package. Text is escaped, `markupsafe.Markup` is not.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in (package, _PACKAGE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
