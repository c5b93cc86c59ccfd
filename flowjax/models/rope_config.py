"""Reading the rotary embedding of a Hugging Face configuration."""

import math
from collections.abc import Mapping

from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig
from flowjax.models.rope import DynamicRope, LinearRope, LongRope, Rope, RotaryEmbedding, ScaledRope

THETA = 10000.0
"""Base of the rotation angles where a configuration gives none."""

ORIGINAL = "original_max_position_embeddings"


def read_rope(
    text: HFConfig, head_dim: int, positions: int, original: int | None = None
) -> RotaryEmbedding:
    """Read rotary embedding over whole heads.

    The configuration has either `rope_theta` and `rope_scaling`, as `transformers` up to 4 wrote
    them, or `rope_parameters`, as 5 does.

    Args:
        text: the decoder's configuration; its fields about rotary embedding are taken.
        head_dim: width of a head.
        positions: its `max_position_embeddings`.
        original: its `original_max_position_embeddings` where absent; None if the architecture
            has no such field of its own.

    Raises:
        FlowjaxError: names a field that is not supported.
    """
    theta = text.positive_float("rope_theta", THETA)
    if ORIGINAL in text:
        original = text.positive(ORIGINAL, original or positions)
    text.expect("partial_rotary_factor", 1.0)
    fields = (name for name in ("rope_parameters", "rope_scaling") if text.peek(name) is not None)
    field = next(fields, None)
    scaling = HFConfig({}, text.name("")) if field is None else text.nested(field)
    text.expect("rope_parameters", None)
    text.expect("rope_scaling", None)
    theta = scaling.positive_float("rope_theta", theta)
    scaling.expect("partial_rotary_factor", 1.0)
    kind = _kind(scaling)
    match kind:
        case "default":
            rope = Rope(head_dim, theta)
        case "linear" | "dynamic":
            factor = scaling.take("factor", float)
            if not 1 <= factor < math.inf:
                raise FlowjaxError(f"{scaling.name('factor')} is {factor}; it must be at least 1")
            if kind == "linear":
                rope = LinearRope(head_dim, theta, factor)
            else:
                rope = DynamicRope(head_dim, theta, factor, positions)
        case "su" | "longrope":
            rope = _longrope(scaling, head_dim, theta, positions, original)
        case "yarn":
            rope = _yarn(scaling, head_dim, theta, positions if original is None else original)
        case "llama3":
            rope = _llama3(scaling, head_dim, theta, positions)
        case _:
            raise FlowjaxError(
                f"{scaling.name('rope_type')} is {kind!r}; default, linear, dynamic, yarn, llama3 "
                "and longrope (also written su) are supported"
            )
    scaling.finish()
    return rope


def known_positions(text: HFConfig, positions: int) -> int:
    """How many positions a decoder was made to tell apart.

    Files disagree on whether `max_position_embeddings`, here `positions`, is that number before or
    after scaling by a factor; the larger one is taken.

    Args:
        text: as `read_rope` is given it; nothing is taken.
        positions: its `max_position_embeddings`.
    """
    field = text.peek("rope_parameters") or text.peek("rope_scaling")
    scaling = field if isinstance(field, Mapping) else {}
    factor, original = scaling.get("factor"), scaling.get(ORIGINAL, positions)
    kind = scaling.get("rope_type", scaling.get("type"))
    numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in (factor, original))
    if kind not in ("linear", "dynamic", "yarn") or not numbers:
        return positions
    return max(positions, int(factor * original))


def _kind(scaling: HFConfig) -> str:
    """Take the variant's name, which files of some versions give twice."""
    old = scaling.take("type", str, "")
    kind = scaling.take("rope_type", str, old or "default")
    if old and old != kind and {old, kind} != {"su", "longrope"}:
        raise FlowjaxError(f"{scaling.name('type')} is {old!r}, but rope_type is {kind!r}")
    return kind


def _longrope(
    scaling: HFConfig, head_dim: int, theta: float, positions: int, original: int | None
) -> LongRope:
    """`original`, the decoder's own length before scaling, goes before that of the scaling."""
    own = scaling.positive(ORIGINAL, positions)
    original = own if original is None else original
    if original < 2:
        raise FlowjaxError(f"{scaling.name(ORIGINAL)} is {original}; it must be at least 2")
    ratio = scaling.positive_float("factor", positions / original)
    scale = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
    return LongRope(
        head_dim=head_dim,
        theta=theta,
        short_factor=_factors(scaling, "short_factor", head_dim // 2),
        long_factor=_factors(scaling, "long_factor", head_dim // 2),
        original_length=original,
        scale=scaling.positive_float("attention_factor", scale),
    )


def _yarn(scaling: HFConfig, head_dim: int, theta: float, positions: int) -> ScaledRope:
    """YaRN (Peng et al. 2023, arXiv 2309.00071), as `transformers` has it.

    Pairs that turn more than `beta_fast` times over the original length keep their frequency, those
    that turn less than `beta_slow` times are divided by `factor`, with a ramp between them.
    """
    if ORIGINAL not in scaling and "factor" not in scaling:
        raise FlowjaxError(f"{scaling.name('factor')} is missing")
    original = scaling.positive(ORIGINAL, positions)
    factor = scaling.positive_float("factor", positions / original)
    fast = scaling.positive_float("beta_fast", 32.0)
    slow = scaling.positive_float("beta_slow", 1.0)

    def pair(turns: float) -> float:
        """The number of the pair that turns so often over the original length."""
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(fast), pair(slow)
    if scaling.take("truncate", bool, True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001
    ramps = (min(1.0, max(0.0, (i - low) / width)) for i in range(head_dim // 2))
    scale = _log_scale(factor, 1.0)
    some, every = scaling.take("mscale", float, 0.0), scaling.take("mscale_all_dim", float, 0.0)
    if some and every:
        scale = _log_scale(factor, some) / _log_scale(factor, every)
    return ScaledRope(
        head_dim,
        theta,
        tuple(1 / (ramp / factor + 1 - ramp) for ramp in ramps),
        scaling.positive_float("attention_factor", scale),
    )


def _log_scale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _llama3(scaling: HFConfig, head_dim: int, theta: float, positions: int) -> ScaledRope:
    """Llama 3.1's (Grattafiori et al. 2024, arXiv 2407.21783), as `transformers` has it.

    Pairs whose wavelength is below the original length / `high_freq_factor` keep their frequency,
    those above it / `low_freq_factor` are divided by `factor`, with a ramp between them.
    """
    original = scaling.positive(ORIGINAL, positions)
    factor = scaling.positive_float("factor", 8.0)
    low = scaling.positive_float("low_freq_factor", 1.0)
    high = scaling.positive_float("high_freq_factor", 4.0)
    if high <= low:
        raise FlowjaxError(
            f"{scaling.name('high_freq_factor')} is {high}; it must be above low_freq_factor, {low}"
        )
    turns = (original / (2 * math.pi * theta ** (2 * i / head_dim)) for i in range(head_dim // 2))
    kept = (min(1.0, max(0.0, (count - low) / (high - low))) for count in turns)
    factors = tuple(1 / ((1 - share) / factor + share) for share in kept)
    return ScaledRope(head_dim, theta, factors, 1.0)


def _factors(scaling: HFConfig, field: str, count: int) -> tuple[float, ...]:
    """One positive number per pair of a head's values."""
    values = scaling.take(field, list)
    numbers = all(type(x) in {int, float} and 0 < x < math.inf for x in values)
    if len(values) != count or not numbers:
        raise FlowjaxError(f"{scaling.name(field)} must be {count} numbers above 0")
    return tuple(map(float, values))
