"""Pages from the templates beside this module: self-contained HTML, everything escaped, nothing left undefined."""

from __future__ import annotations


def page(template: str, **values: object) -> str:
    """The template of that file name, filled with the values.

    Raises:
        jinja2.UndefinedError: The template asks for a value that is not given.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgeprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
