"""Reading a Hugging Face configuration without overlooking anything.

Every field is taken, expected at the one value we compute, or known not to change the forward
computation. Whatever is left over is refused by name.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast, overload

from flowjax.errors import FlowjaxError

T = TypeVar("T")

NEUTRAL = frozenset(
    {
        # Names, provenance and tokens: nothing here enters a forward pass.
        "_name_or_path", "architectures", "auto_map", "model_type", "transformers_version",
        "_commit_hash", "dtype", "torch_dtype", "task_specific_params", "tokenizer_class", "prefix",
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
        "id2label", "label2id", "finetuning_task", "problem_type", "initializer_range",
        "initializer_factor", "_attn_implementation_autoset", "_attn_implementation",
        # What a library call returns or how it trains.
        "return_dict", "output_attentions", "output_hidden_states", "use_cache", "torchscript",
        "use_bfloat16", "tf_legacy_loss", "gradient_checkpointing", "ignore_index",
        "attention_dropout", "hidden_dropout", "dropout", "resid_pdrop", "embd_pdrop",
        "drop_path_rate", "pretraining_tp",
        # Defaults of text generation that old library versions wrote into every configuration.
        "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
        "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
        "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
        "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
        "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
        "suppress_tokens", "begin_suppress_tokens",
    }
)  # fmt: skip
"""Fields that are present in many configurations and do not change what a forward computes."""

EXPECTED: Mapping[str, Any] = {
    "pruned_heads": {},
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
}
"""Fields of many configurations that would change the computation if not at this value."""


class HFConfig:
    """A mapping of configuration fields that knows which of them have been dealt with."""

    def __init__(self, fields: Mapping[str, Any], source: str) -> None:
        """Wrap `fields`; `source` (such as "config.json: text_config.") names them in errors."""
        self._left = dict(fields)
        self._source = source

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def name(self, field: str) -> str:
        """The field as errors name it."""
        return f"{self._source}{field}"

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
        return HFConfig(self.take(field, dict), f"{self._source}{field}.")

    def expect(self, field: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
        """Refuse the field unless it is absent or has the one value that is supported."""
        found = self._left.pop(field, value)
        if found != value or type(found) is not type(value):
            raise FlowjaxError(f"{self.name(field)} is {found!r}; only {value!r} is supported")

    def ignore(self, *fields: str) -> None:
        """Drop fields that do not change the computation in this family."""
        for field in fields:
            self._left.pop(field, None)

    def finish(self) -> None:
        """Refuse any field that nobody has dealt with."""
        for field, value in EXPECTED.items():
            self.expect(field, value)
        unknown = sorted(self._left.keys() - NEUTRAL)
        if unknown:
            raise FlowjaxError(
                f"{self.name(unknown[0])} is {self._left[unknown[0]]!r}; flowjax does not know "
                "this field, and it may change the computation"
                + (f" (also: {', '.join(unknown[1:])})" if unknown[1:] else "")
            )
