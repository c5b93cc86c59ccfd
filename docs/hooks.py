"""What the site changes in the documents as they lie in the repository."""

import re
from typing import Any

import flowjax

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")
"""Links to files beside `docs`, which a site does not have."""

ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
"""What the API's page takes from a docstring."""

ELSEWHERE_CALLED = {"load_model": "load"}


def _headed(found: re.Match[str]) -> str:
    """An entry under the name by which `import flowjax as fj` has it, where it does."""
    own = found[1].rpartition(".")[2]
    name = ELSEWHERE_CALLED.get(own, own)
    if name not in flowjax.__all__:
        return found[0]
    return f"{found[0]}\n    options:\n      heading: fj.{name}\n      toc_label: fj.{name}"


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401 - mkdocs's
    """Name a file outside of the site instead of linking to it; head entries by public names."""
    markdown = ENTRY.sub(_headed, markdown)
    return OUTSIDE.sub(r"\1 (`\2` in the repository)", markdown)
