"""`flowjax generate`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Fps, Frames, MaxPixels, Model, Prompt


def generate(
    model: Model,
    video: Annotated[Path, typer.Argument(help="A video file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="An option, for multiple choice; give one per option, in order."),
    ] = None,
    pathway: Annotated[
        str,
        typer.Option(
            help="none: all edges; paper or strict: the paper's pathway for this model in that "
            "form; or a file that `flowjax pathways find` wrote."
        ),
    ] = "none",
    exit: Annotated[
        str | None,
        typer.Option(
            help="Answer from an early layer where it is sure: entropy<NATS, gap>SHARE or "
            "option-gap>SHARE, then @layer>=N for layers from N (from 0) on; or RUN@TOLERANCE, as "
            "a run of `flowjax exit` calibrates it."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 64,
    temperature: Annotated[
        float, typer.Option(help="Of sampling; 0 takes the most probable token.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample among the tokens that together have this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    num_frames: Frames = None,
    fps: Fps = None,
    max_pixels: MaxPixels = None,
    prompt: Prompt = None,
) -> None:
    """Answer a question about a video, with all edges or on a pathway that is compiled."""
    from flowjax.data.video_options import VideoOptions
    from flowjax.inference.decode import Sampling
    from flowjax_experiments.generate import Asked, run

    run(
        Asked(
            model=model,
            video=video,
            question=question,
            options=tuple(option or ()),
            pathway=pathway,
            tokens=max_new_tokens,
            sampling=Sampling(temperature, top_p, seed),
            exit=exit,
            reading=VideoOptions(num_frames, fps, max_pixels),
            prompt=prompt,
        )
    )
