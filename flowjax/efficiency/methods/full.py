"""Everything: the compiled prefill that cuts nothing, which all others are compared with."""

from dataclasses import dataclass

from flowjax.efficiency.cut import apply_knockouts
from flowjax.efficiency.method import Applied, Method, Prompt


@dataclass(frozen=True)
class Full:
    """No edge cut, no token dropped."""

    label: str = ""

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        return apply_knockouts(prompt, ())


METHOD = Method("all edges", "", lambda _: [Full()])
