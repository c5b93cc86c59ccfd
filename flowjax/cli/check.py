"""`flowjax check`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Fps, Frames, MaxPixels, Model, Prompt


def check(
    model: Model,
    src: Annotated[
        str, typer.Argument(help="What it was converted from: a checkpoint's folder or a hub id.")
    ],
    video: Annotated[
        Path | None, typer.Option(help="A video file; a small clip is made if absent.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="What to ask about it.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option; give one per option, in order.")
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(help="float32 widens weights layer by layer; bfloat16 has looser bounds."),
    ] = "float32",
    device: Annotated[str, typer.Option(help="Of PyTorch: cpu, cuda, ...")] = "cpu",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the comparison, for an issue.")
    ] = None,
    num_frames: Frames = None,
    fps: Fps = None,
    max_pixels: MaxPixels = None,
    prompt: Prompt = None,
) -> None:
    """Compare a converted model with its checkpoint in transformers, stage by stage.

    Prompt ids, pixel values, vision features, every layer, logits, 16 greedy tokens and three
    knockouts. The exit code is 1 if more differs than rounding explains. Needs flowjax[check].
    """
    from flowjax.data.video_options import VideoOptions
    from flowjax_convert.check import command

    raise typer.Exit(
        command.run(
            model,
            src,
            json_file=json,
            video=video,
            question=question,
            options=tuple(option or ()),
            dtype=dtype,
            device=device,
            reading=VideoOptions(num_frames, fps, max_pixels),
            asked_by=prompt,
        )
    )
