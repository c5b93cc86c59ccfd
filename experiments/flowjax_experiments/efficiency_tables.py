"""The tables of `flowjax efficiency`: every setting, and methods at equal cost."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from flowjax.efficiency.front import Costed, Level
from flowjax.report.statistics import Interval
from flowjax.report.table import Table, ends, judged, tested_note
from flowjax.runs.columns import schema

MEAN = ("mean", "low", "high")

SETTINGS = schema(
    ("method", pa.string(), "what makes the prefill cheaper"),
    ("setting", pa.string(), "its parameters"),
    ("flops", pa.float64(), "share of the FLOPs of the prefill that cuts nothing"),
    ("cache", pa.float64(), "share of its KV cache"),
    ("time", pa.float64(), "share of its time; NaN: not timed"),
    ("n", pa.int32(), "samples"),
    *((f"accuracy_{end}", pa.float64(), f"{end} of the 95% score interval") for end in MEAN),
    ("best", pa.bool_(), "no cheaper setting is as accurate"),
)
"""Columns of `settings.parquet`."""

COMPARED = schema(
    ("share", pa.float64(), "of the FLOPs of the prefill that cuts nothing"),
    ("method", pa.string(), "what makes the prefill cheaper"),
    ("setting", pa.string(), "its parameters; of two, how much of each"),
    ("accuracy", pa.float64(), "mean over samples"),
    *((f"change_{end}", pa.float64(), f"minus nothing cut, paired: {end}") for end in MEAN),
    ("change_p", pa.float64(), "of no change, adjusted for all of the share's differences"),
    ("reference", pa.string(), "the method that this one is compared with"),
    *((f"behind_{end}", pa.float64(), f"the reference's minus this: {end}") for end in MEAN),
    ("behind_p", pa.float64(), "of no difference, adjusted likewise"),
)
"""Columns of `levels.parquet`; NaN of the reference beside itself."""

NOTHING = Interval(0, math.nan, math.nan, math.nan)


def settings_table(
    settings: Sequence[Costed], titles: Mapping[str, str], rows: pa.Table
) -> tuple[Table, pa.Table]:
    """Every setting, as printed and as stored.

    Args:
        settings: of the run.
        titles: of its methods, by name.
        rows: of the run, whose differences of logits are summed up.
    """
    best = _best(settings)
    printed, stored = [], []
    for at in settings:
        name, accuracy = titles[at.method], at.accuracy
        printed.append(
            [
                f"{name} *" if at in best else name,
                at.setting,
                f"{100 * at.flops:.1f}",
                f"{100 * at.cache:.1f}",
                "" if math.isnan(at.seconds) else f"{100 * at.seconds:.0f}",
                f"{accuracy.mean:.3f}",
                ends(accuracy, ".3f"),
            ]
        )
        stored.append(
            {"method": at.method, "setting": at.setting, "flops": at.flops, "cache": at.cache}
            | {"time": at.seconds, "n": accuracy.n, "best": at in best}
            | _ends("accuracy", accuracy)
        )
    numbers = ["FLOPs %", "KV cache %", "time %", "accuracy", "95% interval"]
    table = Table("Every setting", ["method", "setting"], numbers, printed, _timed_note(rows))
    return table, pa.Table.from_pylist(stored, SETTINGS)


def levels_table(levels: Sequence[Level]) -> pa.Table:
    """Methods at equal cost, as stored."""
    rows = []
    for level in levels:
        for at in level.of:
            behind = NOTHING if at.behind is None else at.behind
            rows.append(
                {"share": level.share, "method": at.method, "setting": at.setting}
                | {"accuracy": at.accuracy.mean, "reference": level.reference or ""}
                | {"change_p": at.change.p, "behind_p": behind.p}
                | _ends("change", at.change)
                | _ends("behind", behind)
            )
    return pa.Table.from_pylist(rows, COMPARED)


def level_table(level: Level, titles: Mapping[str, str]) -> Table | str:
    """Methods at one share of FLOPs, as printed; a sentence where none is so cheap."""
    title = f"At {100 * level.share:.0f}% of the FLOPs of a prefill"
    if not level.of:
        return f"{title}: no setting is so cheap."
    rows = [
        [
            titles[at.method],
            at.setting,
            f"{at.accuracy.mean:.3f}",
            *judged(at.change, "+.3f"),
            *([] if at.behind is None else judged(at.behind, "+.3f")),
        ]
        for at in level.of
    ]
    note = tested_note(f"the {level.tested} differences of this table")
    if level.missing:
        note += "; not so cheap: " + ", ".join(titles[name] for name in level.missing)
    verdict = ["interval", "p", "effect"]
    columns = ["accuracy", "- all edges", *verdict]
    if level.reference is not None:
        columns += [f"{titles[level.reference]} -", *verdict]
    return Table(title, ["method", "setting"], columns, rows, note)


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {f"{name}_{end}": getattr(interval, end) for end in MEAN}


def _best(settings: Sequence[Costed]) -> list[Costed]:
    """Those that no setting of at most their FLOPs is as accurate as."""
    best, top = [], -1.0
    for at in sorted(settings, key=lambda at: (at.flops, -at.accuracy.mean)):
        if at.accuracy.mean > top:
            best.append(at)
            top = at.accuracy.mean
    return best


def _timed_note(rows: pa.Table) -> str:
    difference = rows["difference"].to_numpy()
    ran = ~np.isnan(difference)
    if not ran.any():
        return "no sample was timed"
    samples = len(set(rows.filter(pa.array(ran))["sample_id"].to_pylist()))
    return (
        f"time: of {samples} samples, beside that of all edges; largest difference of compiled and "
        f"masked logits {difference[ran].max():.1e}"
    )
