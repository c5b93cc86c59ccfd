"""Video-MME (Fu et al. 2024, arXiv 2405.21075): videos of eleven seconds to an hour.

Repository github.com/MME-Benchmarks/Video-MME, data set lmms-lab/Video-MME on the hub (for research
only), with the archives of videos and subtitles unpacked. The tasks are the three lengths.

    DIR/videomme/test-00000-of-00001.parquet   duration (short, medium or long), videoID, question,
                                               options ("A. ..."), answer (a letter), ...
    DIR/data/<videoID>.mp4                     or in video/ or videos/
    DIR/subtitle/<videoID>.srt                 of some; or in subtitles/
"""

import re
from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields, inside
from flowjax.data.tables import table_rows

LETTERED = re.compile(r"^\s*[A-Z][.)]\s+")
"""What stands before the text of an option."""


def files(path: Path) -> dict[str, Path]:
    """The table of questions."""
    tables = sorted((path / "videomme").glob("*.parquet"))
    return {"test": tables[0]} if tables else {}


def folder(path: Path, names: tuple[str, ...]) -> str:
    """The first of these folders that is there, or else the first."""
    return next((name for name in names if (path / name).is_dir()), names[0])


def rows(root: Path, name: str, file: Path) -> Rows:
    """The entries of the table."""
    del name
    videos = folder(root, ("data", "video", "videos"))
    subtitles = folder(root, ("subtitle", "subtitles"))
    return table_rows(file, lambda value: entry(root, videos, subtitles, value))


def entry(root: Path, videos: str, subtitles: str, value: object) -> Entry:
    """One question; its subtitles are kept where there is a file of them."""
    fields = Fields(value, "duration, videoID, question, options and answer")
    options = fields.options("options")
    name = fields.text("videoID")
    spoken = inside(f"{name}.srt", "videoID", subtitles)
    return Entry(
        fields.text("duration"),
        fields.text("question"),
        tuple(LETTERED.sub("", option) for option in options),
        fields.letter("answer", options),
        inside(f"{name}.mp4", "videoID", videos),
        subtitles=spoken if (root / spoken).is_file() else "",
    )


BENCHMARK = Benchmark(
    name="video_mme",
    needs="videomme/test-00000-of-00001.parquet and data/<videoID>.mp4",
    accepts=lambda path: bool(files(path)),
    files=files,
    rows=rows,
)
