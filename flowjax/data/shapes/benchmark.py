"""The benchmark on disk, in TVBench's layout (see `flowjax.data.benchmarks.tvbench`)."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowjax.data.encode import write_mp4
from flowjax.data.prompt import Question
from flowjax.data.shapes.paint import frames
from flowjax.data.shapes.scene import Scene
from flowjax.data.shapes.tasks import IMAGE_TASKS, VIDEO_TASKS, Draw, draw_question
from flowjax.data.shapes.world import SPLITS
from flowjax.errors import FlowjaxError
from flowjax.files import check_writable, writing
from flowjax.folders import is_free, new_directory
from flowjax.progress import progress_bar

FRAMES, FPS, SIZE = 24, 12, 96
"""Of every video; the sides are pixels."""

TIMED = ("action_sequence",)
"""Tasks whose questions say from when to when they ask, as TVBench's do."""

SIGN = "json"
"""The folder of the questions."""

TASKS = tuple(VIDEO_TASKS | IMAGE_TASKS)


def write_benchmark(
    out: Path,
    *,
    split: str,
    per_task: int,
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write questions and videos of some tasks; the same arguments give the same files.

    Args:
        out: a folder, which appears when it is complete.
        split: train, validation or test. The things that test questions are about have
            combinations of colour, shape and motion that the other splits never show.
        per_task: questions of each task.
        tasks: of `TASKS`; the files of one do not depend on which others are made.
        seed: of the random choices.
        overwrite: replace a benchmark in this folder.

    Raises:
        FlowjaxError: an unknown split, fewer than one question, or a folder that exists or cannot
            be written.
    """
    if split not in SPLITS:
        raise FlowjaxError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
    if per_task < 1:
        raise FlowjaxError(f"{per_task} questions per task: give at least 1")
    with writing(out):
        free = is_free(out)
    if not free and not (overwrite and (out / SIGN).is_dir() and (out / "video").is_dir()):
        raise FlowjaxError(
            f"{out} already exists; choose another folder"
            + ("" if overwrite else " or give --overwrite")
        )
    check_writable(Path(os.path.realpath(out)))
    with writing(out), new_directory(out, SIGN) as partial:
        (partial / SIGN).mkdir()
        with progress_bar("videos", len(tasks) * per_task) as advance:
            for task in tasks:
                entries = []
                (partial / "video" / task).mkdir(parents=True)
                for turn in range(per_task):
                    entries.append(_write_question(partial, task, turn, split, seed))
                    advance(1)
                text = json.dumps(entries, indent=1)
                (partial / SIGN / f"{task}.json").write_text(text + "\n", encoding="utf-8")


def benchmark_question(task: str, turn: int, *, split: str, seed: int) -> tuple[Scene, Question]:
    """The scene and question number `turn` of a task, as `write_benchmark` writes them."""
    rng = np.random.default_rng([seed, TASKS.index(task), SPLITS.index(split), turn])
    return draw_question(task, Draw(rng, test=split == "test"), turn)


def _write_question(folder: Path, task: str, turn: int, split: str, seed: int) -> dict[str, object]:
    scene, question = benchmark_question(task, turn, split=split, seed=seed)
    name = f"{turn:04d}.mp4"
    write_mp4(folder / "video" / task / name, frames(scene, FRAMES, SIZE), FPS)
    assert question.answer is not None
    entry: dict[str, object] = {
        "question": question.stem,
        "candidates": list(question.options),
        "answer": question.options[question.letters.index(question.answer)],
        "video": name,
    }
    if task in TIMED:
        entry |= {"start": 0.0, "end": FRAMES / FPS}
    return entry
