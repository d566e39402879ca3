"""Executed notebooks -> the one document, as HTML and as PDF. `python -m export` makes both (PYTHONPATH=report)."""

import sys

# jsonschema compiles a grammar of internet addresses for this optional part, a second long; no notebook needs it.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
