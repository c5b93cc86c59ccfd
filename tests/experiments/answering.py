"""A benchmark of small clips, and a random model that answers with letters."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from flowjax.data.encode import write_mp4
from flowjax_convert.run import convert
from tests.random_checkpoint import NOTE, write_random_checkpoint

OPTIONS = ("to the left", "to the right", "up", "down")
TASKS = {"direction": "Where does the square go?", "colour": "What moves in the video, and where?"}


def write_benchmark(folder: Path, per_task: int = 4) -> Path:
    """TVBench's layout; every clip has another picture and another true option."""
    rng = np.random.default_rng(0)
    (folder / "json").mkdir(parents=True)
    for task, question in TASKS.items():
        (folder / "video" / task).mkdir(parents=True)
        entries = []
        for index in range(per_task):
            name = f"{index}.mp4"
            frames = np.repeat(rng.integers(0, 255, (12, 4, 4, 3), np.uint8), 16, axis=1)
            write_mp4(folder / "video" / task / name, np.repeat(frames, 16, axis=2), 10)
            entries.append(
                {
                    "question": question,
                    "candidates": list(OPTIONS),
                    "answer": OPTIONS[index % 4],
                    "video": name,
                }
            )
        (folder / "json" / f"{task}.json").write_text(json.dumps(entries))
    return folder


def write_answering_model(
    folder: Path, seed: int = 0, *, sharpness: float = 4, **text: int
) -> Path:
    """A converted random model whose most probable token is nearly always A, B, C or D.

    Its attention and its answers are sharp, so that cutting edges changes them; so does rounding.

    text: other values of the decoder's configuration.
    """
    write_random_checkpoint(folder / "hf", [*TASKS.values(), *OPTIONS], seed, text=text)
    tokenizer = Tokenizer.from_file(str(folder / "hf" / "tokenizer.json"))
    weights = load_file(folder / "hf" / "model.safetensors")
    head = weights["language_model.lm_head.weight"]
    letters = np.array([tokenizer.token_to_id(letter) for letter in "ABCD"])
    weights["language_model.lm_head.weight"] = np.zeros_like(head)
    weights["language_model.lm_head.weight"][letters] = sharpness * head[letters]
    for name in weights:
        if name.startswith("language_model") and name.endswith("q_proj.weight"):
            weights[name] *= sharpness
    save_file(weights, folder / "hf" / "model.safetensors", {"format": "pt"})
    convert(folder / "hf", folder / "model", note=NOTE)
    return folder / "model"
