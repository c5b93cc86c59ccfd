"""The demo: a checkpoint and videos from nothing to figures, in one command."""

import shutil
from pathlib import Path

from rich.console import Console

from convert.run import convert
from experiments.demo_checkpoint import NOTE, write_demo_checkpoint
from experiments.demo_clips import write_demo_clips
from experiments.information_flow import report
from flowjax.compilation import use_persistent_cache
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.families.pllava import SYSTEM
from flowjax.sweep.protocol import protocol
from flowjax.sweep.run import sweep

WINDOW = 3
CHECKPOINT = "random-pllava"
"""Folder of the checkpoint among the demo's inputs."""


def run(out: Path, *, overwrite: bool) -> None:
    """Make the inputs beside `out`, convert the checkpoint, sweep, and draw into `out`.

    Raises:
        FlowjaxError: `out` exists and `overwrite` is not given, or cannot be written.
    """
    use_persistent_cache()
    console = Console(stderr=True)
    inputs = out.with_name(f"{out.name}-inputs")
    if inputs.exists():
        if not overwrite or not (inputs / CHECKPOINT).is_dir():
            raise FlowjaxError(f"{inputs} already exists; the demo writes its inputs there")
        shutil.rmtree(inputs)
    console.print("Making videos and a checkpoint with random weights")
    (inputs / "clips").mkdir(parents=True)
    samples = [
        Sample(
            clip.sample_id,
            clip.task,
            clip.video,
            Question(clip.question, clip.options, clip.answer),
        )
        for clip in write_demo_clips(inputs / "clips")
    ]
    questions = [
        text for sample in samples for text in (sample.question.stem, *sample.question.options)
    ]
    checkpoint = inputs / CHECKPOINT
    write_demo_checkpoint(checkpoint, [SYSTEM, *questions])
    console.print("Converting the checkpoint to Orbax")
    convert(checkpoint, inputs / "model", note=NOTE)
    console.print(f"Sweeping {len(samples)} videos")
    loaded = load_model(inputs / "model")
    sweep(loaded, samples, protocol(width=WINDOW), out, overwrite=overwrite)
    report(out)
