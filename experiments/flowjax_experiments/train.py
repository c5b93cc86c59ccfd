"""Instruction tuning of a converted model, or the shapes recipe, as a configuration file says.

Of instruction tuning:

    OUT/settings.json     what decides the run; another file's settings are refused
    OUT/checkpoints/      of the run itself, to go on from
    OUT/log.jsonl         metrics; beside it event files for TensorBoard, if asked for
    OUT/failures.jsonl    entries that could not be used; failures.N.jsonl by process N
    OUT/model/            the trained model, like a converted one; LoRA's updates are merged into it
    OUT/adapter/          LoRA's updates in PEFT's layout, if nothing else was trained
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from PIL import Image

from flowjax.data.benchmark import read_benchmark
from flowjax.data.samples import Samples
from flowjax.data.video_options import VideoOptions
from flowjax.data.videochat2 import Instructions, read_instructions
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, lock, read_json, writing
from flowjax.folders import new_directory
from flowjax.models.checkpoint import (
    CONFIG,
    PARAMETERS,
    checkpoint_digest,
    load_model,
    read_manifest,
    restore_parameters,
)
from flowjax.models.loaded import LoadedModel
from flowjax.models.registry import Preprocess
from flowjax.models.save import save_model
from flowjax.models.sharding import parameter_sharding
from flowjax.models.video_llm import abstract_model
from flowjax.paths import is_remote
from flowjax.report.accuracy import accuracies
from flowjax.runs.run import analyse
from flowjax.train.config import Batch, Lora, TrainConfig
from flowjax.train.example import end_of_answers, example_of
from flowjax.train.instruct import Instructed
from flowjax.train.loop import Watch, train
from flowjax.train.lora import DOWN, UP, first_updates, merged
from flowjax.train.metrics import FILE, check_tensorboard
from flowjax.train.parameters import Parameters, Parts, by_path, divide, together
from flowjax.train.setup import Setup, layout_over
from flowjax.train.stream import Stream, local_rows
from flowjax.train.toml import read_toml, toml_values
from flowjax.version import __version__
from flowjax_convert.adapter_config import ADAPTER_CONFIG
from flowjax_convert.write_adapter import write_adapter
from flowjax_experiments.evaluate import Evaluate
from flowjax_experiments.shapes.configured import run_configured

LOG = logging.getLogger("flowjax.train")

SETTINGS, LOCK, MODEL, ADAPTER = "settings.json", ".lock", "model", "adapter"

MEANS = ("out", "log_every", "save_every", "tensorboard", "mesh", "remat", "evaluation", "note")
"""Fields of a configuration on which no parameter depends but by rounding."""


def run(path: Path, *, stop_at: int | None = None) -> Path | None:
    """Train what is not finished of a run.

    Args:
        path: a file with what `TrainConfig` has, or `Configured` of the shapes recipe.
        stop_at: end after this step, as if killed.

    Returns:
        The folder of the trained model; None if it is not finished.

    Raises:
        FlowjaxError: a configuration, a model or data that do not serve, a run in this folder with
            other settings, or a loss that is not finite.
    """
    if "recipe" in toml_values(path):
        if jax.process_count() > 1:
            raise FlowjaxError(f"{path}: a recipe is trained by one process; start it once")
        return run_configured(path, stop_at=stop_at)
    config = read_toml(path, TrainConfig)
    mesh = config.mesh_shape.mesh(jax.devices())
    if config.tensorboard:
        check_tensorboard(config.out)
    entries = [
        entry
        for source in config.data
        for entry in read_instructions(source.annotations, source.videos)
    ]
    base = load_model(config.model, parameters=False).reading(
        VideoOptions(num_frames=config.batch.frames)
    )
    base = dataclasses.replace(base, preprocess=_resizing(base.preprocess, config.batch))
    setup = Setup(
        base.config,
        jnp.dtype(config.compute),
        config.frozen,
        config.lora,
        config.batch.questions,
        config.remat,
    )
    setup.check_window(config.batch.length)
    watch = _watch(config, base, mesh)
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
        alone = jax.process_index() == 0 and not is_remote(config.out)  # a store has no locks
        held_lock = lock(config.out / LOCK) if alone else -1
    if held_lock is None:
        raise FlowjaxError(f"{config.out}: another process is training in it; wait for it to end")
    try:
        _same_settings(config, base)
        return _train(config, base, setup, mesh, entries, watch, stop_at)
    finally:
        if held_lock >= 0:
            os.close(held_lock)


def _train(
    config: TrainConfig,
    base: LoadedModel,
    setup: Setup,
    mesh: Mesh,
    entries: list[Instructions],
    watch: Watch | None,
    stop_at: int | None,
) -> Path | None:
    layout, lora = layout_over(mesh), config.lora
    own = restore_parameters(
        config.model / PARAMETERS,
        base.config,
        lambda name, shape: NamedSharding(mesh, layout(name, shape)),
    )
    parameters = own if lora is None else first_updates(own, lora, config.seed)
    held = setup.held(by_path(parameters))
    parts = divide(parameters, held)
    in_float32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), parts.trained)
    trained = train(
        together(Parts(in_float32, parts.held)),
        setup.loss(mesh),
        _stream(config, base, mesh, entries),
        config.schedule,
        config.out,
        seed=config.seed,
        micro=config.batch.micro,
        save_every=config.save_every,
        log_every=config.log_every,
        frozen=held,
        stop_at=stop_at,
        mesh=mesh,
        layout=layout,
        compute=setup.compute,
        watch=watch,
        tensorboard=config.tensorboard,
    )
    if stop_at is not None and stop_at < config.schedule.steps:
        return None
    whole = trained if lora is None else merged(trained, lora)
    kept = jax.tree.map(lambda new, old: new.astype(old.dtype), whole, own)
    save_model(config.out / MODEL, config.model, kept, name=config.out.name, note=config.note)
    if lora is not None and all(path.endswith((DOWN, UP)) for path in by_path(parts.trained)):
        _save_adapter(config, base, lora, trained)
    return config.out / MODEL


def _save_adapter(
    config: TrainConfig, base: LoadedModel, lora: Lora, parameters: Parameters
) -> None:
    """Updates alone, where nothing else was trained and the checkpoint's layers can hold them."""
    layers, fields = parameters["decoder"]["layers"], read_json(config.model / CONFIG)
    updates = {
        name: tuple(
            multihost_utils.process_allgather(layers[name][part], tiled=True) for part in (DOWN, UP)
        )
        for name in lora.targets
    }
    if jax.process_index() > 0:
        return
    source, out = read_manifest(config.model).source, config.out / ADAPTER
    try:
        with new_directory(out, ADAPTER_CONFIG) as partial:
            write_adapter(partial, base.config, fields, updates, alpha=lora.alpha, base=source)
    except FlowjaxError as error:
        LOG.info("no adapter beside the model: %s", error)


def _stream(
    config: TrainConfig, base: LoadedModel, mesh: Mesh, entries: list[Instructions]
) -> Stream:
    batch, end = config.batch, end_of_answers(base, config.batch.end)

    def example(entry: Instructions, order: np.ndarray) -> Instructed:
        return example_of(
            base, entry, order, length=batch.length, questions=batch.questions, end=end
        )

    rows = local_rows(mesh, batch.size)
    return Stream(entries, example, batch.size, rows, config.seed, batch.workers, config.out)


def _resizing(preprocess: Preprocess, batch: Batch) -> Preprocess:
    return preprocess if batch.frame_size is None else _Resized(preprocess, batch.frame_size)


@dataclasses.dataclass(frozen=True)
class _Resized:
    """Frames brought to one size before they are preprocessed."""

    preprocess: Preprocess
    size: tuple[int, int]

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The pixel values of frames uint8 [t, h, w, 3]."""
        return self.preprocess(self._resized(frames))

    def seen(self, frames: np.ndarray) -> np.ndarray:
        """The part of the frames that a model reads."""
        return self.preprocess.seen(self._resized(frames))

    def _resized(self, frames: np.ndarray) -> np.ndarray:
        rows, columns = self.size
        images = (Image.fromarray(frame) for frame in frames)
        cubic = Image.Resampling.BICUBIC
        return np.stack([np.asarray(image.resize((columns, rows), cubic)) for image in images])


def _watch(config: TrainConfig, base: LoadedModel, mesh: Mesh) -> Watch | None:
    """Answering a benchmark with the parameters as they are.

    Raises:
        FlowjaxError: the benchmark cannot be read.
    """
    chosen = config.evaluation
    if chosen is None:
        return None
    samples = read_benchmark(chosen.data, chosen.tasks, chosen.limit)
    return Watch(chosen.every, lambda found: _accuracy(found, config, base, mesh, samples))


def _accuracy(
    parameters: Parameters, config: TrainConfig, base: LoadedModel, mesh: Mesh, samples: Samples
) -> Mapping[str, float]:
    """Accuracy of every task, and over all of them.

    Of several processes each asks all samples, on copies of the model that share their devices.
    """
    whole = parameters if config.lora is None else merged(parameters, config.lora)
    heads, compute = base.config.decoder.kv_heads, jnp.dtype(config.compute)
    places = jax.tree.map_with_path(
        lambda path, leaf: parameter_sharding(
            "/".join(str(entry.key) for entry in path), leaf.shape, mesh, kv_heads=heads
        ),
        whole,
    )
    cast = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf.astype(compute), tree), out_shardings=places
    )
    graph, state = nnx.split(abstract_model(base.config, compute))
    nnx.replace_by_pure_dict(state, cast(whole))
    model = nnx.merge(graph, state)
    model.decoder.mesh = mesh
    loaded = dataclasses.replace(base, model=model)
    # One that skips a sample which others can read would wait for them for ever.
    strict = jax.process_count() > 1
    rows = analyse(Evaluate(), loaded, samples, None, strict=strict).rows
    found = {f"accuracy/{of.task}": of.interval.mean for of in accuracies(rows)}
    return {"accuracy": float(np.mean(rows["correct"].to_numpy())), **found}


def _same_settings(config: TrainConfig, base: LoadedModel) -> None:
    """Keep what decides the run beside it, or refuse to go on with something else.

    A run that has neither logged nor kept anything is begun anew.

    Raises:
        FlowjaxError: names a setting that the run in this folder has otherwise.
    """
    path = config.out / SETTINGS
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for name in MEANS:
        settings.pop(name)
    for name in ("micro", "workers"):
        settings["batch"].pop(name)
    settings["checkpoint"] = checkpoint_digest(base.path)
    begun = (config.out / FILE).exists() or any(config.out.glob("checkpoints/[0-9]*"))
    if begun and path.exists():
        found = read_json(path)
        for name, value in settings.items():
            if found.get(name) != value:
                raise FlowjaxError(
                    f"{config.out} has a run with {name} {found.get(name)!r}, not {value!r}; "
                    "choose another out"
                )
        return
    if jax.process_index() == 0:
        text = json.dumps(settings | {"version": __version__}, indent=1)
        with writing(path):
            atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))
