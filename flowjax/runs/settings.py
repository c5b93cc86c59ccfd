"""What decides a run's results, as JSON values for its manifest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowjax.data.sample import Sample
from flowjax.models.checkpoint import LoadedModel
from flowjax.version import __version__


def model_settings(loaded: LoadedModel) -> dict[str, Any]:
    """The model, its parameters' digest and the version that reads them."""
    return {
        "model": loaded.name,
        "checkpoint": checkpoint_digest(loaded.path),
        "dtype": str(loaded.model.dtype),
        "version": __version__,
    }


def sample_settings(samples: Sequence[Sample]) -> dict[str, Any]:
    """Number and digests of the questions and the videos."""
    questions = hashlib.sha256()
    videos = hashlib.sha256()
    for sample in samples:
        question = sample.question
        fields = (sample.sample_id, sample.task, question.stem, question.options, question.answer)
        questions.update(repr(fields).encode())
        videos.update(
            repr((sample.start, sample.end, sample.by, video_digest(sample.video))).encode()
        )
    return {
        "samples": len(samples),
        "questions": questions.hexdigest(),
        "videos": videos.hexdigest(),
    }


def checkpoint_digest(path: Path) -> str:
    """SHA-256 of a converted model's configuration and the start of every parameter file."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and (file.parent == path or file.parent.parent == path / "params"):
            total.update(str(file.relative_to(path)).encode())
            with file.open("rb") as handle:
                total.update(handle.read(1 << 16))
    return total.hexdigest()


def video_digest(path: Path) -> str:
    """A video's size and the SHA-256 of its first MiB; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = hashlib.sha256(file.read(1 << 20)).hexdigest()
        return f"{path.stat().st_size} {start}"
    except OSError:
        return ""
