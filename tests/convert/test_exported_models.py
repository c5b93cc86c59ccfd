"""What `flowjax export` writes, read by code that no one here wrote."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from flowjax.asked.asked import embed
from flowjax.files import read_json
from flowjax.models.checkpoint import load_model
from flowjax.models.save import save_model
from flowjax_convert.export import export
from flowjax_convert.run import convert
from tests.convert.checkpoints import tensors_of
from tests.models import (
    parity,
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
    test_video_llava,
)

ORACLE = Path(__file__).parents[1] / "oracle" / "data" / "pllava"
ORIGINALS = (test_llava_llama, test_llava_onevision1_5, test_llava_qwen)
LIBRARY = (
    test_llava_next_video,
    test_internvl_native,
    test_llava_onevision,
    test_qwen2_5_vl,
    test_qwen2_vl,
    test_qwen3_vl,
    test_smolvlm,
    test_video_llava,
)


def named(module):
    return module.__name__.rsplit("test_", 1)[1]


def first_of(modules):
    """One of them in every run of the tests, the others among those that take long."""
    return [modules[0], *(pytest.param(one, marks=pytest.mark.slow) for one in modules[1:])]


def first_case(module, folder):
    return module.case(folder, *next(iter(module.CASES.values())))


@pytest.mark.parametrize("module", first_of(ORIGINALS), ids=named)
def test_original_layouts_come_back_bit_for_bit(tmp_path, module):
    """Those that `transformers` does not have."""
    first_case(module, tmp_path)
    export(tmp_path / "model", tmp_path / "out", like=tmp_path / "checkpoint")
    written = tensors_of(tmp_path / "out" / "model.safetensors")
    assert written == tensors_of(tmp_path / "checkpoint" / "model.safetensors")
    convert(tmp_path / "out", tmp_path / "again")
    one, two = (read_json(tmp_path / name / "flowjax.json") for name in ("model", "again"))
    assert one["digest"] == two["digest"]


@pytest.mark.parametrize("module", first_of(LIBRARY), ids=named)
def test_transformers_runs_a_changed_model(tmp_path, module):
    """Parameters that no checkpoint had, as after training."""
    asked = first_case(module, tmp_path)
    made, checkpoint = tmp_path / "model", tmp_path / "checkpoint"
    before = nnx.to_pure_dict(nnx.state(load_model(made).model))
    changed = jax.tree.map(lambda leaf: leaf * 1.05, before)
    save_model(tmp_path / "changed", made, changed, name="changed", note="")
    export(tmp_path / "changed", tmp_path / "out", like=checkpoint)
    theirs = type(asked.pair.theirs).from_pretrained(tmp_path / "out", attn_implementation="eager")
    with torch.no_grad():
        expected = theirs.eval()(**asked.inputs).logits[0].numpy()
    ours = load_model(tmp_path / "changed").model
    embedded = embed(ours, asked.prompt, asked.prepared.pixel_values)
    parity.assert_close(parity.forward(ours, embedded)[-1], expected, "logits")
    own = parity.forward(asked.pair.ours.model, asked.embedded)[-1]
    assert np.abs(own - expected).max() > 1e-2


class Pllava(torch.nn.Module):
    """Modules by the names that PLLaVA's own code gives them, and its forward pass."""

    def __init__(self, fields):
        super().__init__()
        self.fields = fields
        vision = CLIPVisionConfig(**fields["vision_config"])
        text = LlamaConfig(**fields["text_config"])
        sizes = {"linear_1": vision.hidden_size, "linear_2": text.hidden_size}
        self.vision_tower = torch.nn.ModuleDict({"vision_model": CLIPVisionModel(vision)})
        self.multi_modal_projector = torch.nn.ModuleDict(
            {name: torch.nn.Linear(size, text.hidden_size) for name, size in sizes.items()}
        )
        self.language_model = LlamaForCausalLM(text)

    def forward(self, ids, pixels):
        """Logits [n, vocabulary] of ids [n] with one placeholder, and pixel values."""
        fields, project = self.fields, self.multi_modal_projector
        tower = self.vision_tower["vision_model"](pixels, output_hidden_states=True)
        features = tower.hidden_states[fields["vision_feature_layer"]][:, 1:]
        inner = torch.nn.functional.gelu(project["linear_1"](features))
        side = math.isqrt(features.shape[1])
        grid = project["linear_2"](inner).unflatten(1, (side, side)).permute(3, 0, 1, 2)
        pooled = torch.nn.functional.adaptive_avg_pool3d(grid, fields["pooling_shape"])
        [place] = torch.nonzero(ids == fields["image_token_index"])[:, 0].tolist()
        x = self.language_model.get_input_embeddings()(ids)
        x = torch.cat([x[:place], pooled.flatten(1).T, x[place + 1 :]])
        return self.language_model(inputs_embeds=x[None]).logits[0]


def test_the_loader_of_pllava_reads_what_is_exported(tmp_path):
    """Its published code fills its modules with every tensor of `model.safetensors` by name."""
    convert(ORACLE, tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", like=ORACLE)
    theirs = Pllava(read_json(tmp_path / "out" / "config.json")).eval()
    theirs.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    with np.load(ORACLE / "expected.npz") as expected, torch.no_grad():
        ids, pixels = (torch.from_numpy(expected[f"s0.{n}"]) for n in ("input_ids", "pixel_values"))
        logits = theirs(ids, pixels)[-1].numpy()
        parity.assert_close(logits, expected["s0.logits_last"], "logits")
