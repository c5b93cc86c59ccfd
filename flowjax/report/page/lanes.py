"""Where edges lie on a flow map: a lane for every token group, boxes around unions of lanes."""

import re
from collections.abc import Iterable
from typing import Any

from flowjax.edges import parse_edges

USUAL = ("video", "question_stem", "true_option", "false_options", "instruction", "last")
"""Lanes that every map has."""

ORDERED = (
    "system", "video", "question_format", "question_stem", "true_option", "false_options",
    "instruction", "last",
)  # fmt: skip
"""Lanes from above, as groups follow each other in a prompt; frames and options have their own."""

OPTIONS = "options"
BOXES = {"question": "question", OPTIONS: "options", "video": "video"}

LABELS = {
    "video": "video frames",
    "question_format": "question format",
    "question_stem": "question stem",
    "true_option": "true option",
    "false_options": "false options",
    "last": "last position",
}


PATCH = "patch"
"""The edge set of patches, which are no edges."""


def parts_of(edge: str) -> list[tuple[str, str]]:
    """Source and target of every edge that one name joins."""
    return [(one.source, one.target) for one in parse_edges(edge)]


def on_map(edge_set: str, edge: str) -> bool:
    """Whether something is an edge between groups that all samples have; not, of single tokens."""
    return edge_set != PATCH and "[" not in edge


def lanes(edges: Iterable[str]) -> dict[str, Any]:
    """Lanes and boxes that hold all groups of some edges.

    Returns:
        `lanes`: id and label of each, from above; `boxes`: id, label, first and last lane of each,
        the outer before the inner.
    """
    groups = {group for edge in edges for pair in parts_of(edge) for group in pair}
    frames = sorted((g for g in groups if re.fullmatch(r"frame_\d+", g)), key=_number)
    options = sorted(g for g in groups if re.fullmatch(r"option_\w+", g))
    names = {*USUAL, *(groups - set(BOXES))}
    if options and not groups & {"true_option", "false_options"}:
        names -= {"true_option", "false_options"}
    if frames:
        names -= {"video"}
    order = [name for name in ORDERED if name in names]
    for name, those in (("false_options", options), ("video", frames)):
        # Frames come after all, so that what is counted here has a place in the order.
        at = sum(other in ORDERED[: ORDERED.index(name) + 1] for other in order)
        order[at:at] = those
    others = sorted(names - set(order))
    order[order.index("instruction") : order.index("instruction")] = others
    question = [n for n in order if n.startswith("question_") or n in _options(order)]
    boxes = [("question", question)]
    if OPTIONS in groups:
        boxes.append((OPTIONS, _options(order)))
    if frames:
        boxes.append(("video", frames))
    return {
        "lanes": [{"id": name, "label": label(name)} for name in order],
        "boxes": [
            {
                "id": name,
                "label": BOXES[name],
                "first": order.index(inside[0]),
                "last": order.index(inside[-1]),
            }
            for name, inside in boxes
        ],
    }


def label(group: str) -> str:
    """A group as a reader calls it; frames count from 1."""
    if re.fullmatch(r"frame_\d+", group):
        return f"frame {_number(group) + 1}"
    return LABELS.get(group, group.replace("_", " "))


def _options(order: Iterable[str]) -> list[str]:
    return [n for n in order if n in ("true_option", "false_options") or n.startswith("option_")]


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
