"""The shapes pair: an image model and the video model tuned from it, and their benchmark.

recipe.py    sizes, and how long each stage is trained
tokenizer.py how words become tokens
model.py     configuration, and writing a trained model as a checkpoint
batches.py   what the models are trained on
stages.py    what each stage minimises
make.py      `flowjax make-shapes`
leaks.py     what of the benchmark is answered without its videos
judge.py     accuracy of a trained pair, and the leaks, for its model card
findings.py  all that `docs/findings.md` says
pair/        the pair that is shipped, its model card, and the figures in the card

`python -m flowjax_experiments.train_shapes` trains both.
"""

from pathlib import Path

PAIR = Path(__file__).parent / "pair"
"""The shipped pair: folders `image` and `video`, checkpoints in Hugging Face format."""
