"""A sweep over many samples in a process of its own, to be killed by a test.

python child_sweep.py MODEL CLIPS OUT SAMPLES
"""

import sys
from pathlib import Path

from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.models.checkpoint import load_model
from flowjax.runs.run import analyse
from flowjax_experiments.sweep import Sweep

COLOURS = ["red", "green", "blue", "white", "black"]


def main(model: str, clips: str, out: str, count: str) -> None:
    videos = sorted(Path(clips).glob("*.mp4"))
    samples = [
        Sample(
            f"sample {index}",
            "task",
            videos[index % len(videos)],
            Question(
                "What colour is " + "very " * (index % 7) + "large?",
                tuple(COLOURS[(index + offset) % 5] for offset in range(2 + index % 3)),
                "AB"[index % 2],
            ),
        )
        for index in range(int(count))
    ]
    asked = Sweep(("cross-frame", "vql-to-ql"), window=3)
    analyse(asked, load_model(model), samples, Path(out), chosen="all")


if __name__ == "__main__":
    main(*sys.argv[1:])
