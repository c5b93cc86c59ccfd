"""Configuration files: every field checked, named where it is wrong."""

from pathlib import Path

import pytest

from flowjax.errors import FlowjaxError
from flowjax.train.config import LINEAR, Source, TrainConfig
from flowjax.train.toml import read_toml

LEAST = """
model = "m"
out = "/o"
data = [{annotations = "a.json", videos = "v"}]
batch = {size = 8, length = 64}
schedule = {steps = 10, peak = 1e-4, warmup = 2, decay = 0, clip = 1}
"""


def read(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    return read_toml(tmp_path / "c.toml", TrainConfig)


def test_defaults_and_paths(tmp_path):
    config = read(tmp_path, LEAST)
    assert config.model == tmp_path / "m" and config.out == Path("/o")
    assert config.data == (Source(tmp_path / "a.json", tmp_path / "v"),)
    assert config.schedule.decay == 0.0 and type(config.schedule.decay) is float
    assert config.lora is None and config.frozen == ("vision",)


def test_tables_in_tables(tmp_path):
    config = read(tmp_path, LEAST + "lora = {rank = 4, alpha = 8}\n")
    assert config.lora is not None
    assert (config.lora.targets, config.lora.scaling) == (LINEAR, 2.0)
    sized = LEAST.replace("length = 64", "length = 64, frame_size = [28, 56]")
    assert read(tmp_path, sized).batch.frame_size == (28, 56)


@pytest.mark.parametrize(
    "text, said",
    [
        ("model = [", "not readable as TOML"),
        (LEAST.replace('model = "m"', ""), r"c\.toml: model is missing"),
        (LEAST + "modle = 1", "modle is unknown; there are model, out"),
        (LEAST.replace("size = 8", "size = 8, sise = 8"), r"batch\.sise is unknown"),
        (LEAST.replace("size = 8", 'size = "8"'), r"batch\.size must be a whole number; it is '8'"),
        (LEAST.replace("size = 8", "size = true"), r"batch\.size must be a whole number"),
        (LEAST.replace("size = 8", "size = 0"), r"batch\.size is 0; give more than 0"),
        (LEAST.replace("size = 8", "size = 8, frame_size = [2]"), "frame_size must list 2 values"),
        (LEAST.replace('"a.json"', "3"), r"data\[0\]\.annotations must be a text"),
        (LEAST.replace("{size = 8, length = 64}", "3"), "batch must be a table"),
        (LEAST.replace("warmup = 2", "warmup = 10"), r"schedule\.warmup is 10"),
        (LEAST + 'compute = "float16"', "compute is 'float16'; choose bfloat16 or float32"),
        (LEAST + 'lora = {rank = 4, alpha = 8, targets = ["q_proj"]}', "targets has 'q_proj'"),
        (LEAST + 'mesh = "4"', "--mesh '4'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    with pytest.raises(FlowjaxError, match=said):
        _ = read(tmp_path, text).mesh_shape
