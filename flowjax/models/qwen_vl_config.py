"""What the configurations and prompts of Qwen's VL models, and of those like them, share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flowjax.data.prompt import Prompt, PromptBuilder, Question, RopeGrid, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig, Unread
from flowjax.models.decoder import DecoderConfig
from flowjax.models.rope import MultimodalRope, Rope, ScaledRope

PLACEHOLDER = "<|video_pad|>"
FRAMES = 16
"""Frames of a video where `num_frames` is not in the configuration, which is not in released ones.

The released processors take two frames a second instead, so that their number differs by video.
"""

_TOP = frozenset(
    {
        "model_type", "text_config", "vision_config", "num_frames", "tie_word_embeddings",
        "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id",
        "vision_token_id",
    }
)  # fmt: skip
"""Fields that are not of the decoder, even where the decoder's are on the top level."""

TOKENS = Unread(
    ("image_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id"),
    "still images, and tokens that the prompt spells out",
    "transformers.Qwen2VLModel, Qwen2_5_VLModel and Qwen3VLModel, 4.49 to 5",
)
TEXT_UNREAD = dataclasses.replace(
    TOKENS,
    fields=(*TOKENS.fields, "video_token_id"),
    reason="copies, or nothing, in text_config; the model reads those of the top level",
)
COPIES = Unread(
        (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
            "max_position_embeddings", "rms_norm_eps", "use_sliding_window", "sliding_window",
            "max_window_layers", "layer_types", "rope_theta", "rope_scaling", "rope_parameters",
            "attention_bias",
        ),
        "copies that 4.52 to 4.57 write; the decoder is made from text_config",
        "transformers.Qwen2_5_VLConfig: text_config is made from these fields only where it is "
        "absent",
)  # fmt: skip
"""Of the top level, where there is a `text_config`."""


@dataclasses.dataclass(frozen=True)
class TopFields:
    """What `config.json` says besides the decoder and the vision encoder.

    tied: whether the embeddings are.
    """

    text: Mapping[str, Any]
    text_source: str
    vision: HFConfig
    tied: bool
    frames: int
    placeholder: int


def read_top(
    fields: Mapping[str, Any], source: str, model_type: str, video_token: int
) -> TopFields:
    """Take apart `config.json`; the decoder's fields are in `text_config` or on the top level.

    Where there is a `text_config`, those on the top level are copies that no release reads.

    Args:
        fields: of `config.json`.
        source: its name in errors.
        model_type: of the family; a decoder's `model_type` may be this, or this with `_text`.
        video_token: id of the placeholder where there is none.

    Raises:
        FlowjaxError: names the field that is missing, unknown or not supported.
    """
    if fields.get("text_config") is None:
        own = {name: value for name, value in fields.items() if name in _TOP}
        top = HFConfig(own, f"{source}: ", (TOKENS,))
        text = {name: value for name, value in fields.items() if name not in _TOP}
        text_source = f"{source}: "
    else:
        top = HFConfig(fields, f"{source}: ", (TOKENS, COPIES))
        text, text_source = dict(top.take("text_config", dict)), f"{source}: text_config."
    name = text.pop("model_type", model_type)
    if name not in (model_type, f"{model_type}_text"):
        raise FlowjaxError(
            f"{text_source}model_type is {name!r}; only '{model_type}_text' is supported"
        )
    own = HFConfig({"tie_word_embeddings": text.pop("tie_word_embeddings", None)}, text_source)
    tied = own.take("tie_word_embeddings", bool, False)
    tied = top.take("tie_word_embeddings", bool, False) or tied
    vision = top.nested("vision_config")
    frames = top.positive("num_frames", FRAMES)
    placeholder = top.positive("video_token_id", video_token)
    top.finish()
    return TopFields(text, text_source, vision, tied, frames, placeholder)


def read_multimodal_decoder(
    top: TopFields,
    read: Callable[[HFConfig], DecoderConfig],
    defaults: Mapping[str, Any],
    *,
    sections: tuple[int, int, int],
    interleaved: bool,
) -> DecoderConfig:
    """Read a decoder whose rotary embedding is multimodal.

    Args:
        top: the parts of `config.json`.
        read: reads the decoder without that.
        defaults: fields that are absent, `model_type` as `read` expects it among them.
        sections: where the configuration gives none.
        interleaved: see `MultimodalRope`; a configuration that says otherwise is refused.

    Raises:
        FlowjaxError: names the field that is missing, unknown or not supported.
    """
    # Null is absent, but for this field: as many heads of keys as of queries.
    text = {
        field: value
        for field, value in top.text.items()
        if value is not None or field == "num_key_value_heads"
    }
    fields = {**defaults, **text, "tie_word_embeddings": top.tied}
    name = "rope_scaling" if fields.get("rope_scaling") is not None else "rope_parameters"
    rope = dict(HFConfig({name: fields.get(name) or {}}, top.text_source).take(name, dict))
    names = ("mrope_section", "mrope_interleaved")
    own = {field: rope.pop(field) for field in names if field in rope}
    multimodal = HFConfig(own, f"{top.text_source}{name}.")
    if "mrope_section" in multimodal:
        time, row, column = multimodal.shape("mrope_section", 3)
        sections = time, row, column
    multimodal.expect("mrope_interleaved", interleaved)
    # Older configurations name the kind of rotary embedding by what has just been taken out.
    rope |= {field: "default" for field in ("type", "rope_type") if rope.get(field) == "mrope"}
    decoder = read(HFConfig({**fields, name: rope}, top.text_source, (TEXT_UNREAD,)))
    plain = decoder.rope
    if not isinstance(plain, Rope | ScaledRope):
        raise FlowjaxError(
            f"{top.text_source}{name}.rope_type is {rope.get('rope_type', rope.get('type'))!r}; "
            "only 'default', 'yarn' and 'llama3' are supported"
        )
    if not interleaved and sum(sections) != decoder.head_dim // 2:
        raise FlowjaxError(
            f"{top.text_source}{name}.mrope_section is {list(sections)}; its sum must be half the "
            f"width of a head, {decoder.head_dim // 2}"
        )
    turned = MultimodalRope(plain.head_dim, plain.theta, sections, interleaved)
    if isinstance(plain, ScaledRope):
        turned = dataclasses.replace(turned, factors=plain.factors, scale=plain.scale)
    return dataclasses.replace(decoder, rope=turned)


def axial_theta(vision: HFConfig) -> float:
    """Base of the vision encoder's two-dimensional rotary embedding."""
    if vision.peek("rope_parameters") is None:
        return 10000.0
    rope = vision.nested("rope_parameters")
    rope.expect("rope_type", "axial")
    theta = rope.positive_float("rope_theta", 10000.0)
    rope.finish()
    return theta


def layer_numbers(
    vision: HFConfig, field: str, default: tuple[int, ...], layers: int
) -> tuple[int, ...]:
    """Take a list of layers, in ascending order, of an encoder that has `layers`."""
    value = vision.take(field, list, list(default))
    whole = all(type(layer) is int and 0 <= layer < layers for layer in value)
    if not whole or value != sorted(set(value)):
        raise FlowjaxError(
            f"{vision.name(field)} is {value}; it must be layers from 0 to {layers - 1} in "
            "ascending order"
        )
    return tuple(value)


def check_width(
    vision: HFConfig,
    width: int,
    heads: int,
    outputs: int,
    decoder: int,
    names: tuple[str, str] = ("hidden_size", "out_hidden_size"),
) -> None:
    """Refuse widths of the vision encoder that do not fit together.

    outputs: of a video token, which must be the decoder's width.
    names: the fields of `width` and `outputs`.
    """
    if width % (4 * heads):
        raise FlowjaxError(
            f"{vision.name(names[0])} is {width}; it must be a multiple of 4 * num_heads, "
            f"{4 * heads}"
        )
    if outputs != decoder:
        raise FlowjaxError(
            f"{vision.name(names[1])} is {outputs}; it must be the decoder's width, {decoder}"
        )


def block_grid(shape: VideoShape, block: int, patch_values: int) -> tuple[int, int, int]:
    """Temporal patches, and rows and columns of blocks, of a preprocessed video.

    Raises:
        FlowjaxError: the preprocessor's patches are not those that the model reads.
    """
    frames, rows, columns, *patches = shape.pixels
    if patches != [block, patch_values]:
        raise FlowjaxError(
            f"the preprocessor makes blocks of {' x '.join(map(str, patches))} values, but the "
            f"model reads {block} x {patch_values}; patch_size, temporal_patch_size and merge_size "
            "of the preprocessor's configuration must be those of config.json's vision_config"
        )
    return frames, rows, columns


def video_prompt(question: Question, grid: RopeGrid, *, multimodal: bool = True) -> Prompt:
    """The chat template of Qwen2-VL and Qwen2.5-VL; one cell per temporal patch of the video.

    multimodal: whether the rotary embedding reads the grid.
    """
    builder = PromptBuilder()
    builder.text(
        "system",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|>",
    )
    frames = [(f"frame_{index}", grid.rows * grid.columns) for index in range(grid.frames)]
    builder.video(PLACEHOLDER, frames, grid if multimodal else None)
    builder.text("instruction", "<|vision_end|>")
    builder.question(question)
    builder.chatml_answer(question)
    return builder.build()
