"""The shapes pair: an image model and the video model tuned from it, and their benchmark.

recipe.py   sizes, and how long each stage is trained
model.py    tokenizer, configuration, and writing a trained model as a checkpoint
batches.py  what the models are trained on
stages.py   what each stage minimises
make.py     `flowjax make-shapes`
leaks.py    what of the benchmark is answered without its videos
judge.py    accuracy of a trained pair, and the leaks, for its model card

`python -m experiments.train_shapes` trains both. No trained pair is shipped yet.
"""
