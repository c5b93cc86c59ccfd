"""One sample: its frames with what their positions read as and who attends to them, layer by layer.

The data of `static/sample.js`. Arrays are base64 text, so that 24 x 24 positions of 16 frames in 32
layers stay a few megabytes.
"""

import base64
import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image

from flowjax.report.page.section import Section, Widget

QUALITY = 80
"""Of the frames' JPEG."""

LEAD = (
    "One question, as the model reads it at every layer. Words: what the state at each place of a "
    "frame reads as there (logit lens). Orange: how much the chosen tokens attend to the place, of "
    "the largest weight in the layer. A single sample shows no more than itself; the other "
    "sections say what holds over many."
)


@dataclass(frozen=True, eq=False)
class WordsRead:
    """The most probable tokens at every place of every frame.

    texts: of every token that occurs.
    top: index into `texts`, most probable first; -1 where a layer was not read.
    probability: 0 to 1, of the same shape.
    """

    texts: Sequence[str]
    top: Int[np.ndarray, "layers frames rows columns k"]
    probability: Float[np.ndarray, "layers frames rows columns k"]


@dataclass(frozen=True, eq=False)
class AttentionSeen:
    """Attention of some tokens to every place of every frame, 0 to 1.

    label: whose, in which heads.
    cut: with which edges cut; empty for the model as it is.
    """

    label: str
    cut: str
    weights: Float[np.ndarray, "layers frames rows columns"]


@dataclass(frozen=True, eq=False)
class TokensCut:
    """What cutting single tokens changes: percent of the answer's probability.

    label: from which group to which.
    texts: of the tokens, in order.
    layer: 1-based centres of the windows.
    """

    label: str
    texts: Sequence[str]
    layer: Sequence[int]
    change: Float[np.ndarray, "tokens layers"]


@dataclass(frozen=True, eq=False)
class OptionsRead:
    """Probability of every option's letter after every layer."""

    letters: Sequence[str]
    probability: Float[np.ndarray, "layers options"]


@dataclass(frozen=True, eq=False)
class OnSample:
    """What a run shows of one sample; runs of one model are put together.

    prompt: what the model reads, with a placeholder for the video.
    frames: as the model sees them; None where the run keeps none.
    """

    model: str
    sample_id: str
    task: str
    prompt: str
    answer: str
    true_answer: str
    frames: UInt8[np.ndarray, "frames height width 3"] | None = None
    words: WordsRead | None = None
    attention: Sequence[AttentionSeen] = ()
    tokens: Sequence[TokensCut] = ()
    options: OptionsRead | None = None

    def __or__(self, other: "OnSample") -> "OnSample":
        """With what another run shows of the same sample."""
        return dataclasses.replace(
            self,
            frames=self.frames if self.frames is not None else other.frames,
            words=self.words or other.words,
            attention=[*self.attention, *other.attention],
            tokens=[*self.tokens, *other.tokens],
            options=self.options or other.options,
        )


def section(found: Iterable[OnSample]) -> Section | None:
    """The samples, those of one model and id together; None if there are none."""
    joined: dict[tuple[str, str], OnSample] = {}
    for one in found:
        key = one.model, one.sample_id
        joined[key] = joined[key] | one if key in joined else one
    if not joined:
        return None
    several = len({model for model, _ in joined}) > 1
    data = {"samples": [_sample(one, several) for one in joined.values()]}
    return Section("sample", "One sample", LEAD, [Widget("sample", data)])


def _sample(one: OnSample, named: bool) -> dict[str, Any]:
    label = f"{one.sample_id} ({one.model})" if named else one.sample_id
    return {
        "label": label,
        "task": one.task,
        "prompt": one.prompt,
        "answer": one.answer,
        "true": one.true_answer,
        "frames": [] if one.frames is None else [_jpeg(frame) for frame in one.frames],
        "words": one.words and _words(one.words),
        "attention": [_attention(seen) for seen in one.attention],
        "tokens": [
            {
                "label": cut.label,
                "texts": list(cut.texts),
                "layers": list(cut.layer),
                "change": np.round(cut.change, 2).tolist(),
            }
            for cut in sorted(one.tokens, key=lambda cut: -float(np.abs(cut.change).max()))
        ],
        "options": one.options
        and {
            "letters": list(one.options.letters),
            "probability": np.round(one.options.probability, 4).tolist(),
        },
    }


def _words(words: WordsRead) -> dict[str, Any]:
    kind = np.uint16 if len(words.texts) < 1 << 16 else np.uint32
    return {
        "texts": list(words.texts),
        "top": _array(np.where(words.top < 0, len(words.texts), words.top).astype(kind)),
        "probability": _array(np.round(255 * words.probability).astype(np.uint8)),
    }


def _attention(seen: AttentionSeen) -> dict[str, Any]:
    """Roots of the weights as parts of the layer's largest, so that small ones are kept apart."""
    most = seen.weights.max(axis=(1, 2, 3), keepdims=True)
    part = np.sqrt(seen.weights / np.where(most > 0, most, 1.0))
    return {
        "label": seen.label,
        "cut": seen.cut,
        "most": np.round(most.ravel(), 6).tolist(),
        "frames": np.round(seen.weights.sum(axis=(2, 3)), 5).tolist(),
        "root": _array(np.round(255 * part).astype(np.uint8)),
    }


def _array(values: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return {
        "shape": list(values.shape),
        "bytes": values.dtype.itemsize,
        "data": base64.b64encode(data).decode("ascii"),
    }


def _jpeg(frame: UInt8[np.ndarray, "height width 3"]) -> str:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
