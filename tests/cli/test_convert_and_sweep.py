"""The main job through the command line, and every bad input that the README promises to name."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from flowjax.data.encode import write_mp4
from flowjax.layer_windows import EDGE_SETS, STYLES
from flowjax.models.checkpoint import load_model
from flowjax.sweeps.rows import SCHEMA
from flowjax.version import __version__
from tests.videos import moving_square


def replaced(arguments, name, *values):
    """The arguments with one option's values changed; no value drops it."""
    out, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == name:
            skip = True
        else:
            out.append(argument)
    return [*out, *(part for value in values for part in (name, value))]


def test_sweep_writes_rows_and_figures(flowjax, asked, model, tmp_path):
    out = tmp_path / "run"
    result = flowjax(*asked, "--out", out, "--window", 3)
    assert result.code == 0, result.err
    table = pq.read_table(out / "results.parquet")
    assert table.schema.equals(SCHEMA)
    layers = load_model(model).config.decoder.layers
    edges = [edge for edges in EDGE_SETS.values() for edge in edges]
    assert table["edge"].to_pylist() == [edge for edge in edges for _ in range(layers)]
    assert table["centre"].to_pylist() == list(range(layers)) * len(edges)
    rows = table.to_pylist()
    for row in rows:
        change = (row["new_probability"] - row["base_probability"]) / row["base_probability"]
        assert row["relative_change"] == pytest.approx(100 * change)
        assert row["correct"] == (row["base_answer"] == "A")
        assert row["version"] == __version__
        assert row["width"] == 3 and row["style"] == "center"
    assert np.ptp(table["new_probability"].to_numpy()) > 1e-4
    for name in EDGE_SETS:
        assert (out / "figures" / f"{name}.png").stat().st_size > 10_000
    assert "random weights" in result.out
    assert "random weights" in rows[0]["model_note"]

    again = flowjax("figures", out)
    assert again.code == 0
    assert again.out == result.out


def test_own_edges_alone_and_joined(flowjax, asked, tmp_path):
    out = tmp_path / "run"
    own = ["frame_0->question_stem", "option_A->last+option_B->last"]
    result = flowjax(*asked, "--out", out, "--window", 1, "--edge", own[0], "--edge", own[1])
    assert result.code == 0, result.err
    table = pq.read_table(out / "results.parquet")
    assert table["edge"].unique().to_pylist() == own
    assert table["edge_set"].unique().to_pylist() == ["custom"]


@pytest.mark.parametrize("style", STYLES)
def test_styles(flowjax, asked, style, tmp_path):
    options = ["--window", 2, "--style", style, "--edges", "cross-frame"]
    result = flowjax(*asked, "--out", tmp_path / "run", *options)
    assert result.code == 0, result.err
    table = pq.read_table(tmp_path / "run" / "results.parquet")
    assert table["style"].unique().to_pylist() == [style]


def test_the_same_command_again_has_nothing_to_do(flowjax, asked, tmp_path):
    arguments = [*asked, "--out", tmp_path / "run", "--window", 2, "--edges", "cross-frame"]
    assert flowjax(*arguments).code == 0
    part = tmp_path / "run" / "parts" / "000000.parquet"
    written = part.stat().st_mtime_ns
    assert flowjax(*arguments).code == 0
    assert part.stat().st_mtime_ns == written
    assert flowjax(*arguments, "--overwrite").code == 0
    assert part.stat().st_mtime_ns > written


def test_other_settings_in_the_same_folder_are_named(flowjax, asked, tmp_path):
    arguments = [*asked, "--out", tmp_path / "run", "--edges", "cross-frame"]
    assert flowjax(*arguments, "--window", 2).code == 0
    before = (tmp_path / "run" / "results.parquet").read_bytes()
    result = flowjax(*arguments, "--window", 1)
    assert_refused(result, "window is 2 there and 1 here")
    assert (tmp_path / "run" / "results.parquet").read_bytes() == before


def assert_refused(result, *words):
    """One line on standard error, exit code 2, no traceback."""
    assert result.code == 2, result.err
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--option", "only one"), ["2 to 26 options"]),
        (("--answer", "C"), ["answer 'C'", "A, B"]),
        (("--question", " "), ["question is empty"]),
        (("--window", "0"), ["window width 0"]),
        (("--window", "9"), ["only 8 layers"]),
        (("--window", "x"), ["--window", "int"]),
        (("--style", "middle"), ["'middle'", "center"]),
        (("--edges", "all"), ["'all'", "cross-frame"]),
        (("--edge", "frame_9->last"), ["'frame_9'", "frame_7", "option_A"]),
        (("--edge", "last->video"), ["removes no edge"]),
        (("--edge", "video"), ["source->target"]),
        (("--video", "missing.mp4"), ["missing.mp4"]),
        (("--question", "What is <image>?"), ["<image>"]),
        (("--video",), ["--video"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_question_is_refused(flowjax, asked, change, words, tmp_path):
    arguments = replaced(asked, *change)
    if change[0] != "--window":
        arguments += ["--window", 3]
    out = tmp_path / "new" / "run"
    assert_refused(flowjax(*arguments, "--out", out), *words)
    assert not out.parent.exists()


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "folder"])
def test_a_bad_video_is_refused(flowjax, asked, clip, kind, tmp_path):
    video = tmp_path / "bad.mp4"
    if kind == "folder":
        video.mkdir()
    else:
        whole = clip.read_bytes()
        content = {
            "empty": b"",
            "truncated": whole[: len(whole) * 2 // 3],
            "text": b"no video" * 99,
        }
        video.write_bytes(content[kind])
    out = tmp_path / "run"
    arguments = replaced(asked, "--video", video)
    assert_refused(flowjax(*arguments, "--out", out, "--window", 3), str(video))
    assert not out.exists()


def test_a_video_with_too_few_frames_repeats_them_and_says_so(flowjax, asked, tmp_path, caplog):
    video = tmp_path / "short.mp4"
    write_mp4(video, moving_square(frames=3), 10)
    arguments = [*replaced(asked, "--video", video), "--out", tmp_path / "run"]
    with caplog.at_level("WARNING"):
        result = flowjax(*arguments, "--window", 3, "--edges", "cross-frame")
    assert result.code == 0, result.err
    assert "short.mp4" in caplog.text and "repeated" in caplog.text


def test_a_model_that_is_none_is_refused(flowjax, asked, checkpoint, tmp_path):
    for model in (tmp_path / "missing", checkpoint):
        arguments = [asked[0], model, *asked[2:]]
        assert_refused(flowjax(*arguments, "--out", tmp_path / "run"), str(model))
    assert not (tmp_path / "run").exists()


def test_an_out_that_cannot_be_made_is_refused(flowjax, asked, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert_refused(flowjax(*asked, "--out", file / "run", "--window", 3), str(file))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert_refused(flowjax(*asked, "--out", folder, "--window", 3), "--overwrite")
    result = flowjax(*asked, "--out", folder, "--window", 3, "--overwrite")
    assert_refused(result, "not a flowjax run")
    assert (folder / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["src"]),
        (["{src}"], ["OUT"]),
        (["{src}", "{out}", "--dtype", "int8"], ["int8", "float32"]),
        (["{src}", "{out}", "--pooling-shape", "16-12"], ["16-12", "T-H-W"]),
        (["{src}", "{out}", "--pooling-shape", "8-0-2"], ["8-0-2"]),
        (["{src}/missing", "{out}"], ["missing"]),
        (["{src}", "{out}", "--no-such-option"], ["--no-such-option"]),
    ],
)
def test_bad_arguments_of_convert(flowjax, checkpoint, arguments, words, tmp_path):
    out = tmp_path / "model"
    filled = [text.format(src=checkpoint, out=out) for text in arguments]
    assert_refused(flowjax("convert", *filled), *words)
    assert not out.exists()


def test_convert_verify(flowjax, checkpoint, model, tmp_path):
    result = flowjax("convert", "--verify", model, checkpoint)
    assert result.code == 0, result.err
    assert "all equal" in result.out
    assert "language_model.lm_head.weight -> decoder/unembedding/kernel: equal" in result.out
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    chunk = next((damaged / "params" / "decoder.unembedding.kernel").glob("0*"))
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 0x40
    chunk.write_bytes(data)
    result = flowjax("convert", "--verify", damaged, checkpoint)
    assert result.code == 1, result.err
    assert "language_model.lm_head.weight" in result.out
    other = tmp_path / "other"
    shutil.copytree(model, other)
    fields = json.loads((other / "flowjax.json").read_text())
    (other / "flowjax.json").write_text(json.dumps(fields | {"digest": "0" * 64}))
    result = flowjax("convert", "--verify", other, checkpoint)
    assert result.code == 1, result.err
    assert "flowjax.json: digest is not that of the parameters" in result.out


def test_pooling_shape_changes_frames_and_tokens(flowjax, checkpoint, tmp_path):
    out = tmp_path / "model"
    assert flowjax("convert", checkpoint, out, "--pooling-shape", "4-1-2").code == 0
    config = load_model(out).config
    assert (config.frames, config.tokens_per_frame) == (4, 2)


def test_help_does_not_import_jax():
    code = (
        "import sys; sys.argv = ['flowjax', '--help']\n"
        "from flowjax.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "slow = {'jax', 'numpy', 'flax', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sweep" in done.stdout and "pathways" in done.stdout


def test_version(flowjax):
    assert flowjax("--version").out.strip() == f"flowjax {__version__}"


def test_manifest_says_what_was_asked(flowjax, asked, tmp_path):
    out = tmp_path / "run"
    flowjax(*asked, "--out", out, "--window", 2, "--edges", "cross-frame")
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert settings["window"] == 2
    assert settings["edges"] == ["cross-frame"]
    assert settings["analysis"] == "sweep"
    assert settings["version"] == __version__
