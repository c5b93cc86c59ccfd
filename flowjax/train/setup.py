"""A training step of a video model, from its configuration alone."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from flowjax.errors import FlowjaxError
from flowjax.mesh import DATA
from flowjax.models.rope import MultimodalRope
from flowjax.models.sharding import training_sharding
from flowjax.models.video_llm import VideoLLM, VideoLLMConfig, abstract_model
from flowjax.train.config import Lora
from flowjax.train.gathered import gather_in
from flowjax.train.instruct import Instructed, instruction_loss
from flowjax.train.lora import DOWN, UP, add_lora
from flowjax.train.packing import Packed
from flowjax.train.parameters import by_path, divide, is_under
from flowjax.train.schedule import Schedule
from flowjax.train.step import Layout, LossOf, Step


@dataclass(frozen=True)
class Setup:
    """What instruction tuning of a model computes, whatever it is computed on.

    config: of the model.
    compute: the dtype of forward and backward passes.
    frozen: beginnings of the paths of parameters that stay; see `TrainConfig`.
    questions: of one video at most.
    """

    config: VideoLLMConfig
    compute: jnp.dtype
    frozen: tuple[str, ...]
    lora: Lora | None
    questions: int
    remat: bool

    def model(self) -> VideoLLM:
        """The module with shapes in place of parameters, LoRA's included."""
        model = abstract_model(self.config, self.compute)
        if self.lora is not None:
            add_lora(model, self.lora)
        return model

    def loss(self, mesh: Mesh) -> LossOf[Instructed]:
        """What is minimised, computed on a mesh over which parameters are divided."""
        model = self.model()
        gather = gather_in(model, mesh)
        graph, _ = nnx.split(model)
        return instruction_loss(graph, self.questions, remat=self.remat, gather=gather)

    def check_window(self, length: int) -> None:
        """Refuse questions that would read less of a video together than alone.

        Raises:
            FlowjaxError: the decoder's rows read fewer positions than a sequence has.
        """
        window = self.config.decoder.window
        if window is not None and window < length and self.questions > 1:
            raise FlowjaxError(
                f"batch.questions is {self.questions}, but rows of this decoder read {window} "
                f"positions, and there are {length} (batch.length); give 1"
            )

    def held(self, paths: Collection[str]) -> tuple[str, ...]:
        """All that stays: what is frozen, and with LoRA the decoder's own parameters.

        Raises:
            FlowjaxError: a frozen part holds what LoRA trains.
        """
        if self.lora is None:
            return self.frozen
        updates = [path for path in paths if path.endswith((f"/{DOWN}", f"/{UP}"))]
        for name in self.frozen:
            if any(is_under(path, name) for path in updates):
                raise FlowjaxError(f"frozen {name!r} holds what lora trains; leave it out")
        own = (p for p in paths if is_under(p, "decoder") and p not in updates)
        return (*self.frozen, *own)

    def step(self, schedule: Schedule, micro: int, mesh: Mesh) -> Step:
        """A step of it over a mesh."""
        loss, optimizer = self.loss(mesh), schedule.optimizer()
        return Step(loss, optimizer, micro, mesh, layout_over(mesh), self.compute)


def layout_over(mesh: Mesh | AbstractMesh) -> Layout:
    """How parameters that are trained lie on a mesh."""
    return lambda path, shape: training_sharding(path, shape, mesh).spec


def lower_step(
    setup: Setup,
    mesh: Mesh,
    schedule: Schedule,
    *,
    batch: int,
    length: int,
    pixels: tuple[int, ...],
    video: int,
    micro: int = 1,
) -> jax.stages.Lowered:
    """The program of one training step on a mesh of devices that need not be there.

    Args:
        setup: what is computed.
        mesh: axes `data` and `model`.
        schedule: steps and rates, which change nothing of the program but its constants.
        batch: videos of a step, over all devices.
        length: positions of a video with its questions and answers.
        pixels: shape of the pixel values of one video.
        video: positions of it.
        micro: videos that a device computes at a time.
    """
    step = setup.step(schedule, micro, mesh)
    state = nnx.to_pure_dict(nnx.state(setup.model()))
    trained, held = divide(state, setup.held(by_path(state)))
    trained = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), trained)
    held = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        held,
        step.parameter_shardings(held),
    )
    axes = 3 if isinstance(setup.config.decoder.rope, MultimodalRope) else 1
    spread = NamedSharding(mesh, PartitionSpec(DATA))

    def of(shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401 - a dtype, and an array's stand-in
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=spread)

    ids = of((length,), jnp.int32)
    examples = Instructed(
        Packed(ids, ids, of((axes, length), jnp.int32), ids, of((length,), jnp.float32)),
        of((video,), jnp.int32),
        of(pixels, jnp.float32),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    return step.function(trained).lower(step.abstract_state(trained), held, examples, key)
