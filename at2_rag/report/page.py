"""Pages from templates: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_page(template: str, **values: Any) -> str:
    """Return a page.

    Args:
        template: Name of a file in `templates`.
        **values: What the template uses; text is escaped, `markupsafe.Markup` is not.

    Raises:
        jinja2.UndefinedError: If the template uses a value that isn't there.
    """
    environment = Environment(
        loader=PackageLoader("at2_rag.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
