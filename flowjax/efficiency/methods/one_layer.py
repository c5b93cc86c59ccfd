"""Video leaves before one layer, the same for all samples: what deciding for each has to beat."""

from collections.abc import Sequence

from flowjax.efficiency.method import Method, Setting, Subject
from flowjax.efficiency.methods.staged import Staged
from flowjax.inference.policy import decisions_of


def _settings(subject: Subject) -> Sequence[Setting]:
    """From the last layer before which sample-adaptive prefills decide down to the first."""
    return [Staged(0, layer) for layer in decisions_of(subject.layers)[::-1]]


METHOD = Method("one layer for all", "", _settings)
