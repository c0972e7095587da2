"""Plain values → YAML text, as people write it."""

from __future__ import annotations

from io import StringIO
from typing import Any

from ruamel.yaml import YAML


def yaml_text(value: Any) -> str:
    """The values as a YAML document, lists indented."""
    yaml = YAML()
    yaml.width = 110
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
