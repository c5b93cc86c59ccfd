"""Folders as every version of `transformers` writes them, recorded by `record_writers.py`.

Planned from headers: no array is made.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import read_preprocessor
from flowjax.models.registry import family_of
from flowjax.models.video_llm import parameter_shapes
from flowjax_convert.inverse import Inverse
from flowjax_convert.mapping import table_of
from flowjax_convert.plan import make_plan
from flowjax_convert.quantised import check_not_quantised, check_plain_keys
from flowjax_convert.safetensors_file import TensorHeader

RECORDED = {
    (path.name.removeprefix("writers-").removesuffix(".json.gz"), case): recorded
    for path in sorted((Path(__file__).parent / "recorded").glob("writers-*.json.gz"))
    for case, recorded in json.loads(gzip.decompress(path.read_bytes())).items()
}
VERSIONS = ("4.49.0", "4.51.3", "4.53.3", "4.55.4", "4.57.1", "5.23.0")


class Headers:
    """A checkpoint of zeros that knows its headers alone; tied tensors are equal."""

    def __init__(self, keys):
        self.headers = {
            key: TensorHeader(Path("file"), dtype, tuple(shape), 0, 0)
            for key, (dtype, shape) in keys.items()
        }

    def tensor(self, key):
        raise AssertionError(f"{key} is read, although no tensor is stored twice")

    def release(self, key):
        pass


def fields_of(recorded):
    """The parsed `config.json`; image models get the shape that PLLaVA needs."""
    fields = recorded["files"]["config.json"]
    if fields["model_type"] in ("llava", "llava_next"):
        return fields | {"pooling_shape": [4, 2, 2], "num_frames": 4}
    return fields


def test_every_version_is_recorded():
    assert {version for version, _ in RECORDED} == set(VERSIONS)
    assert len(RECORDED) > 70


@pytest.mark.parametrize("version, case", RECORDED)
def test_every_case_is_planned(version, case, tmp_path):
    recorded = RECORDED[version, case]
    fields = fields_of(recorded)
    check_not_quantised(fields, "config.json")
    family = family_of(fields, "config.json")
    config = family.read_config(fields, "config.json")
    assert config.decoder.tied_embeddings == case.endswith("-tied")
    source = Headers(recorded["keys"])
    check_plain_keys(source.headers, "file")
    plan = make_plan(source, table_of(config, fields), parameter_shapes(config), None)
    stored = len(plan.ignored) + len({key for p in plan.parameters for key in p.keys})
    assert stored == len(recorded["keys"])
    files = {name: value for name, value in recorded["files"].items() if "processor" in name}
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))
    if files:
        read_preprocessor(tmp_path, family)


class Made:
    """A checkpoint of arrays in memory."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.headers = {
            key: TensorHeader(Path("file"), "F32", value.shape, 0, 0)
            for key, value in tensors.items()
        }

    def tensor(self, key):
        return self.tensors[key]

    def release(self, key):
        pass


LATEST = {case: version for version, case in sorted(RECORDED)}


@pytest.mark.parametrize("case, version", LATEST.items())
def test_every_case_is_written_back(case, version):
    """Parameters to tensors, with the keys and shapes of the checkpoint, and back to the same."""
    recorded = RECORDED[version, case]
    fields = fields_of(recorded)
    config = family_of(fields, "config.json").read_config(fields, "config.json")
    shapes, table, rng = (
        parameter_shapes(config),
        table_of(config, fields),
        np.random.default_rng(0),
    )
    parameters = {path: rng.standard_normal(shape).astype("f") for path, shape in shapes.items()}
    like = Made({key: np.zeros(shape, "f") for key, (_, shape) in recorded["keys"].items()})

    def part(path, layer):
        return parameters[path] if layer is None else parameters[path][layer]

    inverse = Inverse(table, config, shapes, np.dtype("f"), dict.fromkeys(shapes, 4), like)
    written = list(inverse.tensors(part))
    tensors = {one.key: one.make() for one in written}
    assert len(tensors) == len(written) and all(tensors[o.key].nbytes == o.bytes for o in written)
    assert {key: list(t.shape) for key, t in tensors.items()} == {
        key: shape for key, (_, shape) in recorded["keys"].items()
    }
    source = Made(tensors)
    for parameter in make_plan(source, table, shapes, None).parameters:
        for index in range(len(parameter.keys)):
            expected = part(parameter.path, index if parameter.stacked else None)
            np.testing.assert_array_equal(parameter.values(source, index), expected)


@pytest.mark.parametrize("case", sorted({case for _, case in RECORDED}))
def test_all_versions_say_the_same(case):
    """What is computed does not depend on who saved the model."""
    configs = [
        family_of(fields, "").read_config(fields, "config.json")
        for (_, name), recorded in RECORDED.items()
        if name == case and (fields := fields_of(recorded))
    ]
    assert all(config == configs[0] for config in configs)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq, 4 bits"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "gptq, 8 bits"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "bitsandbytes, 4 bits",
        ),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "text_config.*fp8"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ],
)
def test_quantised_configurations(fields, words):
    with pytest.raises(FlowjaxError, match=f"{words}.*dequantize"):
        check_not_quantised(fields, "config.json")


@pytest.mark.parametrize(
    "key",
    [
        "model.layers.0.mlp.up_proj.qweight",
        "model.layers.0.mlp.up_proj.weight.absmax",
        "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
        "model.layers.0.mlp.up_proj.weight_scale_inv",
        "model.layers.0.mlp.up_proj.SCB",
    ],
)
def test_quantised_tensors(key):
    check_plain_keys(["model.layers.0.mlp.up_proj.weight", "vision.scale"], "file")
    with pytest.raises(FlowjaxError, match=r"quantised.*dequantize"):
        check_plain_keys([key], "file")
