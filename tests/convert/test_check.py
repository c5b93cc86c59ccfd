"""`flowjax check`: the shipped pair, tiny models of several families, and broken conversions."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from transformers import (
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    SmolVLMForConditionalGeneration,
    VideoLlavaForConditionalGeneration,
)

from flowjax.data.video_options import VideoOptions
from flowjax.errors import FlowjaxError
from flowjax_convert.check.command import check, read_sides, record, run, stages_of
from flowjax_convert.check.peer import peers
from flowjax_convert.check.question import made_clip
from flowjax_convert.check.recorded import Recorded
from flowjax_convert.check.stage import Stage
from flowjax_convert.check.theirs import Theirs
from flowjax_convert.run import convert
from flowjax_experiments import shapes
from tests.convert.checkpoints import edit_json, light_copy, tensors_of, write_file
from tests.models import (
    parity,
    qwen_vl,
    test_llava_next_video,
    test_llava_onevision,
    test_qwen2_5_vl,
    test_qwen3_vl,
    test_smolvlm,
    test_video_llava,
)

DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
PLAIN = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}


def onevision():
    theirs = LlavaOnevisionForConditionalGeneration(test_llava_onevision.config())
    fields = json.loads(test_llava_onevision.processor().to_json_string())
    parity.randomise(theirs)
    return theirs, test_llava_onevision.TOKENIZER, {"preprocessor_config.json": fields}


def qwen2_5():
    text, vision, tied, _ = test_qwen2_5_vl.CASES["gqa-tied-no-full-layer"]
    theirs = test_qwen2_5_vl.build(text, vision, tied)
    fields = test_qwen2_5_vl.preprocessor(theirs.config) | {"max_pixels": 2000}
    return theirs, qwen_vl.TOKENIZER, {"preprocessor_config.json": fields}


def qwen3():
    text, vision, tied, _ = test_qwen3_vl.CASES["mha"]
    theirs = test_qwen3_vl.build(text, vision, tied)
    config = theirs.config.vision_config
    fields = {
        "patch_size": config.patch_size,
        "merge_size": config.spatial_merge_size,
        "temporal_patch_size": config.temporal_patch_size,
        "size": {"shortest_edge": 1, "longest_edge": 20_000},
    }
    return theirs, qwen_vl.TOKENIZER, {"preprocessor_config.json": fields}


def smolvlm():
    """Frames as images of their own, and embeddings of positions by the rule at release."""
    theirs = SmolVLMForConditionalGeneration(test_smolvlm.config(2))
    parity.randomise(theirs)
    return theirs, test_smolvlm.TOKENIZER, {"preprocessor_config.json": test_smolvlm.processor()}


def video_llava():
    theirs = VideoLlavaForConditionalGeneration(test_video_llava.config(2))
    parity.randomise(theirs)
    fields = clip_fields() | {"image_processor_type": "VideoLlavaImageProcessor"}
    return theirs, test_video_llava.TOKENIZER, {"preprocessor_config.json": fields}


def windowed():
    """A Mistral decoder whose window is shorter than the prompt."""
    text, vision, top, _ = test_llava_next_video.CASES["mistral-window"]
    text = text | {"sliding_window": 100}
    theirs = LlavaNextVideoForConditionalGeneration(
        test_llava_next_video.config(2, text=text, vision=vision, **top)
    )
    parity.randomise(theirs)
    files = {"preprocessor_config.json": clip_fields()}
    return theirs, test_llava_next_video.TOKENIZER, files


def clip_fields():
    return json.loads(test_llava_next_video.processor().to_json_string())


FAMILIES = {"onevision": onevision, "qwen2_5": qwen2_5, "qwen3": qwen3}
MORE = {"smolvlm": smolvlm, "video_llava": video_llava, "windowed": windowed}


PAIR = Path(shapes.__file__).parent / "pair" / "video"


@dataclass(frozen=True)
class Case:
    """A checkpoint, its conversion, and what `transformers` computes of it."""

    checkpoint: Path
    model: Path
    recorded: Recorded

    def stages(self, model: Path) -> dict[str, Stage]:
        sides = read_sides(model, str(self.checkpoint))
        return {stage.name: stage for stage in stages_of(sides, self.recorded)}

    def first_beyond(self, model: Path) -> str:
        return next(name for name, stage in self.stages(model).items() if stage.beyond)


def case(folder: Path, checkpoint: Path) -> Case:
    convert(checkpoint, folder / "model")
    (folder / "states").mkdir()
    sides = read_sides(folder / "model", str(checkpoint))
    return Case(checkpoint, folder / "model", record(sides, folder / "states"))


def tiny(name: str, factory) -> Case:
    theirs, tokenizer, files = (FAMILIES | MORE)[name]()
    folder = factory.mktemp(name)
    checkpoint = parity.save_checkpoint(folder / "checkpoint", theirs, tokenizer, files | PLAIN)
    return case(folder, checkpoint)


@pytest.fixture(scope="module")
def onevision_case(tmp_path_factory):
    return tiny("onevision", tmp_path_factory)


@pytest.fixture(scope="module")
def qwen2_5_case(tmp_path_factory):
    return tiny("qwen2_5", tmp_path_factory)


@pytest.fixture(scope="module")
def qwen3_case(tmp_path_factory):
    return tiny("qwen3", tmp_path_factory)


@pytest.fixture(scope="module")
def pair_case(tmp_path_factory):
    return case(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.mark.parametrize("name", ["pair", *FAMILIES])
def test_right_conversions(name, request):
    chosen = request.getfixturevalue(f"{name}_case")
    stages = chosen.stages(chosen.model)
    assert not [stage for stage in stages.values() if stage.beyond]
    layers = [stage for stage in stages if stage.startswith("layer ")]
    assert len(layers) == chosen.recorded.layers and ":" not in "".join(layers)
    assert stages["greedy tokens"].note == "the first 16 of 16 are the same"
    assert len(set(chosen.recorded.tokens)) > 2, "the same few tokens again and again test little"
    for stage in list(stages.values())[-3:]:
        assert stage.name.startswith("knockout ")
        assert float(stage.note.split()[-1]) > 1000 * stage.error, "it changes too little to test"


@pytest.mark.parametrize(
    "name", ["windowed", *(pytest.param(name, marks=pytest.mark.slow) for name in list(MORE)[:2])]
)
def test_right_conversions_of_more_families(name, tmp_path_factory):
    chosen = tiny(name, tmp_path_factory)
    stages = chosen.stages(chosen.model)
    assert not [stage for stage in stages.values() if stage.beyond]
    assert stages["greedy tokens"].note == "the first 16 of 16 are the same"
    positions = read_sides(chosen.model, str(chosen.checkpoint)).prompt.encoded.layout.length
    assert name != "windowed" or positions > 100, "the window does not bind"


def converted_again(case: Case, folder: Path, change) -> Path:
    """A conversion of the checkpoint with other tensors: float32 arrays by key."""
    light_copy(case.checkpoint, folder / "changed")

    def rewritten(tensors):
        arrays = {
            key: np.frombuffer(content, DTYPES[dtype]).reshape(shape)
            for key, (dtype, shape, content) in tensors.items()
        }
        change(arrays)
        for key, (dtype, shape, _) in tensors.items():
            tensors[key] = (dtype, shape, np.ascontiguousarray(arrays[key]).tobytes())

    file = folder / "changed" / "model.safetensors"
    tensors = tensors_of(file)
    rewritten(tensors)
    file.unlink()
    write_file(file, tensors)
    convert(folder / "changed", folder / "model")
    return folder / "model"


def swap(one: str, other: str):
    """The change that puts each of two tensors in the other's place; `*` is any prefix."""

    def change(arrays):
        first, second = (next(key for key in arrays if key.endswith(end)) for end in (one, other))
        arrays[first], arrays[second] = arrays[second], arrays[first]

    return change


def reorder(end: str, function):
    """The change of one tensor by a function that keeps its shape."""

    def change(arrays):
        key = next(key for key in arrays if key.endswith(end))
        shape = arrays[key].shape
        arrays[key] = function(arrays[key]).reshape(shape)

    return change


def columns_first(weight):
    """A patch embedding that takes the two axes of a patch for each other."""
    return weight.swapaxes(-1, -2)


def blocks_transposed(weight):
    """A merger that takes the two axes of a block of 2 x 2 patches for each other."""
    return weight.reshape(len(weight), 2, 2, -1).swapaxes(1, 2)


BROKEN = {
    "onevision: query and key swapped": (
        "onevision",
        swap("language_model.model.layers.1.self_attn.q_proj.weight",
             "language_model.model.layers.1.self_attn.k_proj.weight"),
        "layer 1: query",
    ),
    "onevision: patches transposed": (
        "onevision", reorder("patch_embedding.weight", columns_first), "vision features",
    ),
    "onevision: projector": (
        "onevision", reorder("projector.linear_2.bias", lambda bias: bias[::-1]),
        "video embeddings",
    ),
    "qwen2_5: gate and up swapped": (
        "qwen2_5", swap("layers.3.mlp.gate_proj.weight", "layers.3.mlp.up_proj.weight"),
        "layer 3: mlp",
    ),
    "qwen2_5: blocks transposed": (
        "qwen2_5", reorder("visual.merger.mlp.0.weight", blocks_transposed), "video embeddings",
    ),
    "qwen3: norms of heads swapped": (
        "qwen3", swap("layers.0.self_attn.q_norm.weight", "layers.0.self_attn.k_norm.weight"),
        "layer 0: attention",
    ),
    "pair: embeddings moved by one": (
        "pair", reorder("embed_tokens.weight", lambda weight: np.roll(weight, 1, 0)),
        "token embeddings",
    ),
    "pair: final norm": (
        "pair", reorder("language_model.model.norm.weight", lambda weight: weight[::-1]),
        "final norm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", BROKEN)
def test_broken_weights_are_named(which, request, tmp_path):
    name, change, stage = BROKEN[which]
    chosen = request.getfixturevalue(f"{name}_case")
    assert chosen.first_beyond(converted_again(chosen, tmp_path, change)) == stage


def rope_theta(fields):
    text = fields["text_config"]
    if "rope_parameters" in text:
        text["rope_parameters"]["rope_theta"] *= 4
    else:
        text["rope_theta"] = 4e4


def no_deepstack_layer(fields):
    fields["vision_config"]["deepstack_visual_indexes"] = [1, 2]


def redder(fields):
    fields["image_mean"][0] += 0.01


def other_letters(fields):
    vocabulary = fields["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]


@pytest.mark.parametrize(
    ("name", "file", "change", "stage"),
    [
        ("pair", "config.json", rope_theta, "layer 0: attention"),
        ("qwen3", "config.json", rope_theta, "layer 0: attention"),
        ("qwen3", "config.json", no_deepstack_layer, "layer 0"),
        ("onevision", "preprocessor_config.json", redder, "pixel values"),
        ("onevision", "tokenizer.json", other_letters, "prompt ids"),
    ],
)
def test_broken_files_are_named(name, file, change, stage, request, tmp_path):
    chosen = request.getfixturevalue(f"{name}_case")
    shutil.copytree(chosen.model, tmp_path / "model")
    edit_json(tmp_path / "model" / file, change)
    assert chosen.first_beyond(tmp_path / "model") == stage


def test_the_command(pair_case, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(pair_case.model, model)
    for broken in (False, True):
        if broken:
            edit_json(model / "config.json", rope_theta)
        code = run(model, str(pair_case.checkpoint), json_file=tmp_path / "report.json")
        report = json.loads((tmp_path / "report.json").read_text())
        printed = capsys.readouterr().out
        assert code == int(broken)
        assert report["verdict"] in printed and "LlavaForConditionalGeneration" in printed
        assert any(stage["beyond"] for stage in report["stages"]) == broken
    assert "first at layer 0: attention" in report["verdict"]
    assert "rotary embedding" in report["verdict"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "internvl_chat"}, "trust_remote_code"),
        ({"model_type": "videollama3_qwen2"}, "video_llama_3"),
        (
            {"model_type": "mamba"},
            "model_type is 'mamba'; `flowjax check` knows how to ask internvl",
        ),
    ],
)
def test_checkpoints_that_transformers_has_no_class_for(fields, words, pair_case, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(FlowjaxError, match=re.escape(words)):
        read_sides(pair_case.model, str(tmp_path))


def test_options_need_a_question(pair_case):
    with pytest.raises(FlowjaxError, match="--option needs --question"):
        read_sides(pair_case.model, str(PAIR), options=("a", "b"))


def test_more_frames_of_fewer_pixels(qwen2_5_case):
    reading = VideoOptions(num_frames=12, max_pixels=2048)
    report = check(qwen2_5_case.model, str(qwen2_5_case.checkpoint), reading=reading)
    assert report.first_beyond is None, report.verdict
    assert report.prompt["frames"][0] == 12
    # The clip of 224 x 224 pixels at most 40 x 40: six temporal patches of 5 x 5 blocks.
    assert report.prompt["video_positions"] == 6 * 25


def test_a_rate_needs_a_video(pair_case):
    with pytest.raises(FlowjaxError, match="--fps needs --video"):
        check(pair_case.model, str(pair_case.checkpoint), reading=VideoOptions(fps=2.0))


def test_the_decoder_is_found_in_the_module_around_it():
    model = SmolVLMForConditionalGeneration(test_smolvlm.config(2))
    model.get_decoder = lambda: model.model  # as transformers 4.57 has it
    theirs = Theirs(model, peers()["smolvlm"], "cpu", ())
    assert theirs.decoder is model.model.text_model
    assert theirs.layers == list(model.model.text_model.layers)


@pytest.mark.parametrize(("version", "seconds"), [("4.57.1", 1.5), ("5.23.0", 0.75)])
def test_the_clip_suits_the_version(version, seconds, monkeypatch):
    """Whole seconds between patches of two frames with 4; a second in all with 5."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    _, times, _ = made_clip(4)
    assert times[-1] == seconds


def test_every_forward_is_told_that_nothing_is_padding(qwen3_case, monkeypatch, tmp_path):
    """Without a mask, transformers 4.57 takes a video for many sequences."""
    masks = []

    def knocked_out(theirs, inputs, prompt, knockout):
        masks.append(inputs["attention_mask"])
        return np.zeros(theirs.model.config.text_config.vocab_size, np.float32)

    monkeypatch.setattr("flowjax_convert.check.theirs._knocked_out", knocked_out)
    record(read_sides(qwen3_case.model, str(qwen3_case.checkpoint)), tmp_path)
    assert len(masks) == 3 and all(mask.all() for mask in masks)
