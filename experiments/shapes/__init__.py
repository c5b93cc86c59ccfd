"""The shapes pair: an image model and the video model tuned from it, and their benchmark.

recipe.py   sizes, and how long each stage is trained
model.py    tokenizer, configuration, and writing a trained model as a checkpoint
batches.py  what the models are trained on
stages.py   what each stage minimises
make.py     `flowjax make-shapes`
leaks.py    what of the benchmark is answered without its videos

`python -m experiments.train_shapes` trains both. pair/ holds them, with their model card.
"""

from pathlib import Path

PAIR = Path(__file__).parent / "pair"
"""Folder of the two checkpoints, `image` and `video`."""
