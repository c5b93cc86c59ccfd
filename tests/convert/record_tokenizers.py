"""Record the ids that fast tokenizers of `transformers` 4 give, with the files they were read from.

Run with Python that has `transformers==4.57.1`, `sentencepiece` and `protobuf`::

    python tests/convert/record_tokenizers.py tests/convert/recorded/tokenizers.json.gz

Vocabularies are trained here on a few lines, so that the files are small and free of rights. The
result is one object: case -> {"files": {name: base64}, "ids": [[...] for every text]}, and "texts".
"""

import base64
import gzip
import json
import sys
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers

LINES = [
    "What does the person do after opening the door of the fridge? They close the window again.",
    "Watch the video carefully, pay attention to the order of events and the pose of persons.",
    "Options: (A) Put down the cup. (B) Take the phone. (C) Tidied up the table. (D) Washed.",
    "def forward(self, hidden_states): return self.norm(hidden_states) + 12345 * 67.89e-10",
    "Über den Dächern, naïve café; 東京の街角で、猫が三匹。 Привет, мир! user assistant system",
] * 4
TEXTS = [
    "What does the person do? They open the door.",
    "  two blanks before, three   inside, and a tab\there ",
    "line one\nline two\n\n  line four\r\n",
    "It's 12345 apples, isn't it? We'LL see.",
    "<|im_start|>user\nWatch <image> and<video>the door<|im_end|>\n<|im_start|>assistant\n",
    "<s>USER: <image>\nWhat next?</s> ASSISTANT: Best option:(",
    " <image> <image>  <video>x",
    "café naïve Über Dächer e\u0301",
    "東京の猫 🐈‍⬛ ᚠ \x00\x7f",
    "",
    "▁a ▁",
]
LATER = ["<image>", "<video>"]
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LATER]


def sentencepiece_file(folder: Path, **options: object) -> None:
    """Train a model of byte pairs and write `tokenizer.model`."""
    text = folder / "text"
    text.write_text("\n".join(LINES), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=420, model_type="bpe",
        byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, minloglevel=2,
        unk_id=0, bos_id=1, eos_id=2, **options,
    )  # fmt: skip
    text.unlink()
    (folder / "tokenizer.vocab").unlink()


def byte_level_files(folder: Path) -> None:
    """Train byte pairs and write `vocab.json` and `merges.txt`."""
    model = tokenizers.ByteLevelBPETokenizer()
    model.train_from_iterator(LINES, vocab_size=420, show_progress=False)
    model.save_model(str(folder))


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def decoder(first: int, tokens: list[str], special: bool) -> dict[str, object]:
    """`added_tokens_decoder` of tokens with consecutive ids."""
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {
        str(first + index): {"content": token, "special": special, **flags}
        for index, token in enumerate(tokens)
    }


def llama_legacy(folder: Path) -> None:
    sentencepiece_file(folder)
    write(folder, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    write(folder, "added_tokens.json", {token: 420 + i for i, token in enumerate(LATER)})
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write(folder, "special_tokens_map.json", roles)


def llama_new(folder: Path) -> None:
    sentencepiece_file(folder, user_defined_symbols=["[INST]"])
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "added_tokens_decoder": decoder(0, ["<unk>", "<s>", "</s>"], True)
        | decoder(420, LATER, False),
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
    }
    write(folder, "tokenizer_config.json", config)


def llama_ends(folder: Path) -> None:
    sentencepiece_file(folder)
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": False,
        "add_eos_token": True,
        "bos_token": {"__type": "AddedToken", "content": "<s>", "normalized": False},
        "eos_token": {"__type": "AddedToken", "content": "</s>", "normalized": False},
        "additional_special_tokens": LATER,
    }
    write(folder, "tokenizer_config.json", config)


def qwen2(folder: Path) -> None:
    byte_level_files(folder)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    }
    write(folder, "tokenizer_config.json", config)
    first = len(json.loads((folder / "vocab.json").read_text()))
    write(folder, "added_tokens.json", {token: first + i for i, token in enumerate(CHAT)})


def qwen2_decoder(folder: Path) -> None:
    qwen2(folder)
    (folder / "added_tokens.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    first = len(json.loads((folder / "vocab.json").read_text()))
    special = decoder(first, CHAT[:3], True)
    config["added_tokens_decoder"] = special | decoder(first + 3, LATER, False)
    write(folder, "tokenizer_config.json", config)


def qwen2_json(folder: Path) -> None:
    """A `tokenizer.json` that was written before the last tokens were added."""
    qwen2_decoder(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    last = list(config["added_tokens_decoder"].items())[-1]
    del config["added_tokens_decoder"][last[0]]
    write(folder, "tokenizer_config.json", config)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] |= dict([last])
    write(folder, "tokenizer_config.json", config)
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


CASES = (llama_legacy, llama_new, llama_ends, qwen2, qwen2_decoder, qwen2_json)


def main() -> None:
    assert transformers.__version__ == "4.57.1", transformers.__version__
    recorded: dict[str, object] = {"texts": TEXTS}
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            case(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True)
            assert tokenizer.is_fast
            files = {
                path.name: base64.b64encode(path.read_bytes()).decode()
                for path in sorted(folder.iterdir())
            }
            ids = [tokenizer(text)["input_ids"] for text in TEXTS]
            recorded[case.__name__] = {"files": files, "ids": ids}
    content = json.dumps(recorded, sort_keys=True).encode()
    Path(sys.argv[1]).write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main()
