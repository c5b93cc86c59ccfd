"""MVBench (Li et al. 2023, arXiv 2311.17005): twenty tasks of perception and cognition.

Repository github.com/OpenGVLab/Ask-Anything, data set OpenGVLab/MVBench on the hub (MIT; videos
under the licences of their sources), with the archives of its `video/` unpacked where they are.

    DIR/json/<task>.json          a list of objects: question, candidates, answer (the text of the
                                  true candidate), video; for some tasks start and end, in seconds
    DIR/video/star/Charades_v1_480/<video>        and so on, see `FOLDERS`
    DIR/video/tvqa/frames_fps3_hq/<video>/        frames as pictures, three a second
"""

from collections.abc import Mapping
from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields
from flowjax.data.json_lists import json_rows, task_files
from flowjax.errors import FlowjaxError

CHARADES, CLEVRER = "star/Charades_v1_480", "clevrer/video_validation"
PERCEPTION, TVQA = "perception/videos", "tvqa/frames_fps3_hq"
FOLDERS: Mapping[str, str] = {
    "action_antonym": "ssv2_video",
    "action_count": PERCEPTION,
    "action_localization": "sta/sta_video",
    "action_prediction": CHARADES,
    "action_sequence": CHARADES,
    "character_order": PERCEPTION,
    "counterfactual_inference": CLEVRER,
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": TVQA,
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": CLEVRER,
    "moving_count": CLEVRER,
    "moving_direction": CLEVRER,
    "object_existence": CLEVRER,
    "object_interaction": CHARADES,
    "object_shuffle": PERCEPTION,
    "scene_transition": "scene_qa/video",
    "state_change": PERCEPTION,
    "unexpected_action": "FunQA_test/test",
}
"""Folder of every task's videos, in `video/`."""

FRAMES_PER_SECOND = 3.0
"""Of TVQA's pictures."""


def is_mvbench(path: Path) -> bool:
    """Whether a folder has videos where MVBench has them, and not by task."""
    tasks = [task for task in FOLDERS if (path / "json" / f"{task}.json").is_file()]
    return any((path / "video" / FOLDERS[task]).is_dir() for task in tasks) and not any(
        (path / "video" / task).is_dir() for task in tasks
    )


def rows(root: Path, task: str, file: Path) -> Rows:
    """The entries of one task."""
    del root
    if task not in FOLDERS:
        raise FlowjaxError(f"{file}: MVBench has no task {task!r}; it has {', '.join(FOLDERS)}")
    return json_rows(file, lambda fields: entry(task, fields))


def entry(task: str, value: object) -> Entry:
    """One question."""
    fields = Fields(value, "question, candidates, answer and video")
    options = fields.options("candidates")
    return Entry(
        task,
        fields.text("question"),
        options,
        fields.letter_of_text("answer", options, "candidates"),
        fields.path("video", f"video/{FOLDERS[task]}", "the task's folder"),
        fields.seconds("start"),
        fields.seconds("end"),
        rate=FRAMES_PER_SECOND if FOLDERS[task] == TVQA else float("nan"),
    )


BENCHMARK = Benchmark(
    name="mvbench",
    needs="json/<task>.json and the unpacked archives, such as video/star/Charades_v1_480/",
    accepts=is_mvbench,
    files=lambda path: task_files(path / "json"),
    rows=rows,
)
