"""`flowjax plan`."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A preset (--list), a converted model, or a folder with config.json.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(help="Devices to rent, such as v5e:4x4, v6e:4x4, v5p:2x2x4, h100x8, h200x8."),
    ] = None,
    data: Annotated[
        str,
        typer.Option(help="A benchmark and how many questions, such as tvbench:2500; or a folder."),
    ] = "tvbench:2500",
    edges: Annotated[
        list[str] | None, typer.Option(help="An edge set of the paper. Default: all four.")
    ] = None,
    edge: Annotated[
        list[str] | None, typer.Option(help="An edge of your own, such as 'video->last'.")
    ] = None,
    window: Annotated[int | None, typer.Option(help="Layers cut at a time. Default: 9.")] = None,
    centres: Annotated[
        str | None, typer.Option(help="Centres of the windows. Default: every layer.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames of every video. Default: as the checkpoint says.")
    ] = None,
    video: Annotated[str, typer.Option(help="Width and height of the videos.")] = "640x360",
    max_pixels: Annotated[
        int | None, typer.Option(help="Pixels that frames are resized to at most.")
    ] = None,
    mesh: Annotated[
        str | None, typer.Option(help="Such as data=4,model=2. Default: the best that fits.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of parameters. Default: the model's, or bfloat16.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="pathway: a pruned prefill too; training: a step of training too."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File to write the plan to.")] = None,
    presets: Annotated[bool, typer.Option("--list", help="Print the presets and stop.")] = False,
) -> None:
    """What a sweep takes on devices that are not here: memory, time, and the mesh to run it on.

    Every program is compiled for the devices, without them. Needs libtpu for TPUs (the extra
    `tpu-compile`), JAX's CUDA plugin for GPUs (`cuda-compile`).
    """
    import re

    from flowjax.errors import FlowjaxError
    from flowjax.planning.presets import PRESETS
    from flowjax.report.table import Table

    if presets:
        rows = [[name, preset.about] for name, preset in PRESETS.items()]
        Table("Presets", ["name", "model"], [], rows).print()
        return
    if model is None or on is None:
        raise FlowjaxError(
            f"give {'MODEL' if model is None else '--on'}; flowjax plan --list prints the presets"
        )
    match = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", video)
    if match is None:
        raise FlowjaxError(f"--video {video!r}: write width and height, such as 640x360")

    import jax

    from flowjax.compilation import use_persistent_cache
    from flowjax.files import atomically, check_writable, writing
    from flowjax.mesh import MeshShape
    from flowjax.planning.data import data_of
    from flowjax.planning.hardware import Slice
    from flowjax.planning.models import planned, reading
    from flowjax.planning.plan import make_plan
    from flowjax.planning.printed import as_json, show
    from flowjax.progress import progress_bar
    from flowjax_experiments.sweep import Sweep

    jax.config.update("jax_platforms", "cpu")
    use_persistent_cache()
    where, shape = Slice.parse(on), None if mesh is None else MeshShape.parse(mesh)
    asked, chosen = data_of(data), planned(model, dtype)
    if json is not None:
        check_writable(json)
    read = reading(
        chosen,
        asked.question,
        frames=frames,
        size=(int(match[1]), int(match[2])),
        max_pixels=max_pixels,
    )
    swept = Sweep(edges=tuple(edges or ()), edge=tuple(edge or ()), window=window, centres=centres)
    protocol = swept.protocol(chosen.config.decoder.layers)
    with progress_bar("compiling", 1) as advance:
        found = make_plan(
            chosen, where, asked, read, protocol, shape, also=also or (), advance=advance
        )
    show(found)
    if json is not None:
        import json as library

        text = library.dumps(as_json(found), indent=1) + "\n"
        with writing(json):
            json.parent.mkdir(parents=True, exist_ok=True)
            atomically(json, lambda temporary: temporary.write_text(text, encoding="utf-8"))
