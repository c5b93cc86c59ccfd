import json
from pathlib import Path

import pytest

from flowjax.errors import FlowjaxError
from flowjax_benchmarks.synthetic import write_checkpoint
from flowjax_convert.run import convert
from tests.convert.checkpoints import light_copy


@pytest.fixture(scope="session")
def tiny_config(pllava_oracle) -> dict:
    """A PLLaVA configuration of other sizes than the oracle's, with grouped key heads."""
    config = json.loads((pllava_oracle / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 96,
    }
    config["vision_config"] |= {"hidden_size": 48, "num_hidden_layers": 3}
    return config


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, tiny_config, pllava_oracle) -> Path:
    """A random float32 checkpoint in one file; never written to."""
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_checkpoint(path, tiny_config, side_files=pllava_oracle)
    return path


@pytest.fixture
def source(tiny, tmp_path) -> Path:
    """A copy of `tiny` to damage; its weights are a hard link."""
    return light_copy(tiny, tmp_path / "source")


@pytest.fixture(scope="session")
def converted(tiny, tmp_path_factory) -> Path:
    """`tiny`, converted; never written to."""
    out = tmp_path_factory.mktemp("converted") / "model"
    convert(tiny, out)
    return out


@pytest.fixture
def refused(source, tmp_path):
    """Check that `source` is refused with one line that has these words, and nothing is left."""

    def check(*words: str, **options) -> None:
        out = tmp_path / "out"
        with pytest.raises(FlowjaxError) as caught:
            convert(options.pop("src", source), options.pop("out", out), **options)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message
        assert {path.name for path in tmp_path.iterdir()} <= {"source"}

    return check
