"""Pathways that `flowjax pathways find` found for the model, one for each threshold."""

from collections.abc import Sequence

from flowjax.efficiency.method import Method, Setting, Subject
from flowjax.efficiency.on_pathway import OnPathway


def _settings(subject: Subject) -> Sequence[Setting]:
    return [OnPathway(pathway) for pathway in subject.found]


METHOD = Method("found pathways", "flowjax pathways find", _settings)
