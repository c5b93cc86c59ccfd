"""A prompt on a pathway."""

from dataclasses import dataclass

from flowjax.efficiency.cut import apply_knockouts
from flowjax.efficiency.method import Applied, Prompt
from flowjax.pathway import Pathway


@dataclass(frozen=True)
class OnPathway:
    """A pathway's edges alone."""

    pathway: Pathway

    @property
    def label(self) -> str:
        """Its name."""
        return self.pathway.name

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        return apply_knockouts(prompt, self.pathway.knockouts(prompt.layout))
