"""The exit rule of `--exit`: as it is written, or as a run of `flowjax exit` calibrates it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from flowjax.asked.asked import Asked
from flowjax.errors import FlowjaxError
from flowjax.inference.exit_rule import OPTION_GAP, WRITTEN, ExitRule, read_rule
from flowjax.lens.early_exit import calibrate
from flowjax.models.loaded import LoadedModel
from flowjax.runs.finished import read_run
from flowjax.runs.halves import halves
from flowjax.runs.run import analysis_of
from flowjax.runs.settings import model_settings
from flowjax_experiments.exit import Exit, Readings

ROUNDING = 1e-5
"""A threshold is a sample's own margin, which another program gives with other last bits."""


def read_exit(text: str, loaded: LoadedModel) -> ExitRule:
    """The rule for a model.

    Args:
        text: see `read_rule`; or RUN@TOLERANCE, the rule that the samples on whose half a finished
            run of `flowjax exit` finds its rules give for a tolerance, 0 to 1.
        loaded: the model.

    Raises:
        FlowjaxError: a rule that is not written so, or a run that is not of this model.
    """
    layers = loaded.config.decoder.layers
    path, at, written = text.rpartition("@")
    if WRITTEN.fullmatch(text) or not at or not Path(path).is_dir():
        return read_rule(text, layers)
    try:
        tolerance = float(written)
    except ValueError:
        raise FlowjaxError(
            f"exit rule {text!r}: {written!r} is no tolerance; give 0 to 1"
        ) from None
    if analysis_of(Path(path)) != Exit.name():
        raise FlowjaxError(f"exit rule {text!r}: {path} is not a run of `flowjax exit`")
    run = read_run(Path(path))
    if run.settings.get("checkpoint") != model_settings(loaded)["checkpoint"]:
        raise FlowjaxError(
            f"exit rule {text!r}: calibrated on another model, {run.settings.get('model')!r}"
        )
    readings = Readings.of(run.rows)
    found_on = readings.among(halves(readings.samples)[0])
    thresholds = calibrate(found_on.margin, found_on.agrees, tolerance).astype(np.float32)
    thresholds -= ROUNDING
    thresholds[-1] = np.inf  # after it nothing is left to skip
    return ExitRule(OPTION_GAP, jnp.asarray(thresholds))


def letters_of(asked: Asked) -> Int[np.ndarray, " options"]:
    """Token ids of the options' letters; none for an open question."""
    return np.array(list(asked.letter_ids.values()), np.int32)
