"""A sweep over one prompt, planned."""

from dataclasses import dataclass

import jax.numpy as jnp

from flowjax.edges import Knockout
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.planning.models import Reading
from flowjax.sweeps.plan import Footprint, Plan, footprint, plan_sweep


@dataclass(frozen=True)
class Sweep:
    """A sweep over one prompt, planned."""

    knockouts: tuple[Knockout, ...]
    footprints: tuple[Footprint, ...]
    plan: Plan


def plan_for(
    reading: Reading,
    knockouts: tuple[Knockout, ...],
    config: VideoLLMConfig,
    dtype: str,
    *,
    copies: int,
    kernel: bool,
) -> Sweep:
    """The engine's plan of a sweep."""
    layout = reading.prompt.layout
    footprints = tuple(footprint(layout, knockout) for knockout in knockouts)
    plan = plan_sweep(
        layout.length,
        footprints,
        config.decoder,
        value_bytes=jnp.dtype(dtype).itemsize,
        kernel=kernel,
        multiple=copies,
    )
    return Sweep(knockouts, footprints, plan)
