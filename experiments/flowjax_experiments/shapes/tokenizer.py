"""A small tokenizer of Llama's form, trained on the words it has to know."""

import json
import string
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer


def train_tokenizer(corpus: list[str]) -> Tokenizer:
    """A byte-fallback BPE tokenizer of Llama's form."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue] - its stub has no setter
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [chr(code) for code in range(33, 127)]
    trainer = BpeTrainer(
        vocab_size=768,
        special_tokens=special + byte_tokens,
        initial_alphabet=["▁", *letters],
        limit_alphabet=len(letters) + 1,
        show_progress=False,
    )
    words = [f"▁{word}" for text in corpus for word in text.split()]
    plain = Tokenizer(BPE(unk_token="<unk>"))
    plain.train_from_iterator(words, trainer)
    model = json.loads(plain.to_str())["model"]
    vocabulary, merges = with_letters(model["vocab"], [tuple(pair) for pair in model["merges"]])
    tokenizer.model = BPE(  # pyright: ignore[reportAttributeAccessIssue] - its stub has no setter
        vocab=vocabulary,
        merges=merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer.add_special_tokens([*special, "<image>"])
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue] - its stub has no setter
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue] - its stub has no setter
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return tokenizer


def with_letters(
    vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and its merges in which every capital letter after a space is one token.

    So it is in Llama's own vocabulary, where the candidates for an answer are looked up by the
    first token of " A". Such a letter takes the id of the letter's byte, which no text needs: the
    letter itself is in the vocabulary. Its merge comes last, so that words are made as before.
    """
    ids, pairs = dict(vocabulary), list(merges)
    for letter in string.ascii_uppercase:
        if f"▁{letter}" not in ids:
            ids[f"▁{letter}"] = ids.pop(f"<0x{ord(letter):02X}>")
            pairs.append(("▁", letter))
    return ids, pairs


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json` with merges as text, which versions of `tokenizers` before 0.20 read.

    Newer ones read both forms and write pairs.
    """
    fields = json.loads(tokenizer.to_str())
    fields["model"]["merges"] = [" ".join(pair) for pair in fields["model"]["merges"]]
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
