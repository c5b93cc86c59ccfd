import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from flowjax.data.preprocess import FramePreprocessor, Normalisation, PatchPreprocessor
from flowjax.errors import FlowjaxError

ORACLE = Path(__file__).parents[1] / "oracle" / "data"
PLAIN = Normalisation(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "processor_class": "PllavaProcessor",
    "_valid_processor_keys": ["images"],
    "do_resize": True,
    "size": {"shortest_edge": 28},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.25, 0.125],
    "image_std": [0.5, 0.25, 1],
    "do_convert_rgb": True,
}
PATCHES = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "patch_size": 14,
    "min_tokens": 16,
    "max_tokens": 16384,
    "resample": 3,
}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), np.uint8)


def oracle(name: str) -> tuple[dict, dict]:
    config = json.loads((ORACLE / name / "preprocessor_config.json").read_text())
    with np.load(ORACLE / name / "expected.npz") as values:
        return config, {
            key: values[key]
            for key in values
            if key.endswith((".frames", ".pixel_values", ".grid_sizes"))
        }


@pytest.mark.parametrize("name", ["pllava", "internvl"])
def test_frames_equal_the_recorded_pixel_values(name):
    config, values = oracle(name)
    preprocess = FramePreprocessor.from_config(config, "preprocessor_config.json")
    for sample in ("s0", "s1"):
        pixels = preprocess(values[f"{sample}.frames"])
        wanted = values[f"{sample}.pixel_values"]
        assert pixels.dtype == np.float32
        assert pixels.flags.c_contiguous
        np.testing.assert_allclose(pixels, wanted, rtol=0, atol=1e-6)


def test_patches_equal_the_recorded_pixel_values():
    config, values = oracle("videollama3")
    preprocess = PatchPreprocessor.from_config(config, "preprocessor_config.json")
    for sample in ("s0", "s1"):
        patches = preprocess(values[f"{sample}.frames"])
        wanted = values[f"{sample}.pixel_values"]
        frames, rows, columns = values[f"{sample}.grid_sizes"][0]
        assert patches.shape == (frames, rows // 2, columns // 2, 4, wanted.shape[1])
        assert patches.dtype == np.float32
        np.testing.assert_allclose(patches.reshape(wanted.shape), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "sides", [(20, 28), (28, 20), (1, 1), (1, 30), (9, 200), (200, 9), (27, 29), (28, 28), (48, 64)]
)
def test_small_frames_equal_transformers(sides):
    """Where the first resize changes nothing that the second does not, CLIP's own is the same."""
    frames = noise(3, *sides)
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )(list(frames), return_tensors="np", input_data_format="channels_last")
    config = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    ours = FramePreprocessor.from_config(config, "config")(frames)
    np.testing.assert_allclose(ours, np.stack(theirs["pixel_values"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frame", "first", "second", "corner"),
    [
        # width, height; ratio 16/9: the short side goes to int(640 / (16/9)) = 360 first.
        ((1920, 1080), (640, 360), (49, 28), (10, 0)),
        ((1080, 1920), (360, 640), (28, 49), (0, 10)),
        ((1000, 1000), (640, 640), (28, 28), (0, 0)),
        # ratio 40: int(640 / 40) = 16 is below 28, so that 28 it is.
        ((4000, 100), (1120, 28), (1120, 28), (546, 0)),
        ((16, 4096), (28, 7168), (28, 7168), (0, 3570)),
    ],
)
def test_large_frames_are_resized_twice(frame, first, second, corner):
    pixels = noise(1, frame[1], frame[0])
    image = Image.fromarray(pixels[0])
    image = image.resize(first, Image.Resampling.BICUBIC)
    image = image.resize(second, Image.Resampling.BICUBIC)
    left, top = corner
    wanted = np.asarray(image.crop((left, top, left + 28, top + 28))).transpose(2, 0, 1)
    np.testing.assert_array_equal(FramePreprocessor(28, PLAIN)(pixels)[0], wanted)


@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 40))
def test_every_shape_gives_a_square(height, width, size):
    frames = np.full((2, height, width, 3), (7, 100, 255), np.uint8)
    pixels = FramePreprocessor(size, PLAIN)(frames)
    assert pixels.shape == (2, 3, size, size)
    assert (pixels == np.array([7, 100, 255]).reshape(3, 1, 1)).all()


def test_normalisation_by_channel():
    pixels = FramePreprocessor.from_config(CLIP, "config")(np.full((1, 28, 28, 3), 51, np.uint8))
    np.testing.assert_allclose(pixels[0, :, 0, 0], [-0.6, -0.2, 0.075], atol=1e-6)


@pytest.mark.parametrize("size", [56, {"shortest_edge": 56}], ids=["number", "mapping"])
@pytest.mark.parametrize("crop", [56, {"height": 56, "width": 56}, None])
def test_sizes(size, crop):
    config = {**CLIP, "size": size, "crop_size": crop}
    assert FramePreprocessor.from_config(config, "config").size == 56


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("do_resize", False, "do_resize is False; only True"),
        ("do_center_crop", False, "do_center_crop is False; only True"),
        ("do_rescale", False, "do_rescale is False"),
        ("do_normalize", False, "do_normalize is False"),
        ("resample", 2, "resample is 2; only 3"),
        ("size", {"height": 28, "width": 28}, "size is {'height': 28"),
        ("size", {"shortest_edge": 28, "longest_edge": 56}, "size is {"),
        ("size", 0, "size is 0"),
        ("size", True, "size is True"),
        ("size", "28", "size is '28'"),
        ("crop_size", {"height": 24, "width": 24}, "crop_size is 24; it must be 28"),
        ("crop_size", {"height": 28, "width": 24}, "crop_size is {'height': 28, 'width': 24}"),
        ("crop_size", 30, "crop_size is 30"),
        ("image_mean", [0.5, 0.5], "image_mean is [0.5, 0.5]; it must be three numbers"),
        ("image_mean", 0.5, "image_mean is 0.5"),
        ("image_std", [0.5, 0, 0.5], "image_std holds a zero"),
        ("image_std", [0.5, "a", 0.5], "image_std is"),
        ("image_std", [0.5, math.inf, 0.5], "image_std is"),
        ("rescale_factor", "1/255", "rescale_factor is '1/255'"),
        ("default_to_square", True, "default_to_square is True"),
        ("crop_pct", 0.9, "crop_pct is 0.9; flowjax does not know this field"),
    ],
)
def test_unsupported_field_is_named(field, value, message):
    with pytest.raises(FlowjaxError) as error:
        FramePreprocessor.from_config({**CLIP, field: value}, "folder/preprocessor_config.json")
    assert str(error.value).startswith(f"folder/preprocessor_config.json: {message}")
    assert "\n" not in str(error.value)


def test_configuration_of_patches_is_refused_for_frames():
    with pytest.raises(FlowjaxError, match="max_tokens"):
        FramePreprocessor.from_config(PATCHES, "config")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("do_resize", False),
        ("resample", 1),
        ("patch_size", 0),
        ("min_tokens", None),
        ("max_tokens", 1.5),
        ("do_normalize", False),
        ("temporal_patch_size", 2),
    ],
)
def test_unsupported_field_of_patches_is_named(field, value):
    with pytest.raises(FlowjaxError, match=field):
        PatchPreprocessor.from_config({**PATCHES, field: value}, "config")


def test_order_of_patches():
    """Patch k shows where it comes from: blocks of 2 x 2 patches, row by row, then within them."""
    rows, columns, patch = 4, 6, 2
    number = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    frame = np.kron(number, np.ones((patch, patch), np.uint8))
    frames = np.stack([frame, frame + 100])[..., None] + np.array([0, 30, 60], np.uint8)
    patches = PatchPreprocessor(patch, 2, 1, 10**6, PLAIN)(frames)
    assert patches.shape == (2, 2, 3, 4, 12)
    first = [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 12, 13, 18, 19, 14, 15, 20, 21, 16, 17, 22, 23]
    order = np.array(first + [100 + number for number in first])
    wanted = (order[:, None] + np.repeat([0, 30, 60], patch * patch)).astype(np.float32)
    np.testing.assert_array_equal(patches.reshape(wanted.shape), wanted)


def test_values_of_a_patch_go_by_channel_row_column():
    frames = noise(1, 4, 4)
    patches = PatchPreprocessor(2, 2, 1, 10**6, PLAIN)(frames)
    wanted = frames[0, :2, 2:].transpose(2, 0, 1).reshape(-1)
    np.testing.assert_array_equal(patches[0, 0, 0, 1], wanted.astype(np.float32))


@pytest.mark.parametrize(
    ("frames", "height", "width", "wanted"),
    [
        (1, 280, 420, (280, 420)),  # multiples of 28 stay
        (1, 294, 350, (280, 336)),  # 10.5 and 12.5 round to even
        (1, 266, 301, (280, 308)),  # 9.5 rounds to 10, 10.75 to 11
        (128, 1080, 1920, (224, 420)),  # at most 100352 pixels a frame
        (1, 20, 300, (56, 448)),  # at least 12544 pixels
        (1, 28, 28, (112, 112)),
    ],
)
def test_sides_of_patched_frames(frames, height, width, wanted):
    preprocess = PatchPreprocessor.from_config(PATCHES, "config")
    assert preprocess.resized(frames, height, width) == wanted


@given(count=st.integers(1, 64), height=st.integers(28, 2000), width=st.integers(28, 2000))
def test_budget_of_patches(count, height, width):
    preprocess = PatchPreprocessor.from_config(PATCHES, "config")
    new_height, new_width = preprocess.resized(count, height, width)
    assert new_height % 28 == new_width % 28 == 0
    assert new_height * new_width >= 16 * 28**2
    if max(height, width) < 8 * min(height, width):
        assert count * new_height * new_width <= 16384 * 28**2
