"""NExT-QA (Xiao et al., CVPR 2021, arXiv 2105.08276): why and how, before and after; five options.

Repository github.com/doc-doc/NExT-QA (MIT; the videos are VidOR's). The tasks are its types of
questions: CH, CW (causal), TC, TN, TP (temporal), DB, DC, DL, DO (descriptive).

    DIR/val.csv (or test.csv, or train.csv)   video, question, answer (the number of the true
                                              option, from 0), type, a0 to a4, ...
    DIR/map_vid_vidorID.json                  path of each video in NExTVideo/, without .mp4;
                                              where it is absent, videos are NExTVideo/<video>.mp4
    DIR/NExTVideo/1164/3238737531.mp4
"""

from collections.abc import Mapping
from pathlib import Path

from flowjax.data.benchmark import Benchmark, Rows
from flowjax.data.entry import Entry, Fields, inside
from flowjax.data.tables import table_rows
from flowjax.files import read_json

PLACES = "map_vid_vidorID.json"
OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def files(path: Path) -> dict[str, Path]:
    """The splits that are there."""
    splits = {name: path / f"{name}.csv" for name in ("train", "val", "test")}
    return {name: file for name, file in splits.items() if file.is_file()}


def rows(root: Path, name: str, file: Path) -> Rows:
    """The entries of one split."""
    del name
    places = read_json(root / PLACES) if (root / PLACES).is_file() else {}
    return table_rows(file, lambda value: entry(places, value))


def entry(places: Mapping[str, object], value: object) -> Entry:
    """One question."""
    fields = Fields(value, f"video, question, answer, type and {', '.join(OPTIONS)}")
    options = tuple(fields.text(name) for name in OPTIONS)
    name = fields.text("video")
    question = fields.text("question")
    return Entry(
        fields.text("type"),
        question if question.endswith("?") else f"{question}?",
        options,
        fields.letter_of_index("answer", options),
        inside(f"{places.get(name, name)}.mp4", "video", "NExTVideo"),
    )


BENCHMARK = Benchmark(
    name="next_qa",
    needs="val.csv, test.csv or train.csv, map_vid_vidorID.json and NExTVideo/",
    accepts=lambda path: bool(files(path)) and (path / "NExTVideo").is_dir(),
    files=files,
    rows=rows,
    beside=lambda path: [path / PLACES] if (path / PLACES).is_file() else [],
)
