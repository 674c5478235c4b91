"""What all pages share: the frame around their content, and their scripts and styles in one file.

The Content-Security-Policy of a page names the hashes of its own script and style, and allows nothing else: neither
scripts in names, if one were not escaped, nor connections.  The template escapes every name.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from distprof.merge.html.glossary import terms
from distprof.merge.html.payload import packed

_STYLES = ("vendor/uPlot.min.css", "assets/page.css")


def framed(template: str, scripts: Sequence[str], data: Mapping[str, Any], **values: Any) -> bytes:
    """Returns a page, made from an asset that extends ``base.html``; the same arguments give the same bytes.

    ``scripts`` are names of assets, ``data`` is what they draw, and ``values`` are those of the template.
    """
    style = _joined(_STYLES)
    script = _joined(("vendor/uPlot.iife.min.js", *(f"assets/{name}.js" for name in scripts)))
    environment = Environment(
        loader=FunctionLoader(lambda name: _asset(f"assets/{name}")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(
        policy=_policy(script, style),
        style=Markup(style),
        script=Markup(script),
        data=packed(data),
        terms=terms(),
        licence=_asset("vendor/uPlot.LICENSE"),
        **values,
    )
    return page.encode("utf-8", "backslashreplace")


def _asset(name: str) -> str:
    return files("distprof.merge.html").joinpath(*name.split("/")).read_text(encoding="utf-8")


def _joined(names: Sequence[str]) -> str:
    return "\n".join(_asset(name).strip() for name in names) + "\n"


def _policy(script: str, style: str) -> str:
    allowed = {"script-src": _hash(script), "style-src": _hash(style), "img-src": "data:"}
    nothing = ("default-src", "base-uri", "form-action")
    return "; ".join([*(f"{what} 'none'" for what in nothing), *(f"{what} {who}" for what, who in allowed.items())])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
