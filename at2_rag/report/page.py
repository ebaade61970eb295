"""Pages from templates: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_HERE = "at2_rag.report"


def render_page(template: str, *, package: str = _HERE, **values: Any) -> str:
    """Return a page.

    Args:
        template: Name of a file in the package's `templates`; it may include those here.
        package: The package.
        **values: What the template uses; text is escaped, `markupsafe.Markup` is not.

    Raises:
        jinja2.UndefinedError: If the template uses a value that isn't there.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in (package, _HERE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
