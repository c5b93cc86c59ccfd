"""A training loop that goes on exactly where it was killed."""

import functools
import json
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flowjax.errors import FlowjaxError
from flowjax.mesh import DATA
from flowjax.progress import progress_bar

LOG = logging.getLogger(__name__)

Parameters = Any
"""A pytree of arrays."""

Batch = TypeVar("Batch")
"""A pytree of arrays whose first axis is examples."""


class Sums(NamedTuple):
    """What a loss gives for some examples: sums, so that parts of a batch can be added.

    loss: of the weighted losses. weight: of the weights. metrics: pairs of a sum and the weight
    that its mean is over, by name.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]


LossOf = Callable[[Parameters, Batch, jax.Array], Sums]
"""The loss of some examples from parameters, examples and a random key."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    steps: in all. peak: learning rate after `warmup` steps; then a cosine down to `peak / 100`.
    decay: AdamW's weight decay, of linear layers' weights only. clip: largest norm of the gradient.
    """

    steps: int
    peak: float
    warmup: int
    decay: float
    clip: float

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with clipped gradients."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.peak, self.warmup, self.steps, self.peak / 100
        )
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(rate, b2=0.98, weight_decay=self.decay, mask=_is_matrix),
        )


def _is_matrix(parameters: Parameters) -> Parameters:
    """Of every leaf, whether it is the weight of a linear layer."""
    return jax.tree.map_with_path(
        lambda path, _: any(getattr(entry, "key", None) == "kernel" for entry in path), parameters
    )


def train(
    parameters: Parameters,
    loss_of: LossOf[Batch],
    batch_at: Callable[[int], Batch],
    schedule: Schedule,
    folder: Path,
    *,
    seed: int,
    micro: int,
    save_every: int,
    log_every: int,
    frozen: Collection[str] = (),
    stop_at: int | None = None,
    mesh: Mesh | None = None,
    side_by_side: bool = False,
) -> Parameters:
    """Minimise a loss; every batch and random key follows from the step's number alone.

    FOLDER/checkpoints/<step>   parameters and optimizer state, kept for the last two times
    FOLDER/log.jsonl            one line per `log_every` steps: step and metrics

    Args:
        parameters: to begin with, if the folder has no checkpoint.
        loss_of: differentiable in its first argument.
        batch_at: the batch of a step; called ahead, in another thread.
        schedule: steps and rates.
        folder: made if it does not exist; a run in it goes on after its last checkpoint.
        seed: of the random keys given to `loss_of`.
        micro: examples that a device computes at a time; the gradients are added up.
        save_every: steps between checkpoints.
        log_every: steps between log lines, whose metrics are those of that step.
        frozen: parts of the parameters, by the names at their top, that stay as they are.
        stop_at: stop after this step, as if killed.
        mesh: its axis `data` divides the batch; parameters are whole on every device. None: one
            device.
        side_by_side: parameters and batches have a leading axis of runs that do not know of each
            other, for a device that one small run does not fill; metrics are lists.

    Returns:
        The parameters after the last step.

    Raises:
        FlowjaxError: a loss that is not finite.
    """
    optimizer = schedule.optimizer()
    devices = Mesh(np.array(jax.devices()[:1]), (DATA,)) if mesh is None else mesh
    whole, divided = PartitionSpec(), PartitionSpec(DATA)

    def gradient(parameters: Parameters, batch: Batch, keys: jax.Array) -> tuple[Parameters, Sums]:
        """Of the sums over one device's examples, `micro` at a time; then over all devices."""
        parts = jax.tree.map(lambda leaf: leaf.reshape(-1, micro, *leaf.shape[1:]), batch)

        def summed(parameters: Parameters, part: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
            sums = loss_of(_on(frozen, jax.lax.stop_gradient, parameters), part, key)
            return sums.loss, sums

        def add(
            total: tuple[Parameters, Sums], part: tuple[Batch, jax.Array]
        ) -> tuple[tuple[Parameters, Sums], None]:
            (_, sums), slope = jax.value_and_grad(summed, has_aux=True)(parameters, *part)
            return jax.tree.map(jnp.add, total, (slope, sums)), None

        first = jax.tree.map(lambda leaf: leaf[0], (parts, keys))
        shapes = jax.eval_shape(loss_of, parameters, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (parameters, shapes))
        total, _ = jax.lax.scan(add, zeros, (parts, keys))
        return jax.lax.psum(total, DATA)

    over_devices = jax.shard_map(
        gradient, mesh=devices, in_specs=(whole, divided, divided), out_specs=whole, check_vma=False
    )

    def step_of_one(
        parameters: Parameters, state: optax.OptState, batch: Batch, key: jax.Array
    ) -> tuple[Parameters, optax.OptState, dict[str, jax.Array]]:
        keys = jax.random.split(key, len(jax.tree.leaves(batch)[0]) // micro)
        slope, sums = over_devices(parameters, batch, keys)
        slope = jax.tree.map(lambda leaf: leaf / jnp.maximum(sums.weight, 1e-6), slope)
        updates, state = optimizer.update(slope, state, parameters)
        updates = _on(frozen, jnp.zeros_like, updates)
        means = {
            name: total / jnp.maximum(weight, 1e-6)
            for name, (total, weight) in sums.metrics.items()
        }
        loss = sums.loss / jnp.maximum(sums.weight, 1e-6)
        return optax.apply_updates(parameters, updates), state, {"loss": loss, **means}

    step = jax.jit(jax.vmap(step_of_one, in_axes=(0, 0, 0, None)) if side_by_side else step_of_one)
    batched = PartitionSpec(None, DATA) if side_by_side else divided
    place = functools.partial(jax.device_put, device=NamedSharding(devices, batched))
    parameters = jax.device_put(parameters, NamedSharding(devices, whole))
    seeded = jax.random.key(seed)
    state = (jax.vmap(optimizer.init) if side_by_side else optimizer.init)(parameters)
    last = schedule.steps if stop_at is None else min(stop_at, schedule.steps)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.jsonl"
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager((folder / "checkpoints").absolute(), options=options) as manager:
        done = manager.latest_step() or 0
        if done:
            found = manager.restore(done, args=ocp.args.StandardRestore((parameters, state)))
            parameters, state = found
        _drop_lines_after(log, done)
        with (
            ThreadPoolExecutor(max_workers=1) as pool,
            progress_bar(folder.name, schedule.steps, done=done) as advance,
        ):
            ahead = pool.submit(batch_at, done)
            for number in range(done, last):
                batch = place(ahead.result())
                ahead = pool.submit(batch_at, min(number + 1, schedule.steps - 1))
                parameters, state, metrics = step(
                    parameters, state, batch, jax.random.fold_in(seeded, number)
                )
                advance(1)
                if (number + 1) % log_every == 0 or number + 1 == schedule.steps:
                    _log(log, number + 1, jax.device_get(metrics))
                if (number + 1) % save_every == 0 or number + 1 == schedule.steps:
                    manager.save(number + 1, args=ocp.args.StandardSave((parameters, state)))
    return parameters


def _on(
    names: Collection[str], change: Callable[[jax.Array], jax.Array], tree: Parameters
) -> Parameters:
    """Change the leaves under some of the names at the top of a tree."""
    return jax.tree.map_with_path(
        lambda path, leaf: change(leaf) if getattr(path[0], "key", None) in names else leaf, tree
    )


def _log(path: Path, step: int, metrics: dict[str, np.ndarray]) -> None:
    values = {
        name: np.round(value.astype(np.float64), 6).tolist() for name, value in metrics.items()
    }
    if not np.isfinite(metrics["loss"]).any():  # of runs side by side, one may fail alone
        raise FlowjaxError(f"the loss is {values['loss']} at step {step}; lower the learning rate")
    line = json.dumps({"step": step} | values)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    LOG.info("%s", line)


def _drop_lines_after(path: Path, step: int) -> None:
    """A run that was killed after its last checkpoint has logged steps that come again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    path.write_text("".join(kept), encoding="utf-8")
