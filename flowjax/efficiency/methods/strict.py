"""The paper's hand-set layer ranges in their strict form, scaled to the model's depth."""

from collections.abc import Sequence

from flowjax.efficiency.method import Method, Setting, Subject
from flowjax.efficiency.on_pathway import OnPathway
from flowjax.pathway import default_pathway


def _settings(subject: Subject) -> Sequence[Setting]:
    return [OnPathway(default_pathway(subject.family, subject.layers, "strict"))]


METHOD = Method("paper's ranges", "Map the Flow, ICLR 2026, arXiv 2510.13251, section 5", _settings)
