"""Prompts of questions without options: no instruction to choose, no beginning of an answer."""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
import pytest
from flax import nnx

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.families.internvl import PHI3
from flowjax.models.registry import families
from flowjax.models.spatial_pool import NewlinePoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.models.vision.qwen2_5_vl import Qwen25VisionConfig
from flowjax.models.vision.qwen2_vl import Qwen2VisionConfig
from flowjax.models.vision.qwen3_vl import Qwen3VisionConfig
from flowjax.models.vision.rice_vit import RiceViTConfig
from flowjax.models.vision.siglip_navit import SiglipNavitConfig
from tests.sweeps.test_engine import VARIANTS


@dataclass(frozen=True)
class Part:
    """Stands for a vision encoder or a projector, which these prompts do not read."""

    def build(self, dtype: jnp.dtype, rngs: nnx.Rngs):
        raise NotImplementedError

    def places(self, positions, frames, pixels):
        raise NotImplementedError


QWEN = (8, 8, 1, 2, 2, 2, 2)
GELU = "gelu"
CASES = {
    "pllava": (Part(), (2,), "\n USER: What?", " ASSISTANT:"),
    "internvl": (Part(), (2,), "</img>\n <|user|>\nWhat?", " <|assistant|>\n"),
    "internvl_native": (Part(), (2,), "</img>\nWhat?", "<|im_end|>\n<|im_start|>assistant\n"),
    "llava_next_video": (Part(), (2,), "\nWhat?", " ASSISTANT:"),
    "llava_onevision": (Part(), (2,), "\nWhat?", "<|im_end|>\n<|im_start|>assistant\n"),
    "videollama3": (
        SiglipNavitConfig(8, 8, 1, 2, 2, 3, 1e-6, GELU, 1e4, True),
        (2, 1, 1, 4, 12),
        "\nWhat?",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2_5_vl": (
        Qwen25VisionConfig(*QWEN, 1, (0,), GELU, 1e4, 2),
        (1, 1, 1, 4, 24),
        "<|vision_end|>What?",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen3_vl": (
        Qwen3VisionConfig(*QWEN, 4, (), GELU, 1e4),
        (1, 1, 1, 4, 24),
        "<|vision_end|>What?",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
}
CASES["llava_qwen"] = CASES["llava_onevision"]
CASES["smolvlm"] = (Part(), (2,), "\n\nWhat?", "<end_of_utterance>\nAssistant:")
CASES["video_llava"] = CASES["llava_next_video"]
CASES["video_llama_3"] = CASES["videollama3"]
CASES["llava_onevision1_5"] = (
    RiceViTConfig(8, 8, 1, 2, 2, 2, 1e-5, GELU),
    (1, 1, 1, 4, 12),
    *CASES["qwen2_5_vl"][2:],
)
CASES["llava_llama"] = (Part(), (2,), "\nWhat?", " ASSISTANT:")
CASES["qwen2_vl"] = (Qwen2VisionConfig(*QWEN, GELU, 1e4), *CASES["qwen2_5_vl"][1:])


def config_of(name):
    """A configuration of which prompts read little."""
    vision = CASES[name][0]
    pool = NewlinePoolConfig(8, 8, 2, 1, "max", "grid", GELU)
    projector = pool if name in ("llava_onevision", "llava_qwen") else Part()
    config = VideoLLMConfig(name, VARIANTS["mha"].config, vision, projector, 2, 3, 1)
    if name == "internvl":
        config = dataclasses.replace(config, conversation=PHI3)
    return config


def prompt_of(name, question):
    shape = VideoShape(CASES[name][1], (0.0, 1.0))
    return families()[name].prompt(config_of(name), question, shape)


@pytest.mark.parametrize("name", sorted(families()))
def test_an_open_question_stands_alone(name):
    prompt = prompt_of(name, Question("What?", ()))
    _, _, before, after = CASES[name]
    assert prompt.text.endswith(before + after)
    text = {span.cell: prompt.text[span.start : span.stop] for span in prompt.spans}
    assert text["question_stem"] == "What?" and text["instruction"] == after
    assert not any(cell.startswith(("option_", "question_format")) for cell in text)
    assert prompt.true_option is None
    choices = prompt_of(name, Question("What?", ("this", "that"), "B"))
    assert choices.true_option == "option_B"
    assert "(B) that" in choices.text and "best option" in choices.text


def test_one_option_is_no_choice():
    with pytest.raises(FlowjaxError, match="2 to 26 options, or none to be open; this one has 1"):
        Question("What?", ("this",))
    with pytest.raises(FlowjaxError, match="answer 'A' is not an option; the options are none"):
        Question("What?", (), "A")
