"""All numbers of the recipe."""

from dataclasses import dataclass, field

from flowjax.train.schedule import Schedule

STAGES = ("text", "vision", "image", "motion", "video")
"""In order; each begins with the parameters that the one before it ends with."""


def _schedule(steps: int, peak: float, warmup: int) -> Schedule:
    return Schedule(steps=steps, peak=peak, warmup=warmup, decay=0.01, clip=1.0)


@dataclass(frozen=True)
class Recipe:
    """Sizes of the models, and how they are trained.

    grid: pooled tokens along a side of a frame.
    length, text_length: positions of a packed sequence with a video, and of one without.
    segments: questions of a packed sequence.
    vision_batch: frames of a step of the vision stage; batch: scenes of a step of the others.
    chunk: rows of attention computed at a time.
    alone: share of a stage's steps in which a scene has nothing but what is asked about.
    word_weight: of the loss of saying at a video token what lies there (0: none).
    verdict_weight: of the loss of saying after an option whether it is the true one (0: none).
    motion_layer: decoder layers after which video tokens are to tell what happens to their things.
    motion_weight: of that loss in the video stage, beside the mean loss of the text's tokens.
    ask_every: in the motion stage, every so many steps questions are asked too.
    save_every, log_every: steps.
    """

    frames: int = 8
    image_size: int = 48
    patch_size: int = 6
    grid: int = 4
    vision_width: int = 96
    vision_layers: int = 3
    width: int = 96
    mlp_width: int = 256
    layers: int = 8
    heads: int = 4
    length: int = 344
    text_length: int = 288
    segments: int = 8
    vision_batch: int = 96
    batch: int = 16
    chunk: int = 96
    text: Schedule = field(default_factory=lambda: _schedule(1000, 2e-3, 100))
    vision: Schedule = field(default_factory=lambda: _schedule(4500, 2e-3, 100))
    image: Schedule = field(default_factory=lambda: _schedule(3000, 1.5e-3, 100))
    motion: Schedule = field(default_factory=lambda: _schedule(1200, 2.5e-3, 50))
    video: Schedule = field(default_factory=lambda: _schedule(2726, 1.5e-3, 300))
    alone: float = 0.25
    word_weight: float = 0.1
    verdict_weight: float = 0.5
    motion_layer: int = 4
    motion_weight: float = 0.3
    ask_every: int = 4
    save_every: int = 250
    log_every: int = 25

    def schedule(self, stage: str) -> Schedule:
        """Of one of `STAGES`."""
        schedules = (self.text, self.vision, self.image, self.motion, self.video)
        return schedules[STAGES.index(stage)]
