"""How often the intervals and the test of `flowjax.report` are right, where the truth is known.

    flowjax bench coverage --json benchmarks/results/coverage.json

Intervals: samples are drawn from a population with a known mean, again and again, and the share of
intervals that hold it is counted; beside ours the percentile bootstrap, BCa and Student's t. The
test: windows without any effect, alike in neighbours as windows are, and the share of runs in which
anything is called an effect. Populations are shaped like what sweeps give: changes in percent of a
probability, from -100 to a little above 0, that fall in all samples, in some, or hardly in any.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from flowjax.report.sign_flips import adjusted_p
from flowjax.report.statistics import LEAST, LEVEL, bootstrap_mean, paired_interval
from flowjax.report.table import Table
from flowjax_benchmarks.record import command_line, record, say, write_result

SIZES = (LEAST, 12, 30, 100)
"""Samples."""

WANTED, BOUNDS = 0.95, 0.015
WINDOWS = 88
"""Means tested together: eleven edges in eight windows."""

Draw = Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "n runs"]]
Ends = tuple[Float[np.ndarray, " runs"], Float[np.ndarray, " runs"]]


@dataclass(frozen=True)
class Population:
    """Where samples come from, and its mean."""

    name: str
    draw: Draw
    mean: float


def _some_fall(share: float) -> Draw:
    """A share of samples falls, by a third to all; the others stay."""
    return lambda rng, shape: -100 * (rng.random(shape) < share) * rng.beta(2, 2, shape)


POPULATIONS = (
    Population("normal", lambda rng, shape: rng.normal(0, 1, shape), 0.0),
    Population("exponential", lambda rng, shape: rng.exponential(1, shape), 1.0),
    Population(
        "most fall a little (beta 0.5, 3)",
        lambda rng, shape: -100 * rng.beta(0.5, 3, shape),
        -100 * 0.5 / 3.5,
    ),
    Population(
        "nearly all fall to 0 (beta 6, 0.3)",
        lambda rng, shape: -100 * rng.beta(6, 0.3, shape),
        -100 * 6 / 6.3,
    ),
    Population(
        "some fall, some stay (beta 0.4, 0.8)",
        lambda rng, shape: -100 * rng.beta(0.4, 0.8, shape),
        -100 * 0.4 / 1.2,
    ),
    Population("half fall (spike and beta)", _some_fall(0.5), -25.0),
    Population("three of ten fall (spike and beta)", _some_fall(0.3), -15.0),
    Population("log-normal", lambda rng, shape: rng.lognormal(0, 1, shape), float(np.exp(0.5))),
)

NULLS: Mapping[str, Callable[[Float[np.ndarray, "n w"]], Float[np.ndarray, "n w"]]] = {
    "normal": lambda noise: noise,
    "heavy tails": lambda noise: noise**3,
    "most samples do not change": lambda noise: noise * (np.abs(noise) > 1),
    "skewed (exponential, mean 0)": lambda noise: -np.log(scipy.stats.norm.sf(noise)) - 1,
}
"""What is made of normal noise; all but the last are as likely of either sign."""


def run(*, runs: int = 4_000, json: Path | None = None) -> dict[str, Any]:
    """Draw, count, print, and write the result where it is asked for.

    runs: draws of each population and number of samples; a tenth as many of each null.
    """
    started = time.perf_counter()
    result: dict[str, Any] = {
        "wanted": WANTED,
        "runs": runs,
        "intervals": [coverage(at, n, runs) for at in POPULATIONS for n in SIZES],
        "answers": [of_answers(change, n, runs) for change in (0.0, 0.2) for n in SIZES],
        "tests": [false_effects(name, n, runs // 10) for name in NULLS for n in SIZES],
        "seconds": time.perf_counter() - started,
    }
    _tables(result)
    if json is not None:
        command = command_line("coverage", runs=runs, json=json)
        write_result(json, result | record(command, ["scipy"]))
    return result


def coverage(population: Population, n: int, runs: int, *, seed: int = 0) -> dict[str, Any]:
    """How often intervals of n samples hold the population's mean, by method."""
    say(f"{population.name}, n = {n}")
    values = population.draw(np.random.default_rng([seed, n]), (n, runs))
    methods = _bootstraps(values)
    _, *ours = bootstrap_mean(values, resamples=2_000)
    methods = {"studentised": (ours[0], ours[1]), **methods}
    held = {
        name: float(((low <= population.mean) & (population.mean <= high)).mean())
        for name, (low, high) in methods.items()
    }
    width = {name: float(np.median(high - low)) for name, (low, high) in methods.items()}
    return {"population": population.name, "n": n, "held": held, "median width": width}


def _bootstraps(values: Float[np.ndarray, "n runs"]) -> dict[str, Ends]:
    """Percentile and BCa (Efron 1987) bootstrap, and Student's t."""
    n = len(values)
    mean = values.mean(axis=0)
    away = values - mean
    drawn = np.random.default_rng(1).integers(n, size=(2_000, n))
    counts = np.stack([(drawn == i).sum(axis=1) for i in range(n)], axis=1)
    means = np.sort(counts @ away / n, axis=0)
    tails = scipy.stats.norm.ppf([(1 - WANTED) / 2, (1 + WANTED) / 2])
    share = np.clip((means < 0).mean(axis=0), 1e-3, 1 - 1e-3)
    bias = scipy.stats.norm.ppf(share)
    spread = (away**2).sum(axis=0)
    skew = (away**3).sum(axis=0) / 6 / np.where(spread > 0, spread, 1) ** 1.5
    at = [scipy.stats.norm.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in tails]
    runs = np.arange(values.shape[1])
    low, high = (mean + means[np.round(q * (len(means) - 1)).astype(int), runs] for q in at)
    ends = mean + np.quantile(means, scipy.stats.norm.cdf(tails), axis=0)
    half = scipy.stats.t.ppf((1 + WANTED) / 2, n - 1) * np.sqrt(spread / (n - 1) / n)
    return {
        "percentile": (ends[0], ends[1]),
        "BCa": (low, high),
        "Student's t": (mean - half, mean + half),
    }


def of_answers(change: float, n: int, runs: int, *, seed: int = 0) -> dict[str, Any]:
    """How often the interval of a change of accuracy holds it; one in ten answers changes back."""
    rng = np.random.default_rng([seed, n])
    kind = rng.random((runs, n))
    more, fewer = kind < 0.1 + change, kind > 0.9
    found = [paired_interval(new, base) for new, base in zip(more, fewer, strict=True)]
    held = np.mean([at.low <= change <= at.high for at in found])
    return {"change of accuracy": change, "n": n, "held": float(held)}


def false_effects(name: str, n: int, runs: int, *, seed: int = 0) -> dict[str, Any]:
    """How often a run of `WINDOWS` means without effect has any adjusted p below the level."""
    say(f"test, {name}, n = {n}")
    called = [_called(NULLS[name](_noise(n, [seed, n, run])), run) for run in range(runs)]
    alone = np.mean([single for _, single in called])
    return {
        "null": name,
        "n": n,
        "runs": runs,
        "called": float(np.mean([together for together, _ in called])),
        "called if each were tested alone": float(alone),
    }


def _called(values: Float[np.ndarray, "n w"], seed: int) -> tuple[bool, bool]:
    n = len(values)
    spread = values.std(axis=0, ddof=1)
    t = np.abs(values.mean(axis=0)) / np.where(spread > 0, spread, 1.0) * np.sqrt(n)
    alone = t.max() > scipy.stats.t.ppf(1 - LEVEL / 2, n - 1)
    return bool(adjusted_p(values, draws=999, seed=seed).min() < LEVEL), bool(alone)


def _noise(n: int, seed: list[int]) -> Float[np.ndarray, "n w"]:
    """Normal, with correlation 0.8 between neighbours."""
    noise = np.random.default_rng(seed).normal(size=(n, WINDOWS))
    for i in range(1, WINDOWS):
        noise[:, i] = 0.8 * noise[:, i - 1] + 0.6 * noise[:, i]
    return noise


def _tables(result: Mapping[str, Any]) -> None:
    rows = [
        [at["population"], str(at["n"]), *(f"{100 * share:.1f}" for share in at["held"].values())]
        for at in result["intervals"]
    ]
    methods = list(result["intervals"][0]["held"])
    title = f"Intervals of {100 * WANTED:g}% that hold the mean (%), {result['runs']} draws"
    Table(title, ["population"], ["n", *methods], rows).print()
    rows = [
        [f"{at['change of accuracy']:+.1f}", str(at["n"]), f"{100 * at['held']:.1f}"]
        for at in result["answers"]
    ]
    Table("The same of a change of accuracy", [], ["change", "n", "held"], rows).print()
    rows = [
        [at["null"], str(at["n"])]
        + [f"{100 * at[key]:.1f}" for key in ("called", "called if each were tested alone")]
        for at in result["tests"]
    ]
    title = f"Runs of {WINDOWS} windows without effect in which any is called one (%)"
    Table(title, ["changes"], ["n", "adjusted p", "each t-test alone"], rows).print()
