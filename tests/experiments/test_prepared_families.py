"""Rows of a sweep and of `evaluate`: the same for videos and for stored frames, in every family.

The families' own tests compare prompts and pixel values; here whole runs are, which take longer.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from flowjax.models.checkpoint import load_model
from flowjax.models.registry import families
from flowjax_convert.run import convert
from tests.experiments.answering import write_benchmark
from tests.models import (
    test_internvl,
    test_internvl_native,
    test_llava_llama,
    test_llava_next_video,
    test_llava_onevision,
    test_llava_onevision1_5,
    test_llava_qwen,
    test_qwen2_5_vl,
    test_qwen2_vl,
    test_qwen3_vl,
    test_smolvlm,
    test_video_llama_3,
    test_video_llava,
)
from tests.models.stored_frames import check_stored_frames

ORACLE = Path(__file__).parents[1] / "oracle" / "data"


def recorded(name: str, folder: Path) -> None:
    convert(ORACLE / name, folder / "model")


def in_tests(module: ModuleType, case: str, folder: Path) -> None:
    module.case(folder, *module.CASES[case])


def video_llama_3(folder: Path) -> None:
    test_video_llama_3.pair_of(folder, test_video_llama_3.build({}, {}))


MAKE: dict[str, Callable[[Path], None]] = {
    "internvl": partial(in_tests, test_internvl, "qwen2-tied"),
    "internvl_native": partial(in_tests, test_internvl_native, "mha"),
    "llava_llama": partial(in_tests, test_llava_llama, "llama-average"),
    "llava_next_video": partial(in_tests, test_llava_next_video, "mha-average"),
    "llava_onevision": partial(in_tests, test_llava_onevision, "mha"),
    "llava_onevision1_5": partial(in_tests, test_llava_onevision1_5, "mha"),
    "llava_qwen": partial(in_tests, test_llava_qwen, "grid"),
    "pllava": partial(recorded, "pllava"),
    "qwen2_5_vl": partial(in_tests, test_qwen2_5_vl, "mha-odd-windows"),
    "qwen2_vl": partial(in_tests, test_qwen2_vl, "mha"),
    "qwen3_vl": partial(in_tests, test_qwen3_vl, "mha"),
    "smolvlm": partial(in_tests, test_smolvlm, "gqa"),
    "video_llama_3": video_llama_3,
    "video_llava": partial(in_tests, test_video_llava, "mha"),
    "videollama3": partial(recorded, "videollama3"),
}
"""Of every family: what makes `model` in a folder, small and random."""


def test_every_family_is_here():
    assert MAKE.keys() == families().keys()


@pytest.mark.parametrize("family", ["pllava", "videollama3"])
def test_stored_frames(family, tmp_path):
    """Of the families whose tests have no random models."""
    MAKE[family](tmp_path)
    check_stored_frames(load_model(tmp_path / "model", parameters=False), tmp_path)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return write_benchmark(tmp_path_factory.mktemp("few") / "questions", per_task=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", MAKE)
def test_rows_are_the_same(flowjax, few, family, tmp_path):
    MAKE[family](tmp_path)
    model = tmp_path / "model"
    for options, command in (
        ([], ["evaluate"]),
        ([], ["sweep", "--samples", "all", "--window", 1]),
        (["--fps", 5], ["evaluate"]),
    ):
        out = tmp_path / f"prepared {len(options)}"
        made = flowjax("prepare", few, out, "--model", model, *options)
        assert made.code == 0, made.err
        rows = []
        for name, data in (("raw", few), ("stored", out)):
            run = tmp_path / f"{command[0]} {name} {len(options)}"
            asked = [model, "--data", data, "--out", run, *options]
            result = flowjax(command[0], *asked, *command[1:])
            assert result.code == 0, result.err
            rows.append(pq.read_table(run / "results.parquet").to_pylist())
        assert rows[0] and {row["sample_id"] for row in rows[0]} == {"colour/0", "direction/0"}
        assert repr(rows[0]) == repr(rows[1])
