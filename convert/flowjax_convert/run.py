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

from flowjax.errors import FlowjaxError
from flowjax.files import read_json
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
    read_preprocessor,
)
from flowjax.models.registry import family_of
from flowjax.models.video_llm import VideoLLMConfig, parameter_shapes
from flowjax.progress import BYTES, progress_bar
from flowjax.version import __version__
from flowjax_convert.adapter import adapted
from flowjax_convert.adapter_config import ADAPTER_CONFIG, read_adapter_config
from flowjax_convert.hub import local_directory
from flowjax_convert.mapping import table_of
from flowjax_convert.output import check_output, check_space, new_directory
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
)
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
DtypeName = Literal["float32", "bfloat16"]
SIDE_BYTES = 64 * 2**20
"""Room for everything but the parameters."""


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did.

    parameters: number of parameters (scalars).
    bytes: of all parameters as written.
    tensors: keys of the checkpoint that were used.
    ignored: reason by key, for all others.
    """

    out: Path
    family: str
    parameters: int
    bytes: int
    tensors: int
    ignored: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose configuration has been read, side files parsed, and headers planned.

    fields: of `config.json`, with the user's overrides.
    """

    source: Source
    tokenizer: CheckpointTokenizer
    fields: Mapping[str, Any]
    config: VideoLLMConfig
    plan: Plan


def convert(
    src: str | Path,
    out: str | Path,
    *,
    dtype: DtypeName | None = None,
    pooling_shape: tuple[int, int, int] | None = None,
    adapter: str | Path | None = None,
    note: str = "",
    overwrite: bool = False,
    revision: str | None = None,
) -> ConvertReport:
    """Convert a checkpoint; `out` appears complete or not at all.

    Args:
        src: a directory, or the id of a repository on the Hugging Face hub. If it holds a LoRA
            adapter instead of a model, the base model is the one that the adapter names.
        out: the directory to write, in the layout of `flowjax.models.checkpoint`.
        dtype: of all parameters; None keeps that of each tensor.
        pooling_shape: (frames, rows, columns) of video tokens, in place of the configuration's.
        adapter: a LoRA adapter of PEFT to merge into the model: a directory or a repository's id.
        note: a remark that every output made with the model repeats.
        overwrite: whether an earlier conversion at `out` may be replaced.
        revision: branch, tag or commit of a hub repository.

    Raises:
        FlowjaxError: `src` or `out` does not serve; nothing has been written.
    """
    out = Path(out)
    check_output(out, overwrite=overwrite)
    model = resolve(src, adapter, revision)
    directory = model.directory
    checkpoint = read_checkpoint(
        directory, dtype=dtype, pooling_shape=pooling_shape, adapter=model.adapter
    )
    plan, config = checkpoint.plan, checkpoint.config
    check_space(out, plan.bytes + SIDE_BYTES)
    overrides = {
        "dtype": dtype,
        "pooling_shape": pooling_shape,
        "revision": revision,
        "adapter": None if adapter is None else str(adapter),
    }
    manifest = Manifest(
        format=FORMAT,
        family=config.family,
        name=_name(src),
        source=str(src),
        note=note,
        flowjax_version=__version__,
        overrides={option: value for option, value in overrides.items() if value is not None},
        parameters=plan.count,
        dtype={parameter.path: parameter.dtype.name for parameter in plan.parameters},
    )
    with new_directory(out) as partial:
        for name in SIDE_FILES:
            if (directory / name).is_file():
                (partial / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(directory / name, partial / name)
        if not checkpoint.tokenizer.stored:
            (partial / TOKENIZER).write_text(checkpoint.tokenizer.text, encoding="utf-8")
        if pooling_shape is not None:
            _write_json(partial / CONFIG, checkpoint.fields)
        with progress_bar(f"converting {_name(src)}", plan.bytes, columns=BYTES) as report:
            try:
                write_parameters(partial / PARAMETERS, plan, checkpoint.source, report)
            except (OSError, ValueError, RuntimeError) as error:
                raise FlowjaxError(f"{out} cannot be written: {error}") from error
        _write_json(partial / MANIFEST, dataclasses.asdict(manifest))
    return ConvertReport(
        out=out,
        family=config.family,
        parameters=plan.count,
        bytes=plan.bytes,
        tensors=len({key for parameter in plan.parameters for key in parameter.keys}),
        ignored=plan.ignored,
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
    adapter: Path | None = None,
) -> Checkpoint:
    """Read everything of a checkpoint but its weights, and check that it can be converted.

    See `convert` for the arguments.

    Raises:
        FlowjaxError: names the file, field or key that does not serve.
    """
    if dtype is not None and dtype not in DTYPES:
        raise FlowjaxError(f"--dtype {dtype} is not supported; {' and '.join(DTYPES)} are")
    fields = read_json(directory / CONFIG)
    if pooling_shape is not None:
        fields |= {"pooling_shape": list(pooling_shape), "num_frames": pooling_shape[0]}
    check_not_quantised(fields, str(directory / CONFIG))
    family = family_of(fields, str(directory / CONFIG))
    config = family.read_config(fields, str(directory / CONFIG))
    read_preprocessor(directory, family)
    tokenizer = checkpoint_tokenizer(directory)
    count = tokenizer.tokenizer.get_vocab_size()
    if count > config.decoder.vocabulary:
        raise FlowjaxError(
            f"{directory / TOKENIZER} has {count} tokens, but the model has "
            f"{config.decoder.vocabulary} embeddings; it belongs to another model"
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
    return Checkpoint(source, tokenizer, fields, config, plan)


def _name(src: str | Path) -> str:
    """The last part of a directory's path or a repository's id."""
    return Path(src).resolve().name if Path(src).is_dir() else str(src).rsplit("/", 1)[-1]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
