"""Image models that PLLaVA starts from (LLaVA-NeXT), run on videos as PLLaVA does.

`transformers` has no video path for them, so the expectation joins its vision tower, projector and
decoder with PyTorch's adaptive average pooling.
"""

import json

import pytest
import torch
from transformers import (
    CLIPImageProcessorPil,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from flowjax.errors import FlowjaxError
from flowjax_convert.run import convert
from tests.models import parity
from tests.models.llava_keys import check_same_parameters, check_spellings

TOKENIZER = parity.llama_tokenizer(["<image>"])
POOLING = (4, 3, 5)


def video_embeddings(theirs, pixel_values):
    """What PLLaVA makes of frames: features, projector, pooling over time and space."""
    model = theirs.model
    out = model.vision_tower(torch.from_numpy(pixel_values), output_hidden_states=True)
    features = out.hidden_states[theirs.config.vision_feature_layer][:, 1:]
    projected = model.multi_modal_projector(features)
    side = int(features.shape[1] ** 0.5)
    grid = projected.unflatten(1, (side, side)).permute(3, 0, 1, 2)
    pooled = torch.nn.functional.adaptive_avg_pool3d(grid, POOLING)
    return pooled.flatten(1).T


def pair_of(kind, folder):
    config = LlavaNextConfig(
        text_config={
            "model_type": kind,
            "vocab_size": 360,
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 7,
        },
        image_token_index=TOKENIZER.token_to_id("<image>"),
    )
    theirs = LlavaNextForConditionalGeneration(config)
    parity.randomise(theirs)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    fields = json.loads(processor.to_json_string())
    # As in the released preprocessor_config.json, which tiles still images.
    fields |= {"image_processor_type": "LlavaNextImageProcessor", "aspect_ratio_setting": "anyres"}
    files = {"preprocessor_config.json": fields | {"image_grid_pinpoints": [[56, 112]]}}
    return parity.converted(folder, theirs, TOKENIZER, files, pooling_shape=POOLING)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return pair_of("llama", tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_as_pllava_runs_it(kind, pair, tmp_path):
    pair = pair if kind == "llama" else pair_of(kind, tmp_path)

    def call(prompt, pixel_values):
        ids = torch.from_numpy(prompt.ids)
        with torch.no_grad():
            x = pair.theirs.get_input_embeddings()(ids)
            x[torch.from_numpy(prompt.video_position).long()] = video_embeddings(
                pair.theirs, pixel_values
            )
        return {"inputs_embeds": x[None]}

    asked = parity.ask(pair, call=call)
    assert len(asked.prompt.video_position) == 60
    parity.check_forward(asked)
    # What frames read of each other shows too little in the other case.
    parity.check_knockouts(asked, parity.EDGES if kind == "llama" else parity.EDGES[1:])
    parity.check_generation(asked)


def test_every_spelling_of_the_keys(pair, tmp_path):
    check_spellings(pair, tmp_path, pooling_shape=POOLING)


def test_a_pooling_shape_is_asked_for(pair, tmp_path):
    with pytest.raises(FlowjaxError, match="pooling_shape is missing; convert with --pooling"):
        convert(pair.checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_pooling_shape_is_kept(pair, tmp_path):
    check_same_parameters(pair, pair.checkpoint, tmp_path / "out", pooling_shape=POOLING)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (fields["pooling_shape"], fields["num_frames"]) == ([4, 3, 5], 4)
    assert "pooling_shape" not in json.loads((pair.checkpoint / "config.json").read_text())
