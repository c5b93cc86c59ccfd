"""Every benchmark in the layout in which it is published, in small, with real videos."""

import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flowjax.data.benchmark import benchmark_of, benchmarks, read_benchmark
from flowjax.data.clip import read_clip, video_digest
from flowjax.data.encode import write_mp4
from flowjax.data.samples import shard
from flowjax.errors import FlowjaxError
from tests.videos import moving_square

ABC = ["red", "green", "blue"]
ASKED = {"question": "What moves?", "candidates": ABC, "answer": "green"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_mp4(path, moving_square(20), 10)
    return path


@pytest.fixture
def folder(tmp_path, clip):
    """Makes a benchmark's folder of files: JSON values, tables, or copies of the clip."""

    def make(files):
        for name, value in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if value is CLIP:
                shutil.copy(clip, path)
            elif path.suffix == ".parquet":
                pq.write_table(pa.Table.from_pylist(value), path)
            elif path.suffix == ".csv":
                with path.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(value[0]))
                    writer.writeheader()
                    writer.writerows(value)
            elif path.suffix == ".jsonl":
                path.write_text("".join(json.dumps(one) + "\n" for one in value), "utf-8")
            else:
                path.write_text(json.dumps(value), "utf-8")
        return tmp_path / "data"

    return make


CLIP = object()
TVBENCH = {
    "json/action_sequence.json": [ASKED | {"video": "a b.mp4", "start": 0.5, "end": 2.0}],
    "video/action_sequence/a b.mp4": CLIP,
    "json/object_count.json": [
        {"question": "How many?", "candidates": [1, 2], "answer": 2, "video": "é.mp4"},
        {"question": "And now?", "answer": "Two.", "video": "é.mp4"},
    ],
    "video/object_count/é.mp4": CLIP,
}
MVBENCH = {
    "json/action_sequence.json": [ASKED | {"video": "ZS.mp4", "start": 0.5, "end": 1.5}],
    "video/star/Charades_v1_480/ZS.mp4": CLIP,
    "json/moving_count.json": [ASKED | {"video": "v.mp4", "candidates": [*ABC, "red"]}],
    "video/clevrer/video_validation/v.mp4": CLIP,
}
TOMATO = {
    "data/count.json": {
        "0": {
            "question": "How often?", "options": ["1", "2", "2"], "answer": 1,
            "demonstration_type": "human", "key": "0027-1", "variation": {"reverse": 0},
        },
        "1": {
            "question": "How often?", "options": ["1", "2"], "answer": 7,
            "demonstration_type": "human", "key": "0027-2",
        },
    },
    "videos/human/0027-1.mp4": CLIP,
}  # fmt: skip
MME = {
    "videomme/test-00000-of-00001.parquet": [
        {
            "video_id": "001", "duration": duration, "domain": "Knowledge", "videoID": video,
            "task_type": "Counting", "question_id": "001-1", "question": "Which colour?",
            "options": ["A. Red.", "B. Green.", "C. A. B.", "D. Blue."], "answer": answer,
        }
        for duration, video, answer in (("short", "-x_1", "C"), ("long", "-x_2", "A"))
    ],
    "data/-x_1.mp4": CLIP,
    "data/-x_2.mp4": CLIP,
    "subtitle/-x_2.srt": "1\n00:00:00,000 --> 00:00:01,000\nHello\n",
}  # fmt: skip
LONG = {
    "lvb_val.json": [
        {
            "id": "86_0", "question": "When?", "candidates": ABC, "correct_choice": 2,
            "video_path": "86.mp4", "subtitle_path": "86_en.json", "duration_group": 3600,
        }
    ],
    "videos/86.mp4": CLIP,
    "subtitles/86_en.json": [],
}  # fmt: skip
NEXT = {
    "val.csv": [
        {
            "video": "4010069381", "frame_count": 20, "question": "how do the two, then, go",
            "answer": 4, "qid": 6, "type": "CH",
            **{f"a{i}": text for i, text in enumerate([*ABC, "red", 'say "go"'])},
        }
    ],
    "map_vid_vidorID.json": {"4010069381": "1164/4010069381"},
    "NExTVideo/1164/4010069381.mp4": CLIP,
}  # fmt: skip
COMPASS = {
    "questions/multi-choice.json": {
        "1021488277": {
            "action": [{"question": "What?\nA. red\nB. green", "answer": "B. green"}],
            "speed": [{"question": "What?", "answer": "B. green"}],
        }
    },
    "videos/1021488277.mp4": CLIP,
}
VCG = {
    "Benchmarking_QA/generic_qa.json": [{"video_name": "v_p", "Q": "What happens?", "A": "A dog."}],
    "Benchmarking_QA/consistency_qa.json": [
        {"video_name": "v_p", "Q1": "Is it so?", "Q2": "Is it, then?", "A": "It is."}
    ],
    "Test_Videos/v_p.mkv": CLIP,
}
TABLE = {
    "questions.jsonl": [
        {"video": "v/a.mp4", "question": "Which?", "options": ABC, "answer": "B", "task": "colour"},
        {"video": "v/a.mp4", "question": "What?", "answer": "A square.", "start": 0.5},
        {"video": "v/a.mp4", "question": "Which?", "options": ABC},
    ],
    "v/a.mp4": CLIP,
}
ANSWERS = {
    "tvbench": (TVBENCH, ["B", "B", "Two."]),
    "mvbench": (MVBENCH, ["B", "B"]),
    "tomato": (TOMATO, ["B", ""]),
    "video_mme": (MME, ["C", "A"]),
    "longvideobench": (LONG, ["C"]),
    "next_qa": (NEXT, ["E"]),
    "tempcompass": (COMPASS, ["B", ""]),
    "vcgbench": (VCG, ["It is.", "It is.", "A dog."]),
    "table": (TABLE, ["B", "A square.", ""]),
}


@pytest.mark.parametrize("name", benchmarks())
def test_the_published_layout(name, folder):
    files, answers = ANSWERS[name]
    path = folder(files)
    assert benchmark_of(path).name == name
    for _ in range(2):  # the second time from the cache
        samples = read_benchmark(path)
        assert [one.question.answer or one.reference for one in samples] == answers
    assert len(set(samples.ids)) == len(samples)
    asked = [one for one in samples if not one.problem]
    assert len(asked) >= len(samples) - 1
    for sample in asked:
        clip = read_clip(sample, 3)
        assert clip.frames.shape == (3, 64, 64, 3) and video_digest(sample.video)
    assert [one.task for one in samples if not one.problem] == [
        task for task, one in zip(samples.tasks, samples, strict=True) if not one.problem
    ]


def test_what_each_keeps(folder, tmp_path):
    mme = read_benchmark(folder(MME))
    assert mme[0].question.options == ("Red.", "Green.", "A. B.", "Blue.")
    assert mme.tasks == ["short", "long"]
    assert mme[0].subtitles is None and mme[1].subtitles == tmp_path / "data/subtitle/-x_2.srt"
    assert [one.task for one in read_benchmark(tmp_path / "data", ["long"])] == ["long"]
    shutil.rmtree(tmp_path / "data")
    (sample,) = read_benchmark(folder(LONG))
    assert (sample.task, sample.subtitles) == ("3600", tmp_path / "data/subtitles/86_en.json")
    shutil.rmtree(tmp_path / "data")
    (sample,) = read_benchmark(folder(NEXT))
    assert sample.question.stem == "how do the two, then, go?"
    assert sample.question.options[4] == 'say "go"'
    shutil.rmtree(tmp_path / "data")
    wrong = [one.problem for one in read_benchmark(folder(TOMATO)) if one.problem]
    assert len(wrong) == 1 and "entry '1': answer 7 must be the number of an option" in wrong[0]


def test_a_folder_of_frames(folder, tmp_path):
    """That of MVBench's task from TVQA: three pictures a second."""
    entry = ASKED | {"video": "clip_00", "start": 1.0, "end": 3.0}
    path = folder({"json/episodic_reasoning.json": [entry, entry | {"end": 99.0, "start": 8.0}]})
    pictures = path / "video/tvqa/frames_fps3_hq/clip_00"
    pictures.mkdir(parents=True)
    for index in range(12):
        Image.fromarray(np.full((8, 8), 20 * index, np.uint8)).save(pictures / f"{index + 1}.png")
    inside, after = read_benchmark(path)
    clip = read_clip(inside, 3)
    assert clip.indices.tolist() == [4, 6, 8]
    assert clip.frames[:, 0, 0].tolist() == [[20 * i] * 3 for i in (4, 6, 8)]  # grey becomes RGB
    assert clip.timestamps.tolist() == pytest.approx([4 / 3, 2.0, 8 / 3]) and clip.duration == 4.0
    with pytest.raises(FlowjaxError, match=r"start \(8.0 s\) is after the last frame"):
        read_clip(after, 3)
    before = video_digest(inside.video)
    (pictures / "12.png").write_bytes(b"no picture")
    assert video_digest(inside.video) != before
    with pytest.raises(FlowjaxError, match=r"12\.png cannot be read as a picture"):
        read_clip(inside, lambda total, fps: np.array([total + 1]))
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(pictures / "12.png")
    with pytest.raises(FlowjaxError, match="8 x 8 and 8 x 9 pixels in one video"):
        read_clip(inside, lambda total, fps: np.array([0, total + 1]))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_table_in_every_form(folder, ending, tmp_path):
    rows = [
        {"video": "v/a b é.mp4", "question": "Which?", "options": ABC, "answer": "green"},
        {"video": "v/gone.mp4", "question": "Which?", "options": [*ABC, "red"], "answer": "C"},
        {"video": "v/a b é.mp4", "question": "Which?", "options": [*ABC, "red"], "answer": "red"},
        {"video": "../secret.mp4", "question": "Which?", "options": ABC, "answer": "A"},
    ]
    if ending == "csv":
        rows = [row | {"options": json.dumps(row["options"])} for row in rows]
    path = folder({f"other.{ending}": rows, "v/a b é.mp4": CLIP})
    good, gone, repeated, outside = read_benchmark(path / f"other.{ending}")
    assert (good.task, good.question.answer) == ("other", "B")
    assert read_clip(good, 2).frames.shape[0] == 2
    assert gone.question.options[3] == "red" and not gone.problem
    with pytest.raises(FlowjaxError, match=r"gone\.mp4"):
        read_clip(gone, 2)
    assert "has 'red' 2 times" in repeated.problem
    assert "video '../secret.mp4' must lie in the benchmark's folder" in outside.problem


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("questions.csv", 'video,question\n"a', "line 2: no CSV"),
        ("questions.csv", "video,question\na,b,c\n", "line 2: 3 values where the first line names"),
        ("questions.jsonl", '{"video": "a"}\n{', "line 2: not readable as JSON"),
        ("questions.parquet", "PAR1", "cannot be read"),
        ("questions.csv", "", "must hold a list of questions"),
    ],
)
def test_a_table_that_cannot_be_read_says_so(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    (only,) = read_benchmark(tmp_path)
    assert name in only.problem and words in only.problem and "\n" not in only.problem


def test_a_folder_that_is_none_is_told_what_each_would_need(tmp_path, folder):
    with pytest.raises(FlowjaxError, match="is missing"):
        read_benchmark(tmp_path / "nothing")
    with pytest.raises(FlowjaxError) as error:
        read_benchmark(tmp_path)
    for benchmark in benchmarks().values():
        assert f"{benchmark.name}: {benchmark.needs}" in str(error.value)
    both = folder(TABLE | LONG)
    with pytest.raises(FlowjaxError, match="could be several benchmarks"):
        read_benchmark(both)


NASTY = ["<script>alert(1)</script>", "{{7*7}}", "{% include '/etc/passwd' %}", "%s{0}\\x00"]


def test_text_is_data(folder):
    rows = [
        {"video": "v/a.mp4", "question": text, "options": NASTY, "answer": text, "task": text}
        for text in NASTY
    ]
    samples = read_benchmark(folder({"questions.jsonl": rows, "v/a.mp4": CLIP}))
    for sample, text in zip(samples, NASTY, strict=True):
        assert (sample.task, sample.question.stem) == (text, text)
        assert sample.question.options == tuple(NASTY)


OUT = "../secret"
LEADING_OUT = {
    "tvbench": {"json/action_sequence.json": [ASKED | {"video": OUT}]},
    "mvbench": {"json/action_sequence.json": [ASKED | {"video": OUT}]},
    "tomato": {
        "data/count.json": {
            field: TOMATO["data/count.json"]["0"] | {field: OUT}
            for field in ("key", "demonstration_type")
        }
    },
    "video_mme": {
        name: [rows[0] | {"videoID": OUT}] for name, rows in MME.items() if name.endswith("parquet")
    },
    "longvideobench": {
        "lvb_val.json": [
            LONG["lvb_val.json"][0] | {field: OUT} for field in ("video_path", "subtitle_path")
        ]
    },
    "next_qa": {
        "val.csv": [NEXT["val.csv"][0] | {"video": name} for name in (OUT, "mapped")],
        "map_vid_vidorID.json": {"mapped": OUT},
    },
    "tempcompass": {
        "questions/multi-choice.json": {
            OUT: {"action": [{"question": "What?\nA. red\nB. green", "answer": "B. green"}]}
        }
    },
    "vcgbench": {
        "Benchmarking_QA/generic_qa.json": [{"video_name": OUT, "Q": "What?", "A": "A dog."}]
    },
    "table": {
        "questions.jsonl": [
            TABLE["questions.jsonl"][0] | {field: path}
            for field in ("video", "subtitles")
            for path in (OUT, "/etc/passwd", "v/../../secret.mp4")
        ]
    },
}
"""Of every benchmark, files of questions whose paths lead out of its folder."""


@pytest.mark.parametrize("name", benchmarks())
def test_no_path_leaves_the_folder(name, folder):
    videos = {path: value for path, value in ANSWERS[name][0].items() if value is CLIP}
    samples = read_benchmark(folder(videos | LEADING_OUT[name]))
    assert len(samples)
    for sample in samples:
        assert " must lie in the " in sample.problem
        assert OUT in sample.problem or "/etc/passwd" in sample.problem or "v/../" in sample.problem


def test_many_questions_take_little(folder, monkeypatch):
    """Entries are read one by one; what is chosen is known from their names alone."""
    row = {"video": "v/a.mp4", "question": "Which?", "options": ABC, "answer": "B"}
    rows = [row | {"task": f"t{i % 3}", "question": f"Which {i}?"} for i in range(12_000)]
    path = folder({"questions.jsonl": rows})
    read_benchmark(path)
    monkeypatch.setattr("flowjax.data.tables._values", lambda _: pytest.fail("read again"))
    samples = read_benchmark(path)
    assert len(samples) == 12_000 and samples[11_999].question.stem == "Which 11999?"
    some = read_benchmark(path, ["t2", "t0"], limit=2)
    assert some.ids == ["questions/2", "questions/5", "questions/0", "questions/3"]
    assert [one.task for one in some] == some.tasks == ["t2", "t2", "t0", "t0"]
    assert [one.sample_id for one in samples[-2:]] == samples.ids[-2:]
    assert samples[samples.ids.index("questions/5")] == some[1]


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 50])
def test_shards_are_disjoint_and_are_all(processes):
    shards = [shard(20, process, processes) for process in range(processes)]
    assert sorted(index for one in shards for index in one) == list(range(20))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    with pytest.raises(ValueError, match="process 3 of 3"):
        shard(20, 3, 3)
