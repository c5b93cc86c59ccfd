"""`flowjax prepare`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowjax.cli.options import remote

if TYPE_CHECKING:
    from flowjax.data.frame_rate import AtRate
    from flowjax.data.video_options import VideoOptions


def prepare(
    data: Annotated[
        Path, typer.Argument(help="A benchmark's folder as published, or a table of questions.")
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder to make, or gs://; --data takes it then.", parser=remote, metavar="OUT"
        ),
    ],
    frames: Annotated[
        int | None, typer.Option(help="Frames of every video. Default: as many as --model reads.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second instead, chosen as the family of --model does."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A converted model that is to read them.", parser=remote, metavar="PATH"),
    ] = None,
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
    from flowjax.data.video_options import VideoOptions
    from flowjax.downloads import size_of
    from flowjax.errors import FlowjaxError
    from flowjax.progress import progress_bar
    from flowjax.report.table import Table

    for name, value in (("size", size), ("workers", workers)):
        if value is not None and value < 1:
            raise FlowjaxError(f"--{name} {value}: give at least 1")
    chosen = frames_read(model, VideoOptions(frames, fps))
    if is_prepared(data):
        raise FlowjaxError(f"{data} is prepared already; give the benchmark that it was made of")
    samples = read_benchmark(data, tuple(task or ()), limit)
    plan = Plan.of(samples)
    with progress_bar("videos", len(plan.clips)) as advance:
        failed = prepare(
            plan,
            data,
            out,
            frames=chosen,
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
    total = sum(map(size_of, (out / FRAMES).iterdir()))
    print(f"\nframes   {out} ({len(plan.clips)} clips, {total / 1e6:.1f} MB)")


def frames_read(model: Path | None, asked: "VideoOptions") -> "int | AtRate":
    """How many frames of a video are stored, or what chooses them.

    Raises:
        FlowjaxError: neither a number nor a model is given, or a rate without a model.
    """
    from flowjax.errors import FlowjaxError

    if model is not None:
        from flowjax.models.checkpoint import load_model

        return load_model(model, parameters=False).reading(asked).frames
    if asked.fps is not None:
        raise FlowjaxError(
            f"--fps {asked.fps:g}: which frames they are is the rule of a model's family; give "
            "--model, the model that is to read them"
        )
    if asked.num_frames is None:
        raise FlowjaxError("give --frames, or --model, the model that is to read them")
    return asked.num_frames
