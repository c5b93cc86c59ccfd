"""Where things are kept between runs that can be made again."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """`$XDG_CACHE_HOME/flowjax/NAME`, by default under `~/.cache`; it is made.

    Returns:
        None where there is no home, or the folder cannot be made or written to: then nothing is
        kept.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "flowjax" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
