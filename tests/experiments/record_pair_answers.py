"""Records what the shipped pair answers in a version of `transformers`, for `test_pair.py`.

    python -m tests.experiments.record_pair_answers ask QUESTIONS.npz
    python tests/experiments/record_pair_answers.py answer QUESTIONS.npz PAIR_FOLDER OUT.json

The first step needs flowjax. The second needs only PyTorch, numpy and the version of
`transformers` to record, whose answers it adds to OUT.json under that version.
"""

import json
import sys
from pathlib import Path

import numpy as np

MODELS = ("image", "video")
TASKS = (
    "moving_direction", "action_antonym", "scene_transition", "image_colour", "image_count",
    "image_background",
)  # fmt: skip
"""Those with answers that the pair was taught and learned."""


def ask() -> tuple[list, np.ndarray]:
    """One question per task: the prompts, and pixel values float32 [tasks, 8, 3, 48, 48]."""
    from flowjax.data.prompt import VideoShape
    from flowjax.data.shapes.paint import frames
    from flowjax.data.shapes.tasks import IMAGE_TASKS, VIDEO_TASKS, Draw, draw_question
    from flowjax.files import read_json
    from flowjax.models.families import pllava
    from flowjax_experiments.shapes import PAIR

    config = pllava.read_config(read_json(PAIR / "video" / "config.json"), "config.json")
    fields = read_json(PAIR / "video" / "preprocessor_config.json")
    preprocess = pllava.FAMILY.read_preprocessor(fields, "preprocessor_config.json")
    prompts, pixels = [], []
    assert set(TASKS) <= set(VIDEO_TASKS | IMAGE_TASKS)
    for index, task in enumerate(TASKS):
        draw = Draw(np.random.default_rng(index), test=True)
        scene, question = draw_question(task, draw, 3 * index + 2)
        values = preprocess(frames(scene, config.frames, 96))
        shape = VideoShape(values.shape, tuple(index / 4 for index in range(config.frames)))
        prompts.append(pllava.prompt(config, question, shape))
        pixels.append(values)
    return prompts, np.stack(pixels)


def answer(texts: list[str], pixels: np.ndarray, folder: Path) -> list[dict]:
    """What the model in a folder says to every question, as PLLaVA's code runs LLaVA's parts."""
    import torch
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = LlavaForConditionalGeneration.from_pretrained(str(folder), attn_implementation="eager")
    model = model.float().eval()
    parts = model.model if hasattr(model, "model") else model
    config = json.loads((folder / "config.json").read_text())
    records = []
    for text, values in zip(texts, pixels, strict=True):
        ids = tokenizer(text)["input_ids"]
        place = ids.index(config["image_token_index"])
        with torch.no_grad():
            tower = parts.vision_tower(torch.from_numpy(values), output_hidden_states=True)
            features = tower.hidden_states[config["vision_feature_layer"]][:, 1:]
            grid = parts.multi_modal_projector(features).unflatten(1, config["frame_shape"])
            video = torch.nn.functional.adaptive_avg_pool3d(
                grid.permute(3, 0, 1, 2), config["pooling_shape"]
            )
            before, after = (
                model.get_input_embeddings()(torch.tensor(part, dtype=torch.long))
                for part in (ids[:place], ids[place + 1 :])
            )
            x = torch.cat([before, video.flatten(1).T, after])[None]
            logits = model(inputs_embeds=x, attention_mask=torch.ones(x.shape[:2])).logits
        probability = logits[0, -1].double().softmax(-1)
        said = int(probability.argmax())
        candidates = [candidate(tokenizer, letter, said) for letter in "ABCD"]
        records.append(
            {
                "ids": ids,
                "answer_id": said,
                "answer": tokenizer.decode([said]),
                "spaced_ids": [tokenizer.encode(x, add_special_tokens=False) for x in "ABCD"],
                "option_ids": candidates,
                "probabilities": [round(float(probability[id_]), 6) for id_ in candidates],
            }
        )
    return records


def candidate(tokenizer, letter: str, said: int) -> int:
    """The published rule: the letter's first token, or the bare letter where that is nearer."""
    first = tokenizer.encode(letter, add_special_tokens=False)[0]
    bare = tokenizer.convert_tokens_to_ids(letter)
    return bare if abs(bare - said) < abs(first - said) else first


def main() -> None:
    step, questions, *rest = sys.argv[1:]
    if step == "ask":
        prompts, pixels = ask()
        texts = np.array([prompt.text for prompt in prompts])
        np.savez_compressed(questions, texts=texts, pixels=pixels)
        return
    import transformers

    pair, out = map(Path, rest)
    with np.load(questions) as asked:
        texts, pixels = asked["texts"].tolist(), asked["pixels"]
    records = json.loads(out.read_text()) if out.exists() else {}
    records[transformers.__version__] = {
        model: answer(texts, pixels, pair / model) for model in MODELS
    }
    out.write_text(json.dumps(dict(sorted(records.items()))) + "\n")


if __name__ == "__main__":
    main()
