"""Splitting samples in two: something is found on one half and judged on the other."""

import hashlib
from collections.abc import Iterable

from flowjax.errors import FlowjaxError


def halves(samples: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Sample ids in two halves that do not depend on their order.

    They are ranked by the SHA-256 of the id: the lower half is the first, and the one more of an
    odd number is in the second.

    Raises:
        FlowjaxError: fewer than two samples.
    """
    ranked = sorted(set(samples), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(ranked) < 2:
        raise FlowjaxError(
            f"{len(ranked)} sample: at least 2 are needed, to find on one half and judge on the "
            "other"
        )
    middle = len(ranked) // 2
    return frozenset(ranked[:middle]), frozenset(ranked[middle:])
