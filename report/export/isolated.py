"""A command under this project's settings and nobody's own: not those of IPython, matplotlib, Jupyter and Python.

    PYTHONPATH=report python -m export.isolated COMMAND ...

Settings of one's own change what a notebook draws and prints, or which Python runs it; a report must not depend on
them. What belongs to the study (threads, devices, proxies, caches) stays.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "settings"
OF_PYTHON = "PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE".split()  # what stays of all that begins so
FORGOTTEN = (
    "JUPYTER_PATH JUPYTER_CONFIG_PATH JUPYTERLAB_DIR JUPYTER_RUNTIME_DIR JPY_SESSION_NAME JPY_PARENT_PID "
    "MATPLOTLIBRC MPLBACKEND IPYTHON_SUPPRESS_CONFIG_ERRORS FORCE_COLOR NO_COLOR CLICOLOR CLICOLOR_FORCE PY_COLORS "
    "COLUMNS LINES BASH_ENV TQDM_DISABLE TQDM_POSITION SOURCE_DATE_EPOCH"
).split()


def environment(own: Mapping[str, str], folder: Path = FOLDER) -> dict[str, str]:
    """`own` with the settings of people replaced by folders of this project, which hold none."""
    kept = {
        name: value
        for name, value in own.items()
        if name not in FORGOTTEN and (name in OF_PYTHON or not name.startswith("PYTHON"))
    }
    return kept | {
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter-data"),
        "JUPYTER_NO_CONFIG": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever the user has installed
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else each kernel says that it would be hard to debug
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def main(arguments: list[str]) -> int:
    if not arguments or not shutil.which(arguments[0]):
        print(f"error: {' '.join(arguments[:1]) or 'no command'} is no command", file=sys.stderr)
        return 2
    new = environment(os.environ)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"):
        Path(new[name]).mkdir(parents=True, exist_ok=True)
    os.execvpe(arguments[0], arguments, new)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
