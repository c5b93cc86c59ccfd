"""A converted model on disk, and loading it.

A model is a directory::

    flowjax.json     what it is: `Manifest`
    params/          the parameters, in Orbax's standard format
    config.json, tokenizer.json, preprocessor_config.json, ...
                     Hugging Face's side files; nothing but `config.json` is ever changed
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh
from tokenizers import Tokenizer

from flowjax.errors import FlowjaxError
from flowjax.files import read_json, read_text, utf8_name
from flowjax.models.array_files import check_array_files
from flowjax.models.flash import kernel_here
from flowjax.models.loaded import LoadedModel
from flowjax.models.registry import Family, Preprocess, families
from flowjax.models.sharding import one_device, parameter_sharding
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig, abstract_model, parameter_shapes
from flowjax.paths import as_path, files_under, is_remote
from flowjax.platforms import check_backend

FORMAT = 1
MANIFEST, PARAMETERS = "flowjax.json", "params"
EMBEDDING = "decoder/embedding/embedding"
"""The parameter whose dtype is the model's."""

THREADS = 4
"""That read files for a digest."""

CONFIG, TOKENIZER, PREPROCESSOR = "config.json", "tokenizer.json", "preprocessor_config.json"
PROCESSOR, VIDEO_PREPROCESSOR = "processor_config.json", "video_preprocessor_config.json"
VIDEO_PROCESSOR = f"video_processor/{PREPROCESSOR}"


@dataclass(frozen=True)
class Manifest:
    """What `flowjax.json` holds.

    format: version of this layout.
    family: name of the model family.
    name: the model's name in results and figures.
    source: what was converted, as its user named it.
    note: a remark that every output repeats, such as that the weights are random; may be empty.
    flowjax_version: that wrote it.
    overrides: what the user changed at conversion, by option.
    parameters: their number.
    dtype: of every parameter by its path.
    digest: of all parameters (`parameters_digest`), made when they were written; empty in models
        that were converted before manifests had it.
    """

    format: int
    family: str
    name: str
    source: str
    note: str
    flowjax_version: str
    overrides: Mapping[str, Any]
    parameters: int
    dtype: Mapping[str, str]
    digest: str = ""


def load_model(
    path: Path | str,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    mesh: Mesh | None = None,
    parameters: bool = True,
) -> LoadedModel:
    """Load a converted model.

    Args:
        path: a directory that `flowjax convert` wrote.
        dtype: cast every parameter to it; None keeps each parameter's own. Computation is in the
            dtype of the token embedding.
        mesh: axes `data` and `model`; parameters are laid out as `flowjax.models.sharding` says,
            and each process reads only what its devices hold. None: the default device.
        parameters: False leaves shapes in their place, for planning.

    Raises:
        FlowjaxError: not a converted model, written by another format version, or its parameters
            are not exactly those of its configuration; or no device.
    """
    path = as_path(path)
    check_backend()
    manifest = read_manifest(path)
    family = families().get(manifest.family)
    if family is None:
        raise FlowjaxError(
            f"{path / MANIFEST}: family {manifest.family!r} does not exist; the families are "
            f"{', '.join(sorted(families()))}"
        )
    config = family.read_config(read_json(path / CONFIG), str(path / CONFIG))
    preprocess = read_preprocessor(path, family)
    tokenizer = read_tokenizer(path / TOKENIZER)
    check_array_files(path / PARAMETERS, manifest.dtype)
    if parameters:
        model = restore(path / PARAMETERS, config, dtype=dtype, mesh=mesh)
    else:
        model = abstract_model(config, jnp.dtype(dtype or manifest.dtype[EMBEDDING]))
    loaded = LoadedModel(
        model=model,
        config=config,
        family=family,
        tokenizer=tokenizer,
        preprocess=preprocess,
        name=manifest.name,
        note=manifest.note,
        path=path,
    )
    return loaded.asked_by(manifest.overrides.get("prompt"))


def restore(
    path: Path,
    config: VideoLLMConfig,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    mesh: Mesh | None = None,
) -> VideoLLM:
    """Restore the module that `config` describes from the Orbax checkpoint at `path`.

    Raises:
        FlowjaxError: a parameter is missing, unknown or of another shape, or cannot be read.
    """

    def place(name: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
        if mesh is None:
            return one_device()
        return parameter_sharding(name, shape, mesh, kv_heads=config.decoder.kv_heads)

    parameters = restore_parameters(path, config, place, dtype=dtype)
    kept = parameters["decoder"]["embedding"]["embedding"].dtype
    graph, state = nnx.split(abstract_model(config, kept))
    nnx.replace_by_pure_dict(state, parameters)
    restored = nnx.merge(graph, state)
    restored.decoder.mesh = mesh
    if mesh is None:
        restored.decoder.kernel = kernel_here(config.decoder.head_dim, kept)
    return restored


def restore_parameters(
    path: Path,
    config: VideoLLMConfig,
    place: Callable[[str, tuple[int, ...]], jax.sharding.Sharding],
    *,
    dtype: jax.typing.DTypeLike | None = None,
) -> dict[str, Any]:
    """The parameters of the model that `config` describes, as a tree.

    Args:
        path: an Orbax checkpoint.
        config: the model's.
        place: where a parameter lies, from its path and shape; each process reads what it holds.
        dtype: cast every parameter to it; None keeps each parameter's own.

    Raises:
        FlowjaxError: a parameter is missing, unknown or of another shape, or cannot be read.
    """
    stored = stored_parameters(path)
    check_parameters(path, {name: leaf.shape for name, leaf in stored.items()}, config)
    target = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            jnp.dtype(leaf.dtype if dtype is None else dtype),
            sharding=place(name, leaf.shape),
        )
        for name, leaf in stored.items()
    }
    try:
        with utf8_name(path) as named, ocp.StandardCheckpointer() as checkpointer:
            parameters = checkpointer.restore(named, nested(target))
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        raise FlowjaxError(f"{path}: no place for the parameters: {_first_line(error)}") from error
    except Exception as error:  # Orbax raises nothing narrower
        raise FlowjaxError(f"{path}: not readable: {_first_line(_cause(error))}") from error
    return parameters


def stored_parameters(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every array of an Orbax checkpoint, by path; reads no array.

    Raises:
        FlowjaxError: not an Orbax checkpoint.
    """
    if not path.is_dir():
        raise FlowjaxError(f"{path} is missing")
    try:
        with utf8_name(path) as named, ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(named).item_metadata
    except Exception as error:  # Orbax raises nothing narrower
        raise FlowjaxError(
            f"{path}: not an Orbax checkpoint: {_first_line(_cause(error))}"
        ) from error
    if tree is None:
        raise FlowjaxError(f"{path}: not an Orbax checkpoint")
    leaves, _ = jax.tree.flatten_with_path(tree.tree)
    return {
        "/".join(str(key.key) for key in keys): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for keys, leaf in leaves
    }


def check_parameters(
    path: Path, shapes: Mapping[str, tuple[int, ...]], config: VideoLLMConfig
) -> None:
    """Refuse parameters that are not exactly those of the model that `config` describes."""
    expected = parameter_shapes(config)
    for name in sorted(expected.keys() - shapes.keys()):
        raise FlowjaxError(f"{path}: parameter {name} is missing")
    for name in sorted(shapes.keys() - expected.keys()):
        raise FlowjaxError(f"{path}: parameter {name} is unknown to family {config.family}")
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise FlowjaxError(
                f"{path}: parameter {name} has shape {list(shapes[name])}; config.json asks for "
                f"{list(shape)}"
            )


def read_manifest(path: Path) -> Manifest:
    """Read `flowjax.json` of the model at `path`.

    Raises:
        FlowjaxError: no such directory, not a converted model, or of another format version.
    """
    if not path.is_dir():
        raise FlowjaxError(f"{path} is not a directory; give one that `flowjax convert` wrote")
    if not (path / MANIFEST).is_file():
        raise FlowjaxError(
            f"{path} is not a converted model: it has no {MANIFEST}; convert it first "
            f"with `flowjax convert {path} OUT`"
        )
    fields = read_json(path / MANIFEST)
    if fields.get("format") != FORMAT:
        raise FlowjaxError(
            f"{path / MANIFEST}: format is {fields.get('format')!r}; this version of flowjax reads "
            f"{FORMAT}; convert the model again"
        )
    kinds = {field.name: field for field in dataclasses.fields(Manifest)}
    optional = {name for name, field in kinds.items() if field.default is not dataclasses.MISSING}
    wrong = sorted((kinds.keys() - optional - fields.keys()) | (fields.keys() - kinds.keys()))
    if wrong:
        raise FlowjaxError(
            f"{path / MANIFEST}: field {wrong[0]} is "
            f"{'missing' if wrong[0] in kinds else 'unknown'}; convert the model again"
        )
    hints = get_type_hints(Manifest)
    for name, value in fields.items():
        wanted = get_origin(hints[name]) or hints[name]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise FlowjaxError(
                f"{path / MANIFEST}: field {name} is {value!r}; convert the model again"
            )
    if not all(isinstance(dtype, str) for dtype in fields["dtype"].values()):
        raise FlowjaxError(f"{path / MANIFEST}: field dtype must name a dtype for each parameter")
    return Manifest(**fields)


def checkpoint_digest(path: Path) -> str:
    """SHA-256 of a converted model: of its side files and of its parameters' digest.

    Parameters are read only where the manifest has no digest of them.

    Raises:
        FlowjaxError: see `read_manifest`; or a file that cannot be read.
    """
    total = hashlib.sha256()
    try:
        for file in sorted(_side_files(path)):
            total.update(repr(file.relative_to(path).as_posix()).encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
        known = read_manifest(path).digest
        if not known and is_remote(path):
            raise FlowjaxError(
                f"{path / MANIFEST} has no digest of the parameters: a model that was converted by "
                "flowjax 0.1 must be converted again before it is read from there"
            )
        total.update((known or parameters_digest(path / PARAMETERS)).encode())
    except OSError as error:
        raise FlowjaxError(f"{path} cannot be read: {error.strerror}") from None
    return total.hexdigest()


def _side_files(path: Path) -> Iterator[Path]:
    """The files of a converted model that are not its parameters."""
    for entry in path.iterdir():
        if entry.is_file():
            yield entry
        elif entry.name != PARAMETERS:
            yield from _side_files(entry)


def parameters_digest(path: Path) -> str:
    """SHA-256 of every byte of an Orbax checkpoint's arrays, which it keeps in directories.

    Raises:
        OSError: a file cannot be read.
    """

    def digest(file: Path) -> bytes:
        if is_remote(file):
            return hashlib.sha256(file.read_bytes()).digest()
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()

    files = sorted(file for file in files_under(path) if file.parent != path)
    total = hashlib.sha256()
    with ThreadPoolExecutor(THREADS) as pool:
        for file, of_file in zip(files, pool.map(digest, files), strict=True):
            total.update(repr(file.relative_to(path).as_posix()).encode())
            total.update(of_file)
    return total.hexdigest()


def read_preprocessor(path: Path, family: Family) -> Preprocess:
    """How the files of the directory `path` say that frames become pixel values.

    Versions of `transformers` put what it says of videos in different places; the newest goes
    first: `video_processor` in `processor_config.json` (5), `video_preprocessor_config.json` (4.52
    to 4.57), `video_processor/preprocessor_config.json` (LLaVA-OneVision up to 4.51). What it says
    of images holds where there is nothing of videos: `image_processor` in `processor_config.json`
    (5), `preprocessor_config.json` (4).

    Raises:
        FlowjaxError: none of them is there and the family has none of its own, or it cannot use it.
    """
    both = read_json(path / PROCESSOR) if (path / PROCESSOR).is_file() else {}
    for part, files in (
        ("video_processor", (VIDEO_PREPROCESSOR, VIDEO_PROCESSOR)),
        ("image_processor", (PREPROCESSOR,)),
    ):
        fields = both.get(part)
        if isinstance(fields, Mapping):
            return family.read_preprocessor(fields, f"{path / PROCESSOR}: {part}")
        if fields is not None:
            raise FlowjaxError(f"{path / PROCESSOR}: {part} must be a JSON object")
        for file in (path / name for name in files):
            if file.is_file():
                return family.read_preprocessor(read_json(file), str(file))
    if family.preprocessor is not None:
        return family.read_preprocessor(family.preprocessor, f"family {family.name}")
    raise FlowjaxError(
        f"{path / PREPROCESSOR} is missing, and {PROCESSOR} has neither video_processor nor "
        "image_processor; fetch the checkpoint's preprocessor again"
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        FlowjaxError: missing, or not one.
    """
    if not path.is_file():
        raise FlowjaxError(
            f"{path} is missing; write it with transformers: "
            "AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)"
        )
    try:
        return Tokenizer.from_str(read_text(path))
    except FlowjaxError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise FlowjaxError(f"{path}: not a tokenizer: {_first_line(error)}") from error


def nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of dictionaries whose leaves have these paths."""
    tree: dict[str, Any] = {}
    for path, leaf in parameters.items():
        *parents, last = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = leaf
    return tree


def _cause(error: BaseException) -> BaseException:
    """What an error goes back to."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
