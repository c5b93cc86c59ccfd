"""Lists of spatial and temporal words, which the logit lens counts.

A list is a text file: a line `[spatial]` or `[temporal]`, then words, one or several a line; `#`
begins a comment. `flowjax/lens/words/default.txt` counts for every task, a file with a task's name
is added to it for that task.
"""

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Int

from flowjax.errors import FlowjaxError

KINDS = ("spatial", "temporal")


@dataclass(frozen=True)
class Words:
    """Words in lower case."""

    spatial: frozenset[str]
    temporal: frozenset[str]

    def __or__(self, other: "Words") -> "Words":
        """The words of either."""
        return Words(self.spatial | other.spatial, self.temporal | other.temporal)

    def of(self, kind: str) -> frozenset[str]:
        """The words of one of `KINDS`."""
        return self.spatial if kind == "spatial" else self.temporal


def words_for(task: str, own: Words | None = None) -> Words:
    """The default words, those of a task if it has a list, and the user's own."""
    folder = resources.files("flowjax.lens") / "words"
    words = _parse((folder / "default.txt").read_text(encoding="utf-8"), "default.txt")
    # A task's name is the user's: it is looked up among the names there are, never opened.
    for file in folder.iterdir():
        if file.name == f"{task}.txt" and task != "default":
            words |= _parse(file.read_text(encoding="utf-8"), file.name)
    return words if own is None else words | own


def read_words(path: Path) -> Words:
    """A user's own list.

    Raises:
        FlowjaxError: the file cannot be read, or has words before the first section or in another
            than `[spatial]` and `[temporal]`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FlowjaxError(f"{path} cannot be read as a word list: {error}") from None
    return _parse(text, str(path))


def _parse(text: str, source: str) -> Words:
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    section = None
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if content.startswith("["):
            section = content.strip("[] ").lower()
            if section not in found:
                raise FlowjaxError(
                    f"{source}, line {number}: section {content} is unknown; "
                    "use [spatial] and [temporal]"
                )
        elif content and section is None:
            raise FlowjaxError(f"{source}, line {number}: begin with [spatial] or [temporal]")
        elif content:
            assert section is not None
            found[section].update(content.lower().split())
    return Words(frozenset(found["spatial"]), frozenset(found["temporal"]))


def matching_ids(words: Iterable[str], texts: Sequence[str]) -> Int[np.ndarray, " ids"]:
    """Token ids whose text is one of the words.

    Case, and spaces and punctuation around the text, do not count.

    Args:
        words: in lower case.
        texts: of every token id, in order.

    Returns:
        int64, ascending.
    """
    wanted = frozenset(words)
    around = string.whitespace + string.punctuation
    plain = (text.strip(around).lower() for text in texts)
    return np.array([index for index, text in enumerate(plain) if text in wanted], np.int64)
