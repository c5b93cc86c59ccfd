"""What differs between the two sides, stage by stage."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from flowjax.edges import Knockout
from flowjax_convert.check.ours import Ours, Passage, parts, tables
from flowjax_convert.check.peer import CheckedPrompt, Peer
from flowjax_convert.check.recorded import PARTS, Recorded, TheirPixels
from flowjax_convert.check.stage import (
    BOUNDS,
    EXACT,
    PIXELS,
    PIXELS_TORCHVISION,
    Bounds,
    Stage,
)


def compare(
    ours: Ours,
    theirs: Recorded,
    prompt: CheckedPrompt,
    knockouts: tuple[Knockout, ...],
    peer: Peer,
    pixels: TheirPixels,
) -> list[Stage]:
    """All stages, in the order of the computation.

    Our layers are each given what those of `transformers` read, so that a stage shows its own
    error; logits, tokens and knockouts are those of the whole model.
    """
    bounds = BOUNDS[ours.compute]
    stages = [_ids(prompt, theirs), *_positions(prompt, theirs), _pixels(prompt, pixels)]
    video = ours.video(prompt, peer.features)
    places = prompt.encoded.video_position
    text = np.setdiff1d(np.arange(len(prompt.encoded.ids)), places)
    read = theirs.layer(0)
    stages += [
        _rows("vision features", video.features, theirs.features, bounds.vision),
        _rows("video embeddings", video.tokens, read[places], bounds.vision),
    ]
    # The tokens after the prompt are theirs: where ours agree one by one, so do whole generations.
    after = theirs.tokens[:-1]
    ids = np.concatenate([prompt.encoded.ids, np.array(after, np.int32)])
    ids[places] = 0
    embeddings = ours.token_embeddings(ids)
    stages.append(_rows("token embeddings", embeddings[text], read[text], bounds.tokens))
    embeddings[places] = video.tokens
    passage = _passage(prompt, len(after), video.deepstack, ours)
    allowed = tables(prompt, knockouts, ours.layers)
    length = len(prompt.encoded.ids)
    # All of one length, which causality allows, so that one compiled function serves them.
    states = [jnp.asarray(embeddings, ours.compute)] * len(allowed)
    for index, layer in enumerate(ours.each_layer()):
        given = jnp.asarray(np.pad(theirs.layer(index), ((0, len(after)), (0, 0))), ours.compute)
        out = passage.through(layer, index, given, allowed[0])[:length]
        stage = _rows(f"layer {index}", out, theirs.layer(index + 1), bounds.layer)
        if stage.beyond:
            stages += _parts(index, parts(layer, given, passage, theirs.rows), theirs, bounds)
        stages.append(stage)
        states = [
            passage.through(layer, index, x, table)
            for x, table in zip(states, allowed, strict=True)
        ]
    head = ours.head()
    normed = head.norm(jnp.asarray(theirs.layer(ours.layers), ours.compute))
    stages.append(_rows("final norm", normed, theirs.normed, bounds.layer))
    base = np.asarray(head.logits(states[0][length - 1 :]))
    stages.append(_rows("logits", base[:1], theirs.logits[None], bounds.logits))
    stages.append(_tokens(base, theirs.tokens, bounds))
    for knockout, x, expected in zip(knockouts, states[1:], theirs.knocked_out, strict=True):
        logits = np.asarray(head.logits(x[length - 1 : length]))
        effect = np.linalg.norm(expected - theirs.logits) / np.linalg.norm(theirs.logits)
        stages.append(
            _rows(
                f"knockout {knockout.name}",
                logits,
                expected[None],
                bounds.logits,
                f"it changes the logits by {effect:.2g}",
            )
        )
    return stages


def _passage(
    prompt: CheckedPrompt,
    more: int,
    deepstack: Float[np.ndarray, "k video width"] | None,
    ours: Ours,
) -> Passage:
    """Of the prompt and `more` tokens after it, which go on from its largest position."""
    encoded = prompt.encoded
    rope = encoded.rope_position
    following = rope.max() + 1 + np.arange(more, dtype=rope.dtype)
    rope = np.concatenate([rope, np.broadcast_to(following, (len(rope), more))], axis=1)
    cell = encoded.layout.cell
    everywhere = None
    if deepstack is not None:
        everywhere = np.zeros((len(deepstack), rope.shape[1], deepstack.shape[2]), np.float32)
        everywhere[:, encoded.video_position] = deepstack
    return Passage(
        jnp.asarray(np.concatenate([cell, np.full(more, cell[-1])]), jnp.int32),
        jnp.asarray(rope),
        len(cell),
        None if everywhere is None else jnp.asarray(everywhere, ours.compute),
    )


def _ids(prompt: CheckedPrompt, theirs: Recorded) -> Stage:
    ours = prompt.encoded.ids
    if len(ours) != len(theirs.ids):
        note = f"{len(ours)} ids here, {len(theirs.ids)} there"
        return Stage("prompt ids", float(abs(len(ours) - len(theirs.ids))), EXACT, note)
    differing = np.flatnonzero(ours != theirs.ids)
    note = f"the first at position {differing[0]}" if len(differing) else f"{len(ours)} ids"
    return Stage("prompt ids", float(len(differing)), EXACT, note)


def _positions(prompt: CheckedPrompt, theirs: Recorded) -> list[Stage]:
    ours, given = prompt.encoded.rope_position, theirs.positions
    if given is None and len(ours) == 1:
        return []
    if given is None or given.shape != ours.shape:
        axes = 0 if given is None else len(given)
        return [Stage("positions", np.inf, EXACT, f"{len(ours)} axes here, {axes} there")]
    differing = np.flatnonzero((ours != given).any(axis=0))
    note = f"the first at {differing[0]}" if len(differing) else "on three axes"
    return [Stage("positions", float(len(differing)), EXACT, note)]


def _pixels(prompt: CheckedPrompt, pixels: TheirPixels) -> Stage:
    bound = PIXELS if pixels.exact else PIXELS_TORCHVISION
    if pixels.values is None:
        return Stage("pixel values", None, bound, f"not compared: {pixels.how}")
    ours, theirs = prompt.pixel_values, pixels.values
    if ours.size != theirs.size:
        note = f"shape {list(ours.shape)} here, {list(theirs.shape)} there"
        return Stage("pixel values", np.inf, bound, note)
    error = float(np.abs(ours.reshape(-1) - theirs.reshape(-1)).max())
    return Stage("pixel values", error, bound, f"largest difference, by {pixels.how}")


def _rows(
    name: str,
    ours: Any,  # noqa: ANN401 - an array of either library
    theirs: Shaped[np.ndarray, "..."],
    bound: float,
    note: str = "",
) -> Stage:
    """The largest error of a row, as a share of the row's norm."""
    mine = np.asarray(ours, np.float32)
    other = np.asarray(theirs, np.float32)
    if mine.size != other.size or mine.shape[-1] != other.shape[-1]:
        shapes = f"shape {list(mine.shape)} here, {list(other.shape)} there"
        return Stage(name, np.inf, bound, shapes)
    mine, other = mine.reshape(-1, mine.shape[-1]), other.reshape(-1, other.shape[-1])
    norm = np.linalg.norm(other, axis=1)
    error = np.linalg.norm(mine - other, axis=1) / np.where(norm == 0, 1, norm)
    return Stage(name, float(error.max(initial=0)), bound, note)


def _parts(index: int, ours: dict[str, Any], theirs: Recorded, bounds: Bounds) -> list[Stage]:
    """The parts of a layer that is beyond its bound, in the order of the computation."""
    stages = []
    for name in PARTS:
        expected = theirs.part(index, name)
        if expected is not None:
            # A part's own bound is looser: a layer adds it to what it read.
            stages.append(_rows(f"layer {index}: {name}", ours[name], expected, 10 * bounds.layer))
    return stages


def _tokens(
    logits: Float[np.ndarray, "tokens vocabulary"], tokens: tuple[int, ...], bounds: Bounds
) -> Stage:
    """How far below our most probable token theirs is at worst, as a share of the logits' norm."""
    chosen = logits[np.arange(len(tokens)), list(tokens)]
    short = (logits.max(axis=1) - chosen) / np.linalg.norm(logits, axis=1)
    same = logits.argmax(axis=1) == np.array(tokens)
    first = len(tokens) if same.all() else int(np.argmin(same))
    note = f"the first {first} of {len(tokens)} are the same"
    return Stage("greedy tokens", float(short.max()), bounds.logits, note)
