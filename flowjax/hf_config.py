"""Reading a Hugging Face configuration without overlooking anything.

Every field is taken, expected at the one value we compute, or known, from a table, not to change
the forward computation. Whatever is left over is refused by name. A null field is absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar, cast, overload

from flowjax.errors import FlowjaxError

T = TypeVar("T")


class _Any:
    """Stands for every value, in `Unread.at`."""

    def __repr__(self) -> str:
        return "ANY"


ANY = _Any()


@dataclass(frozen=True)
class Unread:
    """Fields that change nothing in what a released model computes.

    fields: their names; `*` stands for any letters.
    reason: why they change nothing.
    source: the released class or file that shows it.
    part: the part of the configuration that has them, with dots where nested; "" is the top level.
    at: the value at which they change nothing; any other is refused. By default every value.
    when: another field of the same part, and the value that it must have, or else be absent.
    """

    fields: tuple[str, ...]
    reason: str
    source: str
    part: str = ""
    at: Any = ANY
    when: tuple[str, Any] | None = None

    def names(self, field: str) -> bool:
        """Whether `field` is one of them."""
        return any(fnmatchcase(field, pattern) for pattern in self.fields)

    def within(self, part: str) -> "Unread | None":
        """The same as seen from a part of the configuration; None if it is about another part."""
        if self.part != part and not self.part.startswith(f"{part}."):
            return None
        return replace(self, part=self.part.removeprefix(part).removeprefix("."))


BASE = "transformers.PretrainedConfig, 4.40 to 5"

EVERYWHERE = (
    Unread(
        (
            "_name_or_path", "name_or_path", "_commit_hash", "architectures", "auto_map",
            "model_type", "transformers_version", "dtype", "torch_dtype", "tokenizer_class",
            "task_specific_params", "finetuning_task", "problem_type", "id2label", "label2id",
            "num_labels", "prefix", "transformers_weights",
        ),
        "names, provenance, and the dtype of the weights, which the weights have themselves",
        BASE,
    ),
    Unread(
        ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
        "tokens that generation starts, ends and pads with",
        BASE,
    ),
    Unread(
        (
            "return_dict", "use_return_dict", "output_attentions", "output_hidden_states",
            "use_cache", "torchscript", "use_bfloat16", "tf_legacy_loss",
        ),
        "what a call returns",
        BASE,
    ),
    Unread(
        (
            "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
            "_experts_implementation", "_experts_implementation_internal", "attn_implementation",
            "_flash_attn_2_enabled", "use_flash_attn", "use_flash_attention_2",
        ),
        "which code computes the attention; all compute the same",
        BASE,
    ),
    Unread(
        (
            "initializer_range", "initializer_factor", "gradient_checkpointing", "ignore_index",
            "attention_dropout", "hidden_dropout", "dropout", "resid_pdrop", "embd_pdrop",
            "drop_path_rate", "pretraining_tp",
        ),
        "training: starting values, dropout, and how a product of matrices is split up",
        "transformers' models, which read them in training mode only",
    ),
    Unread(
        (
            "max_length", "min_length", "max_new_tokens", "min_new_tokens", "do_sample",
            "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature",
            "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
            "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
            "num_return_sequences", "output_scores", "return_dict_in_generate",
            "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
            "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
        ),
        "defaults of text generation, which versions up to 4 wrote into every configuration",
        BASE,
    ),
    Unread(
        (
            "unsloth_*", "_unsloth_*", "transformers.js_config", "model_max_length",
            "tokenizer_model_max_length", "tokenizer_padding_side", "keys_to_ignore_at_inference",
        ),
        "bookkeeping of the library that trained or saved the model",
        "no model of transformers reads them; Unsloth's patches, transformers.js, LLaVA's trainer",
    ),
    Unread(("pruned_heads",), "no head is pruned", BASE, at={}),
    Unread(
        ("is_encoder_decoder", "is_decoder", "add_cross_attention", "tie_encoder_decoder"),
        "there is no encoder",
        BASE,
        at=False,
    ),
    Unread(("chunk_size_feed_forward",), "the MLP is computed in one piece", BASE, at=0),
    Unread(("cross_attention_hidden_size",), "there is no cross attention", BASE, at=None),
)  # fmt: skip
"""Fields that any configuration may have. Those of one class are in the file that reads it."""


class HFConfig:
    """A mapping of configuration fields that knows which of them have been dealt with."""

    def __init__(
        self, fields: Mapping[str, Any], source: str, unread: Sequence[Unread] = ()
    ) -> None:
        """Wrap `fields`; `source` (such as "config.json: text_config.") names them in errors.

        unread: what `finish`, of this and of nested configurations, lets pass.
        """
        self._given = {name: value for name, value in fields.items() if value is not None}
        self._left = dict(self._given)
        self._null = fields.keys() - self._given.keys()
        self._source = source
        self._unread = tuple(unread)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def name(self, field: str) -> str:
        """The field as errors name it."""
        return f"{self._source}{field}"

    def is_null(self, field: str) -> bool:
        """Whether a field is null, for the few classes to which that is not the same as absent."""
        return field in self._null

    def peek(self, field: str) -> Any:  # noqa: ANN401 - any JSON value
        """A field's value without taking it; None where it is absent."""
        return self._left.get(field)

    @overload
    def take(self, field: str, kind: type[T]) -> T: ...
    @overload
    def take(self, field: str, kind: type[T], default: T) -> T: ...
    def take(self, field: str, kind: type[T], default: T | None = None) -> T:
        """Take a field's value, or `default` where it is absent or null.

        Raises:
            FlowjaxError: absent without a default, or not of type `kind`.
        """
        value = self._left.pop(field, None)
        if value is None:
            if default is None:
                raise FlowjaxError(f"{self.name(field)} is missing")
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise FlowjaxError(f"{self.name(field)} is {value!r}; it must be {kind.__name__}")
        return cast(T, value)

    def positive(self, field: str, default: int | None = None) -> int:
        """Take a whole number of at least 1."""
        value = self.take(field, int) if default is None else self.take(field, int, default)
        if value < 1:
            raise FlowjaxError(f"{self.name(field)} is {value}; it must be at least 1")
        return value

    def positive_float(self, field: str, default: float) -> float:
        """Take a finite number above 0."""
        value = self.take(field, float, default)
        if not 0 < value < float("inf"):
            raise FlowjaxError(f"{self.name(field)} is {value}; it must be a number above 0")
        return value

    def shape(self, field: str, length: int) -> tuple[int, ...]:
        """Take a list of `length` whole numbers of at least 1."""
        value = self.take(field, list)
        if len(value) != length or not all(type(x) is int and x >= 1 for x in value):
            raise FlowjaxError(
                f"{self.name(field)} is {value}; it must be {length} whole numbers from 1"
            )
        return tuple(value)

    def nested(self, field: str) -> "HFConfig":
        """Take a field that is itself a configuration."""
        unread = [inner for entry in self._unread if (inner := entry.within(field)) is not None]
        return HFConfig(self.take(field, dict), f"{self._source}{field}.", unread)

    def expect(self, field: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Refuse the field unless it is absent or has the one value that is supported."""
        found = self._left.pop(field, value)
        if found != value or type(found) is not type(value):
            raise FlowjaxError(f"{self.name(field)} is {found!r}; only {value!r} is supported")

    def finish(self, *unread: Unread) -> None:
        """Refuse any field that nobody has dealt with.

        unread: fields that change nothing, besides those given at the start and `EVERYWHERE`.
        """
        for entry in (*self._unread, *unread, *EVERYWHERE):
            self._pass_over(entry)
        unknown = sorted(self._left)
        if unknown:
            raise FlowjaxError(
                f"{self.name(unknown[0])} is {self._left[unknown[0]]!r}; flowjax does not know "
                "this field, and it may change the computation"
                + (f" (also: {', '.join(unknown[1:])})" if unknown[1:] else "")
            )

    def _pass_over(self, entry: Unread) -> None:
        if entry.part:
            return
        if entry.when is not None:
            field, value = entry.when
            if self._given.get(field, value) != value:
                return
        for field in [field for field in self._left if entry.names(field)]:
            value = self._left[field]
            if entry.at is not ANY and (value != entry.at or type(value) is not type(entry.at)):
                raise FlowjaxError(
                    f"{self.name(field)} is {value!r}; only {entry.at!r} is supported"
                )
            del self._left[field]
