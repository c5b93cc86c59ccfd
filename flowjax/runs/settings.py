"""What decides a run's results, as JSON values for its manifest and as digests of its samples."""

import hashlib
from collections.abc import Sequence
from typing import Any

from flowjax.data.clip import sample_digest
from flowjax.data.sample import Sample
from flowjax.data.samples import Samples
from flowjax.models.checkpoint import checkpoint_digest
from flowjax.models.loaded import REFERENCE, LoadedModel
from flowjax.version import __version__


def model_settings(loaded: LoadedModel) -> dict[str, Any]:
    """The model, its parameters' digest, the version, and how it is asked.

    How videos are read is there if chosen, and the prompt where it is not the family's own: its
    name, or a template's text and digest.
    """
    prompt = loaded.prompt if isinstance(loaded.prompt, str) else loaded.prompt.settings
    return {
        "model": loaded.name,
        "checkpoint": checkpoint_digest(loaded.path),
        "dtype": str(loaded.model.dtype),
        "version": __version__,
        **loaded.video.settings,
        **({} if prompt == REFERENCE else {"prompt": prompt}),
    }


def sample_settings(samples: Sequence[Sample]) -> dict[str, Any]:
    """Number of the samples and a digest of what they are called.

    What they ask and show is recorded with the rows of each (`made_of`), so that one that could not
    be read may be mended.
    """
    if isinstance(samples, Samples):  # which knows them without reading any
        names = list(zip(samples.ids, samples.tasks, strict=True))
    else:
        names = [(sample.sample_id, sample.task) for sample in samples]
    return {
        "samples": len(samples),
        "questions": hashlib.sha256(repr(names).encode()).hexdigest(),
    }


def made_of(sample: Sample) -> str:
    """SHA-256 of everything that rows of a sample come from, the whole video included."""
    question = sample.question
    fields = (
        (sample.sample_id, sample.task, question.stem, question.options, question.answer),
        (sample.start, sample.end, sample.by, sample_digest(sample)),
        *(() if sample.rate is None else (sample.rate,)),
        *((sample.reference,) if sample.reference else ()),
    )
    return hashlib.sha256(repr(fields).encode()).hexdigest()
