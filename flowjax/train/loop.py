"""A training loop that goes on exactly where it was killed."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from flowjax.mesh import DATA
from flowjax.paths import is_remote
from flowjax.progress import progress_bar
from flowjax.train.metrics import Metrics
from flowjax.train.parameters import Parameters, Parts, divide, together
from flowjax.train.schedule import Schedule
from flowjax.train.step import Batch, Layout, LossOf, State, Step, whole


@dataclass(frozen=True)
class Watch:
    """What is measured of the parameters every so many steps, and after the last.

    measure: of all parameters, trained ones in float32; its numbers are logged.
    """

    every: int
    measure: Callable[[Parameters], Mapping[str, float]]


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
    layout: Layout = whole,
    compute: jax.typing.DTypeLike | None = None,
    side_by_side: bool = False,
    watch: Watch | None = None,
    tensorboard: bool = False,
) -> Parameters:
    """Minimise a loss; every batch and random key follows from the step's number alone.

    FOLDER/checkpoints/<step>   trained parameters and optimizer state, of the last two times
    FOLDER/log.jsonl            one line per `log_every` steps: step and metrics

    Checkpoints are written while the next steps are computed.

    Args:
        parameters: to begin with, if the folder has no checkpoint; those that are trained should
            be float32.
        loss_of: differentiable in its first argument.
        batch_at: the batch of a step, of several processes the examples of this one's devices;
            called ahead, in another thread.
        schedule: steps and rates.
        folder: made if it does not exist; a run in it goes on after its last checkpoint.
        seed: of the random keys given to `loss_of`.
        micro: examples that a device computes at a time; the gradients are added up.
        save_every: steps between checkpoints.
        log_every: steps between log lines, whose metrics are those of that step.
        frozen: parts of the parameters, by how their paths begin, that stay as they are; neither
            gradients nor moments are kept of them, nor are they in checkpoints.
        stop_at: stop after this step, as if killed.
        mesh: its axis `data` divides the batch. None: one device.
        layout: how parameters lie on the mesh.
        compute: the dtype that parameters are cast to where they are used; None: their own.
        side_by_side: parameters and batches have a leading axis of runs that do not know of each
            other, for a device that one small run does not fill; metrics are lists.
        watch: what is measured besides.
        tensorboard: write event files beside the log.

    Returns:
        The parameters after the last step.

    Raises:
        FlowjaxError: a loss that is not finite, a name of what is frozen that is none, a batch
            that cannot be divided, or no writer of event files.
    """
    devices = Mesh(np.array(jax.devices()[:1]), (DATA,)) if mesh is None else mesh
    dtype = None if compute is None else jax.numpy.dtype(compute)
    step = Step(loss_of, schedule.optimizer(), micro, devices, layout, dtype, side_by_side)
    parts = divide(parameters, frozen)
    held, function = step.place_held(parts.held), step.function(parts.trained)
    seeded, rate = jax.random.key(seed), schedule.rate()
    last = schedule.steps if stop_at is None else min(stop_at, schedule.steps)
    folder = folder if is_remote(folder) else folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with ocp.CheckpointManager(folder / "checkpoints", options=options) as manager:
        done = manager.latest_step() or 0
        state = _restored(manager, done, step.abstract_state(parts.trained)) if done else None
        state = state or step.first_state(parts.trained)
        with (
            closing(Metrics(folder, done, tensorboard=tensorboard)) as metrics,
            ThreadPoolExecutor(max_workers=1) as pool,
            progress_bar(
                folder.name, schedule.steps, done=done, shown=jax.process_index() == 0
            ) as advance,
        ):
            ahead = pool.submit(batch_at, done)
            for number in range(done, last):
                batch = step.place_batch(ahead.result())
                ahead = pool.submit(batch_at, min(number + 1, schedule.steps - 1))
                key = jax.random.fold_in(seeded, number)
                state, measured = function(state, held, batch, key)
                advance(1)
                now, ends = number + 1, number + 1 == schedule.steps
                if now % log_every == 0 or ends:
                    values = jax.device_get(measured)
                    metrics.write(now, {**values, "rate": np.asarray(rate(number))})
                if watch is not None and (now % watch.every == 0 or ends):
                    metrics.write(now, watch.measure(together(Parts(state.parameters, parts.held))))
                if now % save_every == 0 or ends:
                    manager.save(now, args=ocp.args.StandardSave(state))
    return together(Parts(state.parameters, parts.held))


def _restored(manager: ocp.CheckpointManager, step: int, abstract: State) -> State:
    return State._make(manager.restore(step, args=ocp.args.StandardRestore(abstract)))
