"""From plain data to one HTML file that asks for nothing else.

Everything is escaped, styles and scripts stand in the page, and its policy forbids every request
and every script but its own: also a hostile file name can do nothing.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fuzzyclip.report.charts import FRAME

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, **values: Any) -> str:
    """A page from a template of this package.

    Args:
        template: its file name.
        values: what the template reads; text is escaped.
    """
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    # our own files; their digests above are of exactly this text
    own = {"style": Markup(style), "script": Markup(script), "policy": policy}
    return environment.get_template(template).render(FRAME | own | values)


def _digest(text: str) -> str:
    """A source expression of the Content Security Policy for inline text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
