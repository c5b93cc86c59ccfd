"""Asking a video model, with full attention or on a pathway with a thinned cache."""

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer

from flowjax.asked.asked import ask_sample
from flowjax.compilation import use_persistent_cache
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.data.video_options import AS_CHECKPOINT, VideoOptions
from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.inference.compile import compile_pathway
from flowjax.inference.cost import costs
from flowjax.inference.decode import Sampling, Token, generate_by, programs
from flowjax.inference.end_tokens import end_tokens
from flowjax.layout import TokenLayout
from flowjax.models.checkpoint import load_model
from flowjax.models.loaded import LoadedModel
from flowjax.pathway import FORMS, Pathway, default_pathway, read_pathway
from flowjax_experiments.exit_choice import letters_of, read_exit

GREEDY = Sampling()
NONE = "none"
"""The name of inference without a pathway."""


@dataclass(frozen=True)
class Asked:
    """A question about a video, as the command line gives it.

    options: none for an open question.
    pathway: "none", "paper", "strict", or a file that `flowjax.pathway.write_pathway` wrote.
    tokens: at most.
    exit: when to answer from an early layer, see `read_exit`; None: never.
    reading: how the video is read.
    prompt: see `LoadedModel.asked_by`.
    """

    model: Path
    video: Path
    question: str
    options: tuple[str, ...] = ()
    pathway: str = NONE
    tokens: int = 64
    sampling: Sampling = GREEDY
    exit: str | None = None
    reading: VideoOptions = AS_CHECKPOINT
    prompt: str | None = None


@dataclass(frozen=True)
class Generated:
    """What a run gave.

    text: of all tokens.
    tokens: ids, without the one that ended the text.
    layers: after which each was read, counted from 0; all_layers: of the decoder.
    ttft: seconds from the embedded prompt to the first token; every program had been compiled.
    tokens_per_second: of those after the first; None where there are none.
    cache_bytes, full_cache_bytes: keys and values of the prompt on the pathway, and without one.
    """

    text: str
    tokens: tuple[int, ...]
    layers: tuple[int, ...]
    all_layers: int
    ttft: float
    tokens_per_second: float | None
    cache_bytes: int
    full_cache_bytes: int


def run(asked: Asked) -> Generated:
    """Print an answer as it is generated, then what it took.

    Raises:
        FlowjaxError: a bad input.
    """
    if asked.tokens < 1:
        raise FlowjaxError(f"tokens to generate: {asked.tokens}; at least 1 is needed")
    use_persistent_cache()
    question = Question(asked.question, asked.options)
    loaded = load_model(asked.model).reading(asked.reading).asked_by(asked.prompt)
    stop = end_tokens(loaded.path, loaded.tokenizer)
    pathway = read_choice(asked.pathway, loaded, is_open=not asked.options)
    rule = None if asked.exit is None else read_exit(asked.exit, loaded)
    _say("" if pathway is None else f"pathway {pathway.name}, {pathway.form} form")
    if pathway is not None and asked.tokens > 1 and not pathway.last_to_last:
        _say("note: this pathway cuts last->last, so a generated token reads none before it")

    prepared = ask_sample(loaded, Sample(asked.video.name, "", asked.video, question))
    _say(f"NOTE: {prepared.note}" if prepared.note else "")
    prompt = prepared.prompt
    embedded = jax.block_until_ready(prepared.embedded)
    decoder, config = loaded.model.decoder, loaded.config.decoder
    compiled = compile_pathway(
        prompt.layout, cuts(pathway, prompt.layout), config, room=asked.tokens - 1
    )
    _say(f"compiling for {prompt.layout.length} positions")
    if rule is not None:
        rule = rule.among(letters_of(prepared))
    ready = programs(decoder, embedded, compiled, asked.sampling, rule)

    start = time.perf_counter()
    times: list[float] = []
    made: list[Token] = []

    def timed() -> Iterator[int]:
        for token in generate_by(
            decoder,
            embedded,
            compiled,
            tokens=asked.tokens,
            sampling=asked.sampling,
            stop=stop,
            rule=rule,
            ready=ready,
        ):
            times.append(time.perf_counter())
            made.append(token)
            yield token.id

    parts = []
    for part in stream_text(loaded.tokenizer, timed()):
        parts.append(part)
        print(printable(part), end="", flush=True)
    print()
    end = time.perf_counter()
    cost = costs(prompt.layout, compiled, config, value_bytes=loaded.model.dtype.itemsize)
    result = Generated(
        text="".join(parts),
        tokens=tuple(token.id for token in made),
        layers=tuple(token.layer for token in made),
        all_layers=config.layers,
        ttft=(times[0] if times else end) - start,
        tokens_per_second=(len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None,
        cache_bytes=cost.compiled.cache_bytes,
        full_cache_bytes=cost.full.cache_bytes,
    )
    print_figures(result)
    if rule is not None:
        print(layers_said(result))
    return result


def read_choice(pathway: str, loaded: LoadedModel, *, is_open: bool) -> Pathway | None:
    """The pathway of `--pathway`; None for none.

    The paper's pathways cut `last -> last` everywhere, as their answers are one token. For an open
    question they keep it, so that each generated token reads those before it.

    Args:
        pathway: see `Asked`.
        loaded: the model, whose family and depth choose among the paper's pathways.
        is_open: whether the question is.

    Raises:
        FlowjaxError: neither a name nor a file with a pathway for this model.
    """
    layers = loaded.config.decoder.layers
    if pathway == NONE:
        return None
    if pathway not in FORMS:
        if not Path(pathway).exists():
            raise FlowjaxError(
                f"--pathway {pathway!r}: give {', '.join(FORMS)}, {NONE}, or a JSON file of a "
                "pathway"
            )
        return read_pathway(Path(pathway), layers)
    chosen = default_pathway(loaded.family.name, layers, pathway)
    return dataclasses.replace(chosen, last_to_last=tuple(range(layers))) if is_open else chosen


def cuts(pathway: Pathway | None, layout: TokenLayout) -> tuple[Knockout, ...]:
    """What a pathway cuts from a prompt; nothing without one."""
    return () if pathway is None else pathway.knockouts(layout)


def stream_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens as they come, in parts that are never taken back.

    A character made of several tokens comes with the last of them. Only the tokens since the last
    part but one are decoded again, which is enough for tokenizers to join words as they should.
    """
    ids: list[int] = []
    context = shown = 0

    def text(start: int, stop: int | None = None) -> str:
        return tokenizer.decode(ids[start:stop], skip_special_tokens=True)

    for token in tokens:
        ids.append(token)
        before, after = text(context, shown), text(context)
        if len(after) > len(before) and not after.endswith("\N{REPLACEMENT CHARACTER}"):
            yield after[len(before) :]
            context, shown = shown, len(ids)
    rest = text(context)[len(text(context, shown)) :]
    if rest:
        yield rest


def printable(text: str) -> str:
    """The text without control characters, which could steer a terminal."""
    return "".join(
        character if character in "\n\t" or character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def print_figures(result: Generated) -> None:
    """Print times and cache sizes."""
    share = result.cache_bytes / result.full_cache_bytes
    print(f"\nTTFT     {result.ttft:.3f} s from the embedded prompt to the first token")
    if result.tokens_per_second is not None:
        print(f"tokens   {len(result.tokens)}, {result.tokens_per_second:.1f} a second")
    print(
        f"cache    {result.cache_bytes / 1e6:.2f} MB of {result.full_cache_bytes / 1e6:.2f} MB "
        f"({share:.1%})"
    )


def layers_said(result: Generated) -> str:
    """After which layers tokens were read, counted from 1."""
    read = [layer + 1 for layer in result.layers]
    if not read:
        return f"layers   no token; {result.all_layers} layers"
    later = f", the others {np.mean(read[1:]):.1f} on average" if len(read) > 1 else ""
    return f"layers   the first token was read after {read[0]} of {result.all_layers}{later}"


def _say(text: str) -> None:
    if text:
        print(text, file=sys.stderr)
