"""LongVideoBench (Wu et al. 2024, arXiv 2407.15754): videos of up to an hour, with subtitles.

Repository github.com/longvideobench/LongVideoBench, data set longvideobench/LongVideoBench on the
hub (CC BY-NC-SA 4.0), with its archives unpacked. The tasks are the groups of lengths, in seconds.

    DIR/lvb_val.json          a list of objects: question, candidates, correct_choice (the number of
                              the true one, from 0), video_path, subtitle_path, duration_group, ...
    DIR/lvb_test_wo_gt.json   the same without correct_choice; read where lvb_val.json is absent
    DIR/videos/<video_path>
    DIR/subtitles/<subtitle_path>
"""

from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields
from flowjax.data.json_lists import json_rows


def files(path: Path) -> dict[str, Path]:
    """The file of the validation set, or else of the test set."""
    names = {"val": path / "lvb_val.json", "test": path / "lvb_test_wo_gt.json"}
    there = [(name, file) for name, file in names.items() if file.is_file()]
    return dict(there[:1])


def rows(root: Path, name: str, file: Path) -> Rows:
    """The entries of the file."""
    del name
    return json_rows(file, lambda value: entry(root, value))


def entry(root: Path, value: object) -> Entry:
    """One question; its subtitles are kept where there is a file of them."""
    fields = Fields(value, "question, candidates, video_path and duration_group")
    options = fields.options("candidates")
    spoken = fields.path("subtitle_path", "subtitles") if fields.has("subtitle_path") else ""
    return Entry(
        fields.text("duration_group"),
        fields.text("question"),
        options,
        fields.letter_of_index("correct_choice", options) if fields.has("correct_choice") else "",
        fields.path("video_path", "videos"),
        subtitles=spoken if spoken and (root / spoken).is_file() else "",
    )


BENCHMARK = Benchmark(
    name="longvideobench",
    needs="lvb_val.json, videos/ and subtitles/",
    accepts=lambda path: bool(files(path)),
    files=files,
    rows=rows,
)
