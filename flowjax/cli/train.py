"""`flowjax train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; docs/training.md has every field.")],
    stop_at: Annotated[
        int | None, typer.Option(min=1, help="End after this step, as if killed.")
    ] = None,
) -> None:
    """Tune a converted model on instructions about videos; the same command goes on."""
    import logging

    from flowjax.compilation import use_persistent_cache
    from flowjax_experiments.train import run

    console, log = logging.StreamHandler(), logging.getLogger("flowjax.train")
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(console)
    log.setLevel(logging.INFO)
    log.propagate = False
    use_persistent_cache()
    model = run(config, stop_at=stop_at)
    if model is not None:
        print(f"model    {model}")
