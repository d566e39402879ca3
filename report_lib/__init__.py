"""The code behind the notebooks of this report. Data flows one way, and imports only point back along it:

files -> config -> data -> models -> training -> runs -> evidence -> page -> notebooks -> report.
"""

import importlib

__version__ = "0.2.0"

# The names that notebooks import, and the rooms they come from; loaded when asked for, so that a command which needs
# no torch answers at once.
_ROOMS = {
    **dict.fromkeys(("config", "data", "models", "training", "runs", "evidence", "page", "files")),
    **dict.fromkeys(("Study", "load_model", "predict"), "runs"),
    **dict.fromkeys(
        ("plots", "pictures", "tables", "numbers", "words", "findings", "claims", "effects", "live", "explore"), "page"
    ),
    **dict.fromkeys(("listing", "tabs"), "page.parts"),
    "results": "evidence",
    "read_yaml": "files",
}
__all__ = list(_ROOMS)


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'report_lib' has no attribute {name!r}")
    room = _ROOMS[name]
    if room is None:
        return importlib.import_module(f"report_lib.{name}")
    try:
        return getattr(importlib.import_module(f"report_lib.{room}"), name)
    except AttributeError:
        return importlib.import_module(f"report_lib.{room}.{name}")
