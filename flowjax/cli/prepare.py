"""`flowjax prepare`."""

import os
from pathlib import Path
from typing import Annotated

import typer


def prepare(
    data: Annotated[
        Path, typer.Argument(help="A benchmark's folder as published, or a table of questions.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to make; --data takes it then.")],
    frames: Annotated[int, typer.Option(help="Frames of every video, as many as the model reads.")],
    size: Annotated[
        int | None,
        typer.Option(help="Pixels that the short side of larger frames is made. Default: all."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode. Default: one per core.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of it; may be repeated. Default: all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many questions per task.")] = None,
) -> None:
    """Decode a benchmark's videos once; commands read the frames instead, with the same results.

    Frames are stored without loss, and those of a video that several questions are about once. The
    same command goes on where it was stopped, and tries videos again that could not be read.
    """
    from flowjax.data.benchmark import read_benchmark
    from flowjax.data.prepare import Plan, is_prepared, prepare
    from flowjax.data.prepared import FRAMES
    from flowjax.errors import FlowjaxError
    from flowjax.progress import progress_bar
    from flowjax.report.table import Table

    for name, value in (("frames", frames), ("size", size), ("workers", workers)):
        if value is not None and value < 1:
            raise FlowjaxError(f"--{name} {value}: give at least 1")
    if is_prepared(data):
        raise FlowjaxError(f"{data} is prepared already; give the benchmark that it was made of")
    samples = read_benchmark(data, tuple(task or ()), limit)
    plan = Plan.of(samples)
    with progress_bar("videos", len(plan.clips)) as advance:
        failed = prepare(
            plan,
            data,
            out,
            num_frames=frames,
            size=size,
            workers=workers or os.cpu_count() or 1,
            advance=advance,
        )
    rows = []
    for name in dict.fromkeys(samples.tasks):
        mine = [clip for clip, own in zip(plan.clip_of, samples.tasks, strict=True) if own == name]
        clips = {clip for clip in mine if clip >= 0}
        bad = sum(clip < 0 or clip in failed for clip in mine)
        rows.append([name, str(len(mine)), str(len(clips)), str(bad)])
    Table("Prepared", ["task"], ["questions", "clips", "not readable"], rows).print()
    for clip, why in sorted(failed.items()):
        print(f"  {plan.clips[clip].video}: {why}")
    for row in plan.rows:
        if row.problem:
            print(f"  {row.sample_id}: {row.problem}")
    size_of = sum(file.stat().st_size for file in (out / FRAMES).iterdir())
    print(f"\nframes   {out} ({len(plan.clips)} clips, {size_of / 1e6:.1f} MB)")
