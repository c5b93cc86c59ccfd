"""The estimate of working memory against what compilers allot at 7B shapes."""

import json
from pathlib import Path

import pytest

from flowjax.sweeps.cost import Cost
from flowjax_benchmarks.sweep_attention import SHAPES

RESULTS = Path(__file__).parents[2] / "benchmarks/results"


def programs():
    """Every program of the paper's sweeps, as it was compiled for an H100 (see the command)."""
    result = json.loads((RESULTS / "sweep-h100-compiled.json").read_text())
    for prompt in result["prompts"]:
        for way in ("plain", "kernel"):
            for program in prompt[way]["programs"]:
                name = f"{prompt['shape']} {prompt['length']} {way} {program['program']}"
                yield pytest.param(prompt["shape"], prompt["length"], way, program, id=name)


@pytest.mark.parametrize(("shape", "length", "way", "program"), [*programs()])
def test_an_h100s_programs_hold_what_is_estimated(shape, length, way, program):
    cost = Cost(SHAPES[shape], 2, way == "kernel", "gpu")
    allotted = program["temporary_bytes"]
    if program["program"] == "prefill":
        estimate = cost.prefill_bytes(length)  # its output are the kept states
    else:
        estimate = cost.batch_bytes(*program["program"])
        allotted += program["output_bytes"]
    assert 1.0 <= estimate / allotted <= 1.3


GIB = 1 << 30
V5P = [
    (True, None, 0.086),
    (True, (1, 1088, 256), 1.022),
    (True, (128, 1, 1280), 0.069),
    (True, (3, 40, 1280), 0.052),
]
"""What libtpu 0.0.42.1 allots LLaVA 7B's programs over 1,280 positions, GiB."""


@pytest.mark.parametrize(("kernel", "program", "allotted"), V5P)
def test_a_tpus_programs_hold_no_more_than_is_estimated(kernel, program, allotted):
    cost = Cost(SHAPES["llava-7b"], 2, kernel, "tpu")
    estimate = cost.prefill_bytes(1280) if program is None else cost.batch_bytes(*program)
    assert estimate >= allotted * GIB
