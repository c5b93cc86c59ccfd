"""A small tokenizer of Llama's form, trained on the words it has to know."""

import json

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
    tokenizer.model = BPE(  # pyright: ignore[reportAttributeAccessIssue] - its stub has no setter
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
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
