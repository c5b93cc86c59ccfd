"""`flowjax convert`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Overwrite, remote


def convert(
    src: Annotated[str, typer.Argument(help="A checkpoint's folder, or a hub id org/name.")],
    out: Annotated[
        Path | None,
        typer.Argument(help="Folder to make, or gs://.", parser=remote, metavar="[OUT]"),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; each tensor keeps its own if absent.")
    ] = None,
    pooling_shape: Annotated[
        str | None, typer.Option(help="Frames, rows and columns kept by pooling, as T-H-W.")
    ] = None,
    vision_attention: Annotated[
        str | None,
        typer.Option(
            help="VideoLLaMA3 in its first layout: eager adds the mask of frames to the scores, as "
            "the published analysis computed; the release itself masks."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="chat: have the model asked by the checkpoint's chat template instead of the "
            "family's own prompt."
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="A LoRA adapter (PEFT) to merge into SRC: a folder or a hub id."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    note: Annotated[
        str, typer.Option(help="A sentence that every result of this model will carry.")
    ] = "",
    verify: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Compare OUT, made from SRC, with it; write nothing."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a Hugging Face checkpoint to Orbax."""
    from flowjax_convert import command

    if verify is not None:
        raise typer.Exit(command.verify(src, verify))
    command.convert(
        src,
        out,
        dtype=dtype,
        pooling_shape=pooling_shape,
        vision_attention=vision_attention,
        prompt=prompt,
        adapter=adapter,
        revision=revision,
        note=note,
        overwrite=overwrite,
    )
