"""Patches of several frames against the processors of `transformers`."""

import ast
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from flowjax.data.temporal_patches import QWEN2_5_VL, QWEN3_VL
from flowjax.errors import FlowjaxError

SMALL = {"patch_size": 4, "size": {"shortest_edge": 1, "longest_edge": 100_000}}
FAMILIES = {"qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}


def smart_resize(module: str):
    """The function of that name in a module of `transformers` whose import needs torchvision."""
    root = Path(importlib.util.find_spec("transformers").origin).parent / "models"
    tree = ast.parse((root / module).read_text())
    names = [node for node in tree.body if getattr(node, "name", None) == "smart_resize"]
    scope = {"math": math}
    exec(compile(ast.Module(names, []), module, "exec"), scope)
    return scope["smart_resize"]


OF_A_FRAME = smart_resize("qwen2_vl/video_processing_qwen2_vl.py")
OF_A_VIDEO = smart_resize("qwen3_vl/video_processing_qwen3_vl.py")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("count", "height", "width", "depth", "merge"),
    [(4, 40, 56, 2, 2), (5, 41, 30, 2, 2), (3, 24, 50, 3, 3), (2, 17, 33, 1, 1)],
)
def test_patches(family, count, height, width, depth, merge):
    """Every frame as the image processor has it, which repeats a still image to fill a patch."""
    frames = noise(count, height, width)
    fields = SMALL | {"temporal_patch_size": depth, "merge_size": merge}
    preprocess = FAMILIES[family].read(fields, "")
    new_height, new_width = preprocess.resized(count, height, width)
    processor = Qwen2VLImageProcessorPil(
        patch_size=4,
        temporal_patch_size=depth,
        merge_size=merge,
        do_resize=False,
        image_mean=list(FAMILIES[family].mean),
        image_std=list(FAMILIES[family].std),
    )
    images = [Image.fromarray(frame).resize((new_width, new_height), 3) for frame in frames]
    images += images[-1:] * (-count % depth)
    stills = [np.asarray(processor(image)["pixel_values"]) for image in images]
    single = [still.reshape(len(still), 3, depth, 4, 4) for still in stills]
    expected = [
        np.stack([single[first + index][:, :, index] for index in range(depth)], axis=2)
        for first in range(0, len(single), depth)
    ]
    ours = preprocess(frames)
    assert ours.dtype == np.float32
    rows, columns = new_height // (4 * merge), new_width // (4 * merge)
    assert ours.shape == (-(-count // depth), rows, columns, merge**2, 3 * depth * 16)
    np.testing.assert_allclose(ours.reshape(-1), np.concatenate(expected).reshape(-1), atol=1e-6)


sizes = st.tuples(st.integers(2, 20), st.integers(2, 300), st.integers(2, 300))
bounds = st.tuples(st.integers(1, 20_000), st.integers(0, 200_000))


@settings(max_examples=300)
@given(sizes, bounds, st.sampled_from([2, 3]))
def test_size_of_a_frame(size, bounds, merge):
    (count, height, width), (least, more) = size, bounds
    limits = {"shortest_edge": least, "longest_edge": least + more}
    preprocess = QWEN2_5_VL.read({"size": limits, "patch_size": 7, "merge_size": merge}, "")
    expected = OF_A_FRAME(height, width, 7 * merge, least, least + more)
    assert preprocess.resized(count, height, width) == expected


@settings(max_examples=300)
@given(sizes, bounds, st.sampled_from([1, 2]))
def test_size_of_a_video(size, bounds, depth):
    (count, height, width), (least, more) = size, bounds
    limits = {"shortest_edge": least, "longest_edge": least + more}
    fields = {"size": limits, "patch_size": 7, "temporal_patch_size": depth}
    preprocess = QWEN3_VL.read(fields, "")
    expected = OF_A_VIDEO(count, height, width, depth, 14, least, least + more)
    assert preprocess.resized(count, height, width) == expected


def test_older_fields_go_before_the_size():
    fields = {"size": {"shortest_edge": 1, "longest_edge": 2}, "min_pixels": 3136}
    preprocess = QWEN2_5_VL.read(fields | {"max_pixels": 12845056}, "")
    assert (preprocess.least, preprocess.most) == (3136, 12845056)
    assert (QWEN2_5_VL.read({}, "").least, QWEN3_VL.read({}, "").most) == (100352, 786432)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"resample": 2}, "resample"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"cap_pixels_per_frame": True}, "cap_pixels_per_frame"),
        ({"size": {"height": 28, "width": 28}}, "size.shortest_edge"),
        ({"size": {"shortest_edge": 5, "longest_edge": 4}}, "size"),
        ({"patch_size": 0}, "patch_size"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std"),
        ({"sharpen": True}, "sharpen"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_computed_is_refused(family, fields, words):
    with pytest.raises(FlowjaxError, match=rf"^file\.json: {words}"):
        FAMILIES[family].read(fields, "file.json")


def test_frames_that_cannot_be_read():
    with pytest.raises(FlowjaxError, match="200 times"):
        QWEN2_5_VL.read({}, "")(noise(2, 1, 201))
    with pytest.raises(FlowjaxError, match="1 frames; this model reads at least 2"):
        QWEN3_VL.read({}, "")(noise(1, 40, 40))
