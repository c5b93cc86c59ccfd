"""Questions and drills as the tokens that the shapes models are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Encoding, Tokenizer

from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.data.shapes import questions as ask
from flowjax.data.shapes.scene import MOST, Scene
from flowjax.models.families import pllava
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.train.packing import Segment

END = "</s>"
TRUE = "▁best"
"""What is learned to follow a true option, in place of the line's end."""


@dataclass(frozen=True)
class Texts:
    """Turns questions into tokens, as the model's prompt has them.

    length, text_length: positions of a packed sequence with a video, and of one without.
    verdict: weight of saying of every option of a question about a scene whether it is true.
    """

    tokenizer: Tokenizer
    config: VideoLLMConfig
    length: int
    text_length: int
    verdict: float

    @property
    def video_position(self) -> Int[np.ndarray, " video"]:
        """Where the video's embeddings go, in every sequence."""
        prefix = self.prefix
        return np.flatnonzero(prefix == self.config.placeholder).astype(np.int32)

    @property
    def prefix(self) -> Int[np.ndarray, " prefix"]:
        """The text before the video, and the video's positions."""
        ids = self._encode(Question("What?", ()), "")[1].ids
        before = ids[: ids.index(self.config.placeholder)]
        assert self.config.tokens_per_frame is not None
        video = self.config.frames * self.config.tokens_per_frame
        return np.array([*before, *[self.config.placeholder] * video], np.int32)

    def choice(self, question: Question, verdict: float = 0.0) -> Segment:
        """A multiple-choice question; the letter of its answer is learned.

        verdict: weight of the loss of saying after every option whether it is the true one.
        """
        assert question.answer is not None
        prompt, encoding = self._encode(question, question.answer)
        ids = np.array(encoding.ids, np.int32)
        wanted, learned = ids.copy(), np.zeros(len(ids), np.float32)
        learned[-1] = 1
        ends = [stop for _, stop in encoding.offsets]
        for span in prompt.spans:
            if verdict and span.cell.startswith("option_"):
                after = ends.index(span.stop) + 1
                learned[after] = verdict
                if span.cell == prompt.true_option:
                    wanted[after] = self._word(TRUE)
        return self._after_video(ids, wanted, learned)

    def open(self, stem: str, answer: str, weight: float = 1.0) -> Segment:
        """A question without options; its answer and the end token are learned."""
        question = Question(stem, ())
        asked = len(self._encode(question, "")[1])
        ids = np.array(self._encode(question, f" {answer}{END}")[1].ids, np.int32)
        learned = np.zeros(len(ids), np.float32)
        learned[asked:] = weight
        return self._after_video(ids, ids, learned)

    def drill(self, pool: Sequence[str], rng: np.random.Generator, verdict: float = 0.0) -> Segment:
        """A question that names one of its two to four options.

        It needs no video. A model that answers such questions has learned that options check
        themselves against the question and that the answer is the letter of the one that fits,
        which it learns much later where it must know the answer first.
        """
        count = min(len(pool), int(rng.integers(2, 5)))
        options = [pool[int(index)] for index in rng.permutation(len(pool))[:count]]
        stem = f"Which option is {options[0]}?"
        return self.choice(ask.multiple_choice(stem, options, options[0], rng), verdict)

    def words(
        self, scene: Scene, times: Float[np.ndarray, " times"], *, acts: bool
    ) -> tuple[Int[np.ndarray, " things"], Float[np.ndarray, "things times"]]:
        """A word for every thing, and when frames have told it.

        What it does if `acts` and it does something that leaves it in the frame; else its colour.
        """
        word, known = np.zeros(MOST, np.int32), np.zeros((MOST, len(times)), np.float32)
        for index, thing in enumerate(scene.things):
            begun = (times - thing.start) / (thing.stop - thing.start)
            if acts and (thing.moves or thing.motion in ("grow", "shrink", "appear")):
                text = thing.motion if thing.moves else ask.ACTS[thing.motion].removeprefix("it ")
                known[index] = begun > (0.5 if thing.motion == "appear" else 0.25)
            else:
                text, known[index] = thing.colour, 1
            word[index] = self._word(f"▁{text}")
        return word, known

    def _word(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found

    def _encode(self, question: Question, answer: str) -> tuple[Prompt, Encoding]:
        """The prompt and the tokens of it and an answer."""
        prompt = pllava.prompt(self.config, question, VideoShape((), ()))
        return prompt, self.tokenizer.encode(prompt.text + answer)

    def _after_video(
        self,
        ids: Int[np.ndarray, " n"],
        wanted: Int[np.ndarray, " n"],
        learned: Float[np.ndarray, " n"],
    ) -> Segment:
        """What comes after the video's placeholder."""
        start = int(np.flatnonzero(ids == self.config.placeholder)[0]) + 1
        return Segment(ids[start:], wanted[start:], learned[start:])
