"""Accuracy at equal cost: settings on a line of FLOPs, and methods at one point of it.

A method at a share of FLOPs between two of its settings is what answers some prompts with one and
the others with the other: of every sample, the mean of the two answers' correctness, weighted so
that the expected cost is the share.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from flowjax.report.arrays import by_sample
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval

LEVELS = (0.75, 0.5, 0.3)
"""Shares of a prefill's FLOPs at which methods are compared."""

REFERENCES = ("found", "strict")
"""Methods that others are compared with; the first that is cheap enough."""

FULL = "full"
"""The method that cuts nothing."""


@dataclass(frozen=True, eq=False)
class Costed:
    """A setting, what it costs, and which samples it answers.

    flops, cache, seconds: means over samples; shares of those with nothing cut once they are put
        `beside` it. seconds: of the samples that were timed, NaN where there are none.
    right: bool [samples], in the order of their ids.
    """

    method: str
    setting: str
    flops: float
    cache: float
    seconds: float
    right: Bool[np.ndarray, " samples"]

    @classmethod
    def of(cls, method: str, setting: str, rows: pa.Table) -> "Costed":
        """From the rows of a setting.

        Raises:
            FlowjaxError: see `by_sample`.
        """
        seconds = rows["seconds"].to_numpy()
        timed = seconds[~np.isnan(seconds)]
        return cls(
            method,
            setting,
            float((rows["flops"].to_numpy() / rows["full_flops"].to_numpy()).mean()),
            float((rows["cache_bytes"].to_numpy() / rows["full_cache_bytes"].to_numpy()).mean()),
            float(timed.mean()) if len(timed) else math.nan,
            by_sample(rows, "new_correct").values.astype(bool),
        )

    def beside(self, full: "Costed") -> "Costed":
        """With its time as a share of another's."""
        return dataclasses.replace(self, seconds=self.seconds / full.seconds)

    @property
    def accuracy(self) -> Interval:
        """With its score interval."""
        return mean_interval(self.right)


@dataclass(frozen=True)
class AtLevel:
    """A method at a share of FLOPs.

    setting: in words; of two, both.
    change: minus the accuracy with nothing cut, paired.
    behind: of the reference's accuracy minus this one's, paired; None of the reference itself.
    """

    method: str
    setting: str
    accuracy: Interval
    change: Interval
    behind: Interval | None


@dataclass(frozen=True)
class Level:
    """Every method at one share of FLOPs.

    missing: methods none of whose settings is so cheap.
    tested: how many differences were tested together.
    """

    share: float
    of: tuple[AtLevel, ...]
    missing: tuple[str, ...]
    reference: str | None
    tested: int


def at_level(settings: Sequence[Costed], share: float) -> Level:
    """All methods at a share of the FLOPs, beside nothing cut and beside the reference.

    A method whose dearest setting is cheaper than the share is taken as it is.
    """
    names = [name for name in dict.fromkeys(at.method for at in settings) if name != FULL]
    full = next(at for at in settings if at.method == FULL).right.astype(np.float64)
    mixed = {
        name: found
        for name in names
        if (found := _mixed([at for at in settings if at.method == name], share)) is not None
    }
    reference = next((name for name in REFERENCES if name in mixed), None)
    changes = {name: values - full for name, (_, values) in mixed.items()}
    behind = {
        name: mixed[reference][1] - values
        for name, (_, values) in mixed.items()
        if reference is not None and name != reference
    }
    tested = [*changes.values(), *behind.values()]
    p = iter(adjusted_p(np.stack(tested, axis=1))) if tested else iter(())
    judged = [
        with_p(paired_interval(values, np.zeros_like(values)), float(next(p))) for values in tested
    ]
    change, other = dict(zip(changes, judged, strict=False)), judged[len(changes) :]
    against = dict(zip(behind, other, strict=True))
    of = tuple(
        AtLevel(name, label, mean_interval(values), change[name], against.get(name))
        for name, (label, values) in mixed.items()
    )
    missing = tuple(name for name in names if name not in mixed)
    return Level(share, of, missing, reference, len(tested))


def _mixed(
    settings: Sequence[Costed], share: float
) -> tuple[str, Float[np.ndarray, " samples"]] | None:
    """A method at a share of FLOPs: in words, and of every sample how often it is right."""
    order = sorted(settings, key=lambda at: at.flops)
    below = [at for at in order if at.flops <= share]
    above = [at for at in order if at.flops > share]
    if not below:
        return None
    cheap = below[-1]
    if not above:
        return cheap.setting, cheap.right.astype(np.float64)
    dear = above[0]
    weight = (share - cheap.flops) / (dear.flops - cheap.flops)
    values = (1 - weight) * cheap.right + weight * dear.right
    return f"{1 - weight:.0%} {cheap.setting}, {weight:.0%} {dear.setting}", values


@dataclass(frozen=True, eq=False)
class Band:
    """The best accuracy at each cost: FLOPs ascending, and the ends of its interval there."""

    flops: Float[np.ndarray, " settings"]
    best: Float[np.ndarray, " settings"]
    low: Float[np.ndarray, " settings"]
    high: Float[np.ndarray, " settings"]


def front_band(settings: Sequence[Costed], *, resamples: int = 2000, seed: int = 0) -> Band:
    """The highest accuracy of any setting of at most so many FLOPs.

    Its interval is the bootstrap's percentiles over samples; a highest of many means is too high by
    what chance adds, in the samples as in each resample.
    """
    order = sorted(settings, key=lambda at: at.flops)
    right = np.stack([at.right for at in order], axis=1).astype(np.float64)
    rng = np.random.default_rng(seed)
    n = len(right)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples) @ right / n
    low, high = np.quantile(np.maximum.accumulate(drawn, axis=1), (0.025, 0.975), axis=0)
    best = np.maximum.accumulate(right.mean(axis=0))
    return Band(np.array([at.flops for at in order]), best, low, high)
