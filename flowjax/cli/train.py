"""`flowjax train`."""

from pathlib import Path
from typing import Annotated

import typer

from flowjax.cli.options import Coordinator, NumProcesses, ProcessId, as_one_of


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; docs/training.md has every field.")],
    stop_at: Annotated[
        int | None, typer.Option(min=1, help="End after this step, as if killed.")
    ] = None,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
) -> None:
    """Tune a converted model on instructions about videos; the same command goes on."""
    import logging

    from flowjax.compilation import use_persistent_cache
    from flowjax.hosts.detect import processes

    def run() -> None:
        from flowjax.hosts.together import process
        from flowjax_experiments.train import run

        use_persistent_cache()
        model = run(config, stop_at=stop_at)
        if model is not None and process() == 0:
            print(f"model    {model}")

    console, log = logging.StreamHandler(), logging.getLogger("flowjax.train")
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(console)
    log.setLevel(logging.INFO)
    log.propagate = False
    as_one_of(processes(coordinator, num_processes, process_id), run)
