"""Converting a Hugging Face checkpoint to a flowjax model."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from tokenizers import Tokenizer

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.files import printable, read_json, utf8_name, writing
from flowjax.folders import new_directory
from flowjax.models.chat import JINJA, built_frame, frame_of, read_chat_template
from flowjax.models.checkpoint import (
    CONFIG,
    FORMAT,
    MANIFEST,
    PARAMETERS,
    PREPROCESSOR,
    PROCESSOR,
    TOKENIZER,
    VIDEO_PREPROCESSOR,
    VIDEO_PROCESSOR,
    Manifest,
    parameters_digest,
    read_preprocessor,
)
from flowjax.models.loaded import CHAT, chatting, first_token
from flowjax.models.registry import Family, Preprocess, family_of
from flowjax.models.video_llm import VideoLLMConfig, parameter_shapes
from flowjax.paths import as_path
from flowjax.platforms import check_backend
from flowjax.progress import BYTES, progress_bar
from flowjax.version import __version__
from flowjax_convert.adapter import adapted
from flowjax_convert.adapter_config import ADAPTER_CONFIG, read_adapter_config
from flowjax_convert.hub import local_directory
from flowjax_convert.mapping import table_of
from flowjax_convert.output import check_output, check_space
from flowjax_convert.plan import Plan, make_plan
from flowjax_convert.quantised import check_not_quantised, check_plain_keys
from flowjax_convert.source import Source, open_source
from flowjax_convert.tokenizer import CheckpointTokenizer, checkpoint_tokenizer
from flowjax_convert.writer import write_parameters

SIDE_FILES = (
    CONFIG,
    TOKENIZER,
    PREPROCESSOR,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    PROCESSOR,
    VIDEO_PREPROCESSOR,
    VIDEO_PROCESSOR,
    "added_tokens.json",
    JINJA,
    "chat_template.json",
)
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
DtypeName = Literal["float32", "bfloat16"]
SOME_FRAME = (96, 128)
"""Rows and columns of pixels of a video to compare prompts about."""

SIDE_BYTES = 64 * 2**20
"""Room for everything but the parameters."""


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    parameters: number of parameters (scalars).
    bytes: of all parameters as written.
    tensors: keys of the checkpoint that were used.
    ignored: reason by key, for all others.
    chat: how the checkpoint's chat template differs from the family's prompt, in words; empty if it
        does not, or there is none.
    """

    out: Path
    family: str
    parameters: int
    bytes: int
    tensors: int
    ignored: Mapping[str, str]
    chat: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose configuration has been read, side files parsed, and headers planned.

    fields: of `config.json`, with the user's overrides.
    chat: see `ConvertReport`.
    """

    source: Source
    tokenizer: CheckpointTokenizer
    fields: Mapping[str, Any]
    config: VideoLLMConfig
    plan: Plan
    chat: str


def convert(
    src: str | Path,
    out: str | Path,
    *,
    dtype: DtypeName | None = None,
    pooling_shape: tuple[int, int, int] | None = None,
    vision_attention: str | None = None,
    prompt: str | None = None,
    adapter: str | Path | None = None,
    note: str = "",
    overwrite: bool = False,
    revision: str | None = None,
) -> ConvertReport:
    """Convert a checkpoint; `out` appears complete or not at all.

    Args:
        src: a directory, or the id of a repository on the Hugging Face hub. If it holds a LoRA
            adapter instead of a model, the base model is the one that the adapter names.
        out: the directory to write, in the layout of `flowjax.models.checkpoint`; may be at
            `gs://`, and is then made on this machine and sent.
        dtype: of all parameters; None keeps that of each tensor.
        pooling_shape: (frames, rows, columns) of video tokens, in place of the configuration's.
        vision_attention: which implementation's vision attention to compute, for a family whose
            implementations differ (see `Family.vision_attention`).
        prompt: "chat" has the model asked by the checkpoint's chat template; None by the family's
            own prompt.
        adapter: a LoRA adapter of PEFT to merge into the model: a directory or a repository's id.
        note: a remark that every output made with the model repeats.
        overwrite: whether an earlier conversion at `out` may be replaced.
        revision: branch, tag or commit of a hub repository.

    Raises:
        FlowjaxError: `src` or `out` does not serve; nothing has been written.
    """
    out = as_path(out)
    check_backend()  # Orbax asks JAX which process this is
    check_output(out, overwrite=overwrite)
    model = resolve(src, adapter, revision)
    directory = model.directory
    checkpoint = read_checkpoint(
        directory,
        dtype=dtype,
        pooling_shape=pooling_shape,
        vision_attention=vision_attention,
        prompt=prompt,
        adapter=model.adapter,
    )
    plan, config = checkpoint.plan, checkpoint.config
    check_space(out, plan.bytes + SIDE_BYTES)
    overrides = {
        "dtype": dtype,
        "pooling_shape": pooling_shape,
        "vision_attention": vision_attention,
        "prompt": prompt,
        "revision": revision,
        "adapter": None if adapter is None else str(adapter),
    }
    manifest = Manifest(
        format=FORMAT,
        family=config.family,
        name=_name(src),
        source=printable(src),
        note=note,
        flowjax_version=__version__,
        overrides={option: value for option, value in overrides.items() if value is not None},
        parameters=plan.count,
        dtype={parameter.path: parameter.dtype.name for parameter in plan.parameters},
    )
    with writing(out), new_directory(out, MANIFEST) as partial:
        for name in SIDE_FILES:
            if (directory / name).is_file():
                (partial / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(directory / name, partial / name)
        if not checkpoint.tokenizer.stored:
            (partial / TOKENIZER).write_text(checkpoint.tokenizer.text, encoding="utf-8")
        if pooling_shape is not None or vision_attention is not None:
            _write_json(partial / CONFIG, checkpoint.fields)
        with progress_bar(f"converting {_name(src)}", plan.bytes, columns=BYTES) as report:
            try:
                with utf8_name(partial) as named:
                    write_parameters(named / PARAMETERS, plan, checkpoint.source, report)
            except (OSError, ValueError, RuntimeError) as error:
                raise FlowjaxError(f"{out} cannot be written: {error}") from error
        digest = parameters_digest(partial / PARAMETERS)
        _write_json(partial / MANIFEST, dataclasses.asdict(manifest) | {"digest": digest})
    return ConvertReport(
        out=out,
        family=config.family,
        parameters=plan.count,
        bytes=plan.bytes,
        tensors=len({key for parameter in plan.parameters for key in parameter.keys}),
        ignored=plan.ignored,
        chat=checkpoint.chat,
    )


@dataclass(frozen=True)
class Model:
    """Local directories of a model and of the adapter to merge into it, if any."""

    directory: Path
    adapter: Path | None


def resolve(src: str | Path, adapter: str | Path | None, revision: str | None) -> Model:
    """Where a model is, after downloading what the hub has; see `convert` for the arguments.

    Raises:
        FlowjaxError: one of them cannot be read, or both are adapters.
    """
    directory = local_directory(src, revision)
    if (directory / CONFIG).is_file() or not (directory / ADAPTER_CONFIG).is_file():
        return Model(directory, None if adapter is None else local_directory(adapter))
    if adapter is not None:
        raise FlowjaxError(f"{src} is an adapter itself; --adapter needs a model to go into")
    fields = read_adapter_config(directory)
    if not fields.base:
        raise FlowjaxError(
            f"{directory / ADAPTER_CONFIG}: base_model_name_or_path is missing; convert the base "
            "model with --adapter"
        )
    return Model(local_directory(fields.base, fields.revision), directory)


def read_checkpoint(
    directory: Path,
    *,
    dtype: DtypeName | None = None,
    pooling_shape: tuple[int, int, int] | None = None,
    vision_attention: str | None = None,
    prompt: str | None = None,
    adapter: Path | None = None,
) -> Checkpoint:
    """Read everything of a checkpoint but its weights, and check that it can be converted.

    See `convert` for the arguments.

    Raises:
        FlowjaxError: names the file, field or key that does not serve.
    """
    if dtype is not None and dtype not in DTYPES:
        raise FlowjaxError(f"--dtype {dtype} is not supported; {' and '.join(DTYPES)} are")
    if prompt not in (None, CHAT):
        raise FlowjaxError(
            f"--prompt {prompt}: only {CHAT} is another prompt than the family's own"
        )
    fields = read_json(directory / CONFIG)
    if pooling_shape is not None:
        fields |= {"pooling_shape": list(pooling_shape), "num_frames": pooling_shape[0]}
    check_not_quantised(fields, str(directory / CONFIG))
    family = family_of(fields, str(directory / CONFIG))
    if vision_attention is not None:
        if vision_attention not in family.vision_attention:
            choose = ", ".join(family.vision_attention) or "none: all compute the same"
            raise FlowjaxError(
                f"--vision-attention {vision_attention}: the choices of {family.name} are {choose}"
            )
        fields |= {"_attn_implementation": vision_attention}
    config = family.read_config(fields, str(directory / CONFIG))
    preprocess = read_preprocessor(directory, family)
    tokenizer = checkpoint_tokenizer(directory)
    count = tokenizer.tokenizer.get_vocab_size()
    if count > config.decoder.vocabulary:
        raise FlowjaxError(
            f"{directory / TOKENIZER} has {count} tokens, but the model has "
            f"{config.decoder.vocabulary} embeddings; it belongs to another model"
        )
    if prompt == CHAT:
        chatting(family, directory, tokenizer.tokenizer)
    chat = other_prompt(
        directory, family, config, preprocess, tokenizer.tokenizer, needed=prompt == CHAT
    )
    source, table = open_source(directory), table_of(config, fields)
    check_plain_keys(source.headers, str(directory))
    if adapter is not None:
        source = adapted(source, adapter, table.spellings)
    plan = make_plan(
        source,
        table,
        parameter_shapes(config),
        None if dtype is None else DTYPES[dtype],
    )
    return Checkpoint(source, tokenizer, fields, config, plan, chat)


def other_prompt(
    directory: Path,
    family: Family,
    config: VideoLLMConfig,
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    *,
    needed: bool,
) -> str:
    """How a checkpoint's chat template asks another question than the family, in words.

    needed: whether the template is to be used, so that it must work.

    Raises:
        FlowjaxError: it is needed and does not.
    """
    pixels = preprocess(np.zeros((config.frames, *SOME_FRAME, 3), np.uint8))
    shape = VideoShape(pixels.shape, tuple(map(float, range(config.frames))))
    try:
        template = read_chat_template(directory)
        if template is None:
            return ""
        built = family.prompt(config, Question("What?", ()), shape)
        theirs = frame_of(template, built, shape)
    except FlowjaxError as error:
        if needed:
            raise
        return str(error)
    ours = built_frame(built, theirs.section)
    if str(ours) == str(theirs).removeprefix(first_token(template, tokenizer)):
        return ""
    return f"{template.path.name} asks {str(theirs)!r}, and family {family.name} {str(ours)!r}"


def _name(src: str | Path) -> str:
    """The last part of a directory's path or a repository's id."""
    name = Path(src).resolve().name if Path(src).is_dir() else str(src).rsplit("/", 1)[-1]
    return printable(name)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
