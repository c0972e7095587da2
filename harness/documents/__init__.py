"""YAML with positions: every mistake of a file becomes `file:line:column: path: fact – remedy`, all of them at once.

A file is read in two steps. `read_document` turns the text into plain Python values and remembers where each key
stands; what is not YAML at all ends here. `fit` then holds the values against a `Shape` and returns every mismatch as
a `Problem` – a path, a fact, a remedy – which the document turns into a `Mistake` with its position. Rooms that know
more than shapes (is this a regex? does this parameter exist?) add problems of their own, so a user sees one list.

YAML here is 1.2: `no` is text, `1e-3` is a number, a duplicate key is a mistake, and dates stay text.
"""

from __future__ import annotations

from harness.documents.lines import read_lines
from harness.documents.override import Assignment, set_values
from harness.documents.read import parse_document, read_document
from harness.documents.shapes import Shape, fit
from harness.documents.values import (
    Document,
    Keys,
    Place,
    Problem,
    Source,
    described,
    did_you_mean,
    document_of,
    encodable,
)
from harness.documents.write import new_file, yaml_text

__all__ = [
    "Assignment",
    "Document",
    "Keys",
    "Place",
    "Problem",
    "Shape",
    "Source",
    "described",
    "did_you_mean",
    "document_of",
    "encodable",
    "fit",
    "new_file",
    "parse_document",
    "read_document",
    "read_lines",
    "set_values",
    "yaml_text",
]
