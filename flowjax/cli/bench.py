"""`flowjax bench`: measurements, side by side in one run."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure, side by side in one run.", no_args_is_help=True)

Json = Annotated[Path | None, typer.Option(help="File to write the result to.")]


@app.command()
def sweep(
    shape: Annotated[str, typer.Option(help="small (12 layers, 512 wide) or 7b.")] = "small",
    peer: Annotated[str | None, typer.Option(help="torch: measure a PyTorch loop too.")] = None,
    json: Json = None,
) -> None:
    """The planned sweep beside the naive one."""
    from flowjax_benchmarks.sweep import run

    run(shape, peer=peer, json=json)


@app.command()
def sweep_attention(
    shape: Annotated[str, typer.Option(help="small, llava-7b or qwen2.5-vl-7b.")] = "small",
    frames: Annotated[
        list[int] | None, typer.Option(help="Frames of 144 tokens; again for more prompts.", min=1)
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Fewer than the decoder's.", min=1)] = None,
    rounds: Annotated[int, typer.Option(help="Sweeps of each kind.", min=1)] = 3,
    json: Json = None,
) -> None:
    """The planned sweep by the attention kernel beside the same by plain attention."""
    from flowjax_benchmarks.sweep_attention import run

    run(shape, frames=frames or (8,), layers=layers, rounds=rounds, json=json)


@app.command()
def prefill(
    shape: Annotated[str, typer.Option(help="small (12 layers, 512 wide) or 7b.")] = "small",
    json: Json = None,
) -> None:
    """Prefill with all edges, masked to a pathway, and compiled to it."""
    from flowjax_benchmarks.prefill import run

    run(shape, json=json)


@app.command()
def efficiency(
    shape: Annotated[str, typer.Option(help="small (12 layers, 512 wide) or 7b.")] = "small",
    frames: Annotated[int, typer.Option(help="Frames of 144 tokens.", min=4)] = 8,
    rounds: Annotated[int, typer.Option(help="Prefills of each kind.", min=1)] = 5,
    json: Json = None,
) -> None:
    """Prefills made cheaper in every way, beside the one that cuts nothing."""
    from flowjax_benchmarks.efficiency import run

    run(shape, json=json, frames=frames, rounds=rounds)


@app.command()
def routes(
    shape: Annotated[str, typer.Option(help="small (12 layers, 512 wide) or 7b.")] = "small",
    frames: Annotated[int, typer.Option(help="Frames of 144 tokens.", min=4)] = 8,
    rounds: Annotated[int, typer.Option(help="Prefills of each kind.", min=1)] = 5,
    json: Json = None,
) -> None:
    """Sample-adaptive prefills along their routes, beside one static program."""
    from flowjax_benchmarks.routes import run

    run(shape, json=json, frames=frames, rounds=rounds)


@app.command()
def kernel(
    shape: Annotated[str, typer.Option(help="small or 7b.")] = "small",
    peer: Annotated[
        str | None, typer.Option(help="flex: measure PyTorch's FlexAttention too.")
    ] = None,
    peer_seconds: Annotated[
        float, typer.Option(help="A prompt's time to compile for the peer.", min=0)
    ] = 600,
    frames: Annotated[
        list[int] | None, typer.Option(help="Frames of 144 tokens; again for more prompts.", min=1)
    ] = None,
    json: Json = None,
) -> None:
    """Pruned attention beside dense attention, against the share of blocks that are kept."""
    from flowjax_benchmarks.kernel import run

    run(shape, peer=peer, peer_seconds=peer_seconds, frames=frames or (), json=json)


@app.command()
def prepared(
    clips: Annotated[int, typer.Option(help="Clips to prepare.", min=20)] = 1_000,
    json: Json = None,
) -> None:
    """Reading prepared frames beside decoding them, and opening a benchmark of many questions."""
    from flowjax_benchmarks.prepared import run

    run(clips=clips, json=json)


@app.command()
def coverage(
    runs: Annotated[int, typer.Option(help="Draws of each population.", min=100)] = 4_000,
    json: Json = None,
) -> None:
    """How often intervals hold the truth, and how often the test calls nothing an effect."""
    from flowjax_benchmarks.coverage import run

    run(runs=runs, json=json)


@app.command()
def report(
    samples: Annotated[int, typer.Option(help="Samples of the sweep.", min=6)] = 1_000,
    json: Json = None,
) -> None:
    """What a report takes: a large sweep, lens words and attention of a long video."""
    from flowjax_benchmarks.report import run

    run(samples=samples, json=json)
