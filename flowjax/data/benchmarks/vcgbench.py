"""VCGBench, the quantitative benchmark of Video-ChatGPT (Maaz et al. 2023, arXiv 2306.05424).

Repository github.com/mbzuai-oryx/Video-ChatGPT (CC BY-SA 4.0; the videos are ActivityNet's).
Answers are open; an external judge scores them (see `flowjax evaluate`).

    DIR/Benchmarking_QA/<task>.json   generic_qa, temporal_qa, consistency_qa: lists of objects:
                                      video_name, Q (or Q1 and Q2, two ways to ask), A
    DIR/Test_Videos/<video_name>.mp4  or .mkv, .avi, .mov
"""

from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields
from flowjax.data.json_lists import json_list, task_files

ASKED = ("Q", "Q1", "Q2")


def rows(root: Path, task: str, file: Path) -> Rows:
    """The entries of one task, one for each way in which a question is asked."""
    del root
    for index, value in enumerate(json_list(file)):
        names = [name for name in ASKED if isinstance(value, dict) and name in value] or ["Q"]
        for name in names:
            where = f"entry {index}" + ("" if names == ["Q"] else f" {name}")
            yield where, lambda name=name, value=value: entry(task, name, value)


def entry(task: str, name: str, value: object) -> Entry:
    """The question that the field `name` asks."""
    fields = Fields(value, "video_name, Q and A")
    video = fields.path("video_name", "Test_Videos")
    return Entry(task, fields.text(name), (), "", video, reference=fields.text("A"))


BENCHMARK = Benchmark(
    name="vcgbench",
    needs="Benchmarking_QA/<task>.json and Test_Videos/",
    accepts=lambda path: bool(task_files(path / "Benchmarking_QA")),
    files=lambda path: task_files(path / "Benchmarking_QA"),
    rows=rows,
)
