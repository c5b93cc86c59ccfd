"""What the site changes in the documents as they lie in the repository."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")
"""Links to files beside `docs`, which a site does not have."""


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401 - mkdocs's
    """Name a file outside of the site instead of linking to it."""
    return OUTSIDE.sub(r"\1 (`\2` in the repository)", markdown)
