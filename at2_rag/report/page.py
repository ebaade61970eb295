"""Pages from templates: one HTML file that loads nothing."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_PACKAGE = "at2_rag.report"


def render_page(template: str, *, package: str = _PACKAGE, **values: Any) -> str:
    """Return a page.

    Args:
        template: Name of a file in the package's `templates`; it may include those of this package.
        package: The package.
        **values: The template's variables; text is escaped, `markupsafe.Markup` is not.

    Raises:
        jinja2.UndefinedError: If the template uses a variable that isn't passed.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in (package, _PACKAGE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
