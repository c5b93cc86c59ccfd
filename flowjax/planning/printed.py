"""A plan as it is printed, and as JSON."""

import dataclasses
from typing import Any

from flowjax.planning.compiled import QUICKLY, Measured
from flowjax.planning.hardware import GIB, Chip
from flowjax.planning.models import CHARACTERS
from flowjax.planning.plan import PodPlan
from flowjax.report.table import Table, yes

FORMULA = (
    "roofline: the sum over a program's instructions of max(FLOPs / peak, bytes / bandwidth), and "
    "of collectives twice their bytes / links; a model, not measured on these devices"
)


def show(plan: PodPlan) -> None:
    """Print a plan on standard output."""
    where, chip = plan.target.slice, plan.target.slice.chip
    layout, flops = plan.reading.prompt.layout, plan.sweep.plan.flops
    counted = (
        f"text counted as {CHARACTERS} characters a token" if plan.model.tokenizer is None else ""
    )
    assumed = "a typical question is assumed" if plan.data.assumed else "the median question"
    notes = "; ".join(filter(None, (assumed, counted)))
    print(f"model    {plan.model.name}, {plan.model.dtype}")
    print(f"devices  {where}: {where.devices} x {chip.memory / GIB:.2f} GiB")
    print(f"data     {plan.data.name}: {plan.data.samples:,} questions ({notes})")
    print(f"prompt   {layout.length:,} positions, {plan.sweep.plan.length:,} with padding")
    swept = plan.sweep
    counts = f"windows {len(swept.knockouts):,}, batches {len(swept.plan.batches):,}"
    print(f"sweep    {counts}, shapes {swept.plan.shapes}\n")
    meshes_table(plan).print()
    memory_table(plan).print()
    work_table(plan).print()
    fits = plan.peak / chip.memory
    print(f"\nfits     {plan.peak / GIB:.2f} of {chip.memory / GIB:.2f} GiB a device ({fits:.0%})")
    print(f"mesh     {plan.chosen.shape}: {why(plan)}")
    print(f"         {started(plan)}")
    for name, batch in largest(plan).items():
        print(f"windows  at most {batch:,} of {name} at once, counted")
    print(
        f"time     {plan.seconds:.2f} s a sample in a group, {plan.per_hour:,.0f} samples an hour, "
        f"{plan.hours:.2f} hours for the data, at the roofline"
    )
    print(
        f"naive    {flops.naive / flops.planned:.1f} times the FLOPs: a full forward a window is "
        f"{plan.naive_hours:.2f} hours at the chips' peak alone"
    )
    print(f"\n{FORMULA}")
    print(
        f"peak {chip.flops / 1e12:,.0f} TFLOP/s, memory {chip.bandwidth / 1e9:,.0f} GB/s, links "
        f"{chip.links / 1e9:,.0f} GB/s ({chip.source})"
    )
    print(compiled_how(chip))


def meshes_table(plan: PodPlan) -> Table:
    """Every mesh that was considered."""
    rows = [
        [
            str(each.shape),
            "chosen" if each is plan.chosen else yes(each.peak <= plan.target.slice.chip.memory),
            str(each.groups),
            str(each.copies),
            f"{each.parameters / GIB:.2f}",
            f"{each.peak / GIB:.2f}",
            f"{each.per_hour:,.0f}",
        ]
        for each in plan.estimates
    ]
    return Table(
        "Meshes, counted",
        ["mesh", "fits"],
        ["groups", "copies in one", "parameters GiB", "peak GiB", "samples an hour"],
        rows,
        "samples are divided over groups, a sample's windows over the copies of a group",
    )


def memory_table(plan: PodPlan) -> Table:
    """What every program takes of a device."""
    rows = []
    for each in (*plan.programs, *plan.others):
        use = plan.use(each)
        numbers = (use.parameters, use.kept, use.temporaries, use.peak)
        share = use.peak / plan.target.slice.chip.memory
        rows.append(
            [each.program.name, *(f"{number / GIB:.3f}" for number in numbers), f"{share:.0%}"]
        )
    return Table(
        "Memory of a device, compiled (GiB)",
        ["program"],
        ["parameters", "kept states", "temporaries", "peak", "of memory"],
        rows,
    )


def work_table(plan: PodPlan) -> Table:
    """What a device does for a sample."""
    rows = [
        [
            each.program.name,
            str(each.runs),
            f"{each.cost.flops / 1e12:.3f}",
            f"{each.cost.bytes / 1e9:.2f}",
            f"{sum(each.cost.collectives.values()) / 1e9:.2f}",
            f"{each.cost.seconds:.3f}",
        ]
        for each in (*plan.programs, *plan.others)
    ]
    return Table(
        "Work of a device for one sample, compiled",
        ["program"],
        ["runs", "TFLOP", "GB", "GB of collectives", "seconds at the roofline"],
        rows,
        "a sweep runs neither the pruned prefill nor the step of training" if plan.others else "",
    )


def largest(plan: PodPlan) -> dict[str, int]:
    """The most windows at once, of the fewest rows and of the most."""
    windows = [each for each in plan.programs if each.program.batch is not None]

    def rows(each: Measured) -> int:
        assert each.program.batch is not None
        return each.program.batch.rows

    chosen = sorted(windows, key=rows)
    return {f"{rows(each):,} rows": plan.largest(each) for each in (*chosen[:1], *chosen[-1:])}


def why(plan: PodPlan) -> str:
    """Why the mesh is the one to take."""
    chosen, memory = plan.chosen, plan.target.slice.chip.memory
    fitting = [each for each in plan.estimates if each.peak <= memory]
    smaller = [each for each in plan.estimates if each.shape.model < chosen.shape.model]
    if len(plan.estimates) == 1:
        return "as asked for"
    reasons = []
    if smaller and not any(each in fitting for each in smaller):
        reasons.append("the fewest devices that hold a copy")
    rest = [each.per_hour for each in fitting if each is not chosen]
    if rest:
        reasons.append(f"{chosen.per_hour / max(rest):.2f} times the samples an hour of the next")
    return ", ".join(reasons) or "the only one that fits"


def started(plan: PodPlan) -> str:
    """How a run is started on it."""
    target = plan.target
    kind = "GPU" if target.slice.chip.platform == "cuda" else "host"
    one = "one process" if target.processes == 1 else f"{target.processes} processes"
    flag = "without --mesh" if target.alone else f"with --mesh {plan.chosen.shape}"
    return f"start {one}, one a {kind}, {flag}"


def compiled_how(chip: Chip) -> str:
    """That programs are compiled quickly."""
    options = " ".join(f"{name}={value}" for name, value in QUICKLY[chip.platform].items())
    return f"compiled with {options}, which takes less time than a run's own compiling"


def as_json(plan: PodPlan) -> dict[str, Any]:
    """All of it."""
    where, chip = plan.target.slice, plan.target.slice.chip
    return {
        "model": plan.model.name,
        "dtype": plan.model.dtype,
        "devices": str(where),
        "chip": dataclasses.asdict(chip),
        "data": {"name": plan.data.name, "samples": plan.data.samples},
        "positions": plan.reading.prompt.layout.length,
        "padded_positions": plan.sweep.plan.length,
        "windows": len(plan.sweep.knockouts),
        "flops": dataclasses.asdict(plan.sweep.plan.flops),
        "mesh": {
            "recommended": str(plan.chosen.shape),
            "why": why(plan),
            "start": started(plan),
            "groups": plan.target.groups,
            "copies": plan.target.copies,
        },
        "meshes": [
            {
                "mesh": str(each.shape),
                "groups": each.groups,
                "copies": each.copies,
                "parameter_bytes": each.parameters,
                "kept_bytes": each.kept,
                "working_bytes": each.working,
                "fits": each.peak <= chip.memory,
                "samples_per_hour": each.per_hour,
            }
            for each in plan.estimates
        ],
        "programs": [_program(plan, each) for each in (*plan.programs, *plan.others)],
        "peak_bytes": plan.peak,
        "largest_windows": largest(plan),
        "seconds_per_sample": plan.seconds,
        "samples_per_hour": plan.per_hour,
        "hours": plan.hours,
        "naive_hours_at_peak": plan.naive_hours,
        "roofline": FORMULA,
        "compiler_options": dict(QUICKLY[chip.platform]),
    }


def _program(plan: PodPlan, each: Measured) -> dict[str, Any]:
    use = plan.use(each)
    return {
        "name": each.program.name,
        "runs": each.runs,
        "parameter_bytes": use.parameters,
        "kept_bytes": use.kept,
        "temporary_bytes": use.temporaries,
        "peak_bytes": use.peak,
        "flops": each.cost.flops,
        "bytes": each.cost.bytes,
        "collective_bytes": dict(each.cost.collectives),
        "seconds": each.cost.seconds,
    }
