"""The recipe of the shapes pair, with a tiny model and two steps per stage."""

import json
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.asked.asked import ask_sample
from flowjax.data.encode import write_mp4
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.data.shapes.benchmark import FPS, FRAMES, SIZE
from flowjax.data.shapes.paint import frames
from flowjax.data.shapes.scene import Scene, Thing, tracks
from flowjax.data.shapes.world import COLOURS, SHAPES
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.train.schedule import Schedule
from flowjax.train.toml import read_toml
from flowjax_convert.run import convert
from flowjax_experiments.shapes import PAIR
from flowjax_experiments.shapes.batches import (
    MIX,
    draw_drills,
    draw_examples,
    draw_frames,
    frame_times,
    pixel_values,
)
from flowjax_experiments.shapes.configured import SHIPPED, Configured
from flowjax_experiments.shapes.controls import CONTROLS, MAIN, Control, controlled, repeated
from flowjax_experiments.shapes.leaks import Asked, Probe
from flowjax_experiments.shapes.model import MEAN, STD, fresh_model, model_config, shapes_tokenizer
from flowjax_experiments.shapes.recipe import STAGES, Recipe
from flowjax_experiments.shapes.targets import (
    MOTIONS,
    dense_targets,
    motion_targets,
    motions,
    shares,
)
from flowjax_experiments.shapes.texts import TRUE, Texts
from flowjax_experiments.train import run as train
from flowjax_experiments.train_shapes import Means, Trainer, run


def schedule(steps=2):
    return Schedule(steps=steps, peak=1e-3, warmup=1, decay=0.01, clip=1.0)


TINY = Recipe(
    image_size=24, vision_width=16, vision_layers=1, width=32, mlp_width=32, layers=2, heads=2,
    vision_batch=16, batch=2, save_every=1, log_every=1, motion_layer=1, ask_every=2,
    text=schedule(), vision=schedule(), image=schedule(), motion=schedule(), video=schedule(),
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return shapes_tokenizer()


def test_the_shipped_configuration_is_the_recipe():
    given = read_toml(SHIPPED, Configured)
    recorded = json.loads((PAIR / "training" / "recipe.json").read_text())
    assert given.numbers == Recipe()
    assert (given.seed, given.control) == (recorded["seed"], recorded["control"])
    for stage in STAGES:
        written = asdict(given.numbers.schedule(stage))
        assert {name: written[name] for name in recorded[stage]} == recorded[stage]


@pytest.mark.slow
def test_a_configuration_trains_the_recipe(tmp_path):
    numbers = "\n".join(
        f"{name} = {value}" for name, value in asdict(TINY).items() if not isinstance(value, dict)
    )
    two = "steps = 2\npeak = 1e-3\nwarmup = 1\ndecay = 0.01\nclip = 1\n"
    stages = "".join(f"[numbers.{stage}]\n{two}" for stage in STAGES)
    head = 'recipe = "shapes"\nout = "run"\nseed = 3\n[numbers]\n'
    (tmp_path / "tiny.toml").write_text(head + numbers + "\n" + stages)
    assert train(tmp_path / "tiny.toml", stop_at=1) is None
    done = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert done == json.loads(json.dumps(asdict(TINY) | {"seed": 3, "control": "main"}))
    assert len((tmp_path / "run" / "text" / "log.jsonl").read_text().splitlines()) == 1
    for before, after, said in (
        ('"shapes"', '"shape"', "recipe is 'shape'; 'shapes' is the only one"),
        ("seed = 3", 'control = "none"', "control is 'none'; choose main"),
        ("width = 32", "widht = 32", r"numbers\.widht is unknown"),
    ):
        (tmp_path / "bad.toml").write_text((head + numbers).replace(before, after, 1))
        with pytest.raises(FlowjaxError, match=said):
            train(tmp_path / "bad.toml")


def texts_of(recipe, tokenizer, config=None):
    config = config or model_config(recipe, tokenizer)
    return Texts(tokenizer, config, recipe.length, recipe.text_length, recipe.verdict_weight)


@pytest.fixture(scope="module")
def texts(tokenizer):
    return texts_of(Recipe(), tokenizer)


def scene():
    moving = Thing("red", "circle", "left", 0.5, 0.25, 0.12, 0.4, 0.0, 1.0)
    still = Thing("blue", "square", "still", 0.2, 0.8, 0.1, 0.3, 0.0, 1.0)
    return Scene((moving, still), ("grey",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    return folder, run(folder, seed=3, recipe=TINY)


@pytest.mark.slow
def test_every_stage_trains_and_both_models_convert(trained, tmp_path):
    folder, finished = trained
    assert tuple(finished) == STAGES
    for stage in STAGES:
        lines = (folder / stage / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2]
    for name in ("image", "video"):
        convert(folder / f"{name}-model", tmp_path / name)
        loaded = load_model(tmp_path / name)
        assert loaded.model.dtype == jnp.bfloat16
        expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), finished[name])
        found = nnx.to_pure_dict(nnx.state(loaded.model))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    changed = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), finished["image"], finished["video"]
    )
    assert max(jax.tree.leaves(changed)) > 0


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_alike(trained, tmp_path):
    _, finished = trained
    run(tmp_path, seed=3, recipe=TINY, stop_at=1)
    assert not (tmp_path / "image").exists(), "stopped in the first stage"
    resumed = run(tmp_path, seed=3, recipe=TINY)
    jax.tree.map(np.testing.assert_array_equal, resumed["video"], finished["video"])


@pytest.mark.slow
def test_a_trained_question_is_the_prompt_that_is_asked(trained, tmp_path):
    """Token for token, with the video's positions in the same places."""
    convert(trained[0] / "video-model", tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    texts = texts_of(TINY, loaded.tokenizer, loaded.config)
    question = Question("In which direction does the red circle move?", ("left", "right"), "A")
    write_mp4(tmp_path / "v.mp4", frames(scene(), FRAMES, SIZE), FPS)
    prepared = ask_sample(loaded, Sample("s", "t", tmp_path / "v.mp4", question))
    ids = [*texts.prefix, *texts.choice(question).ids]
    assert ids[:-1] == prepared.prompt.ids.tolist()
    assert ids[-1] == prepared.true_id
    np.testing.assert_array_equal(texts.video_position, prepared.prompt.video_position)


@pytest.mark.slow
def test_trained_frames_are_those_that_a_model_is_shown(trained, tmp_path):
    """But for noise and H.264; times, sizes and normalisation agree."""
    convert(trained[0] / "video-model", tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    write_mp4(tmp_path / "v.mp4", frames(scene(), FRAMES, SIZE), FPS)
    question = Question("What?", ("a", "b"), "A")
    shown = ask_sample(loaded, Sample("s", "t", tmp_path / "v.mp4", question)).pixel_values
    batch = jax.tree.map(lambda leaf: leaf[None], tracks(scene(), frame_times(8)))
    made = pixel_values(batch, jax.random.key(0), TINY.image_size, MEAN, STD)[0]
    assert made.shape == shown.shape
    difference = [float(np.abs(made - order).mean()) for order in (shown, shown[::-1])]
    assert difference[0] < 0.1, "the noise alone makes 0.05"
    assert difference[1] > difference[0] + 0.04


def test_dense_targets_say_what_lies_where():
    where = tracks(scene(), np.array([0.0, 1.0], np.float32))
    share = np.asarray(shares(where, 3))
    np.testing.assert_allclose(share[:2].sum(-1), 1, atol=1e-5)
    assert share[0, 0].argmax() in (1, 2) and share[0, 1].argmax() in (0, 1)
    assert share[1, 0].argmax() == 6 and not share[2:].any()
    targets = dense_targets(where, 3)
    looks = [colour + shape for colour in COLOURS for shape in SHAPES]
    kinds = np.asarray(targets.thing[0]).sum(0)
    assert {looks[index] for index in np.flatnonzero(kinds)} == {"redcircle", "bluesquare"}
    corner = np.asarray(targets.place[0, 6])
    np.testing.assert_allclose(corner, [0.2, 0.8, 0.1, 1], atol=1e-6)
    assert targets.background.tolist() == [2, 2]


def test_motion_targets_follow_the_thing():
    """Red moves left from the middle of the right half; its cell tells so once it has begun."""
    times = np.array([0.0, 0.1, 0.5, 1.0], np.float32)
    found = motion_targets(tracks(scene(), times), motions(scene(), times), 4)
    share = np.asarray(shares(tracks(scene(), times), 4))
    where = [4 * 4 * time + int(share[0, time].argmax()) for time in range(4)]
    assert [bool(found.moved[at]) for at in where] == [False, False, True, True]
    assert all(MOTIONS[int(found.motion[at])] == "left" for at in where[2:])
    assert [int(found.state[at]) for at in where[:1] + where[2:3]] == [0, 1]
    blue = 16 * 3 + int(share[1, 3].argmax())
    assert not found.moved[blue] and found.staged[blue] and found.state[blue] == 0
    after = motions(scene(), times)
    assert after.kind.tolist() == [MOTIONS.index("left"), -1, -1, -1] and after.ground == 2


def test_a_control_changes_what_its_name_says(texts):
    recipe = Recipe()

    def of(control, stage, step, seed=0):
        examples = draw_examples(texts, "video", 3, seed=seed, step=step, alone=False)
        return examples, *controlled(examples, control, recipe, stage, step)

    drawn, examples, wanted = of(MAIN, "motion", 0)
    assert examples.packed is None and wanted.motion.tolist() == [1, 1, 1]
    assert wanted.layer.tolist() == [recipe.motion_layer] * 3 and not wanted.hide.any()
    drawn, examples, wanted = of(MAIN, "motion", recipe.ask_every - 1)
    assert examples.packed is drawn.packed and wanted.motion.tolist() == [1, 1, 1]
    _, _, wanted = of(MAIN, "video", 0)
    np.testing.assert_allclose(wanted.motion, recipe.motion_weight)
    _, _, wanted = of(Control("x", kept=False), "video", 0)
    assert not wanted.motion.any()
    _, _, wanted = of(Control("x", layer=2, hide=1.0), "video", 0)
    assert wanted.layer.tolist() == [2, 2, 2] and wanted.hide.all()
    drawn, examples, _ = of(Control("x", shuffled=True), "motion", 0)
    np.testing.assert_array_equal(examples.motions.kind, drawn.motions.kind[[2, 0, 1]])
    still = draw_examples(texts, "image", 2, seed=0, step=3, alone=False)
    often = repeated(still, 8)
    jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail(f"{a.shape}"), *(
        (one.scenes, one.known, one.motions)
        for one in (often, draw_examples(texts, "video", 2, seed=0, step=3, alone=False))
    ))  # fmt: skip
    assert len({control.name for control in CONTROLS}) == len(CONTROLS)


@pytest.mark.slow
def test_controls_side_by_side_are_those_alone(trained, tmp_path):
    _, finished = trained
    trainer = Trainer(tmp_path, 3, TINY, Means(micro=2, remat=False))
    controls, image = (MAIN, Control("shuffled", shuffled=True, seed=1)), finished["image"]
    starts = [trainer.start(image, control) for control in controls]
    for stage in ("motion", "video"):
        starts = trainer.tune(stage, image, starts, controls)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
        starts[0]["decoder"],
        finished["video"]["decoder"],
    )


def test_words_are_known_once_frames_tell_them(texts):
    word, known = texts.words(scene(), np.linspace(0, 1, 5, dtype=np.float32), acts=True)
    names = [texts.tokenizer.id_to_token(int(token)) for token in word[:2]]
    assert names == ["▁left", "▁blue"]
    assert known[0].tolist() == [0, 0, 1, 1, 1] and known[1].tolist() == [1] * 5
    word, _ = texts.words(scene(), np.zeros(1, np.float32), acts=False)
    assert texts.tokenizer.id_to_token(int(word[0])) == "▁red"


@pytest.mark.parametrize("stage", list(MIX))
def test_batches_follow_from_the_step_and_hold_answers(texts, stage):
    make = [draw_examples(texts, stage, 3, seed=1, step=step, alone=False) for step in (4, 4, 5)]
    jax.tree.map(np.testing.assert_array_equal, make[0], make[1])
    packed, other = make[0].packed, make[2].packed
    assert packed is not None and other is not None and (packed.ids != other.ids).any()
    for ids, segment, weight, target in zip(
        packed.ids, packed.segment, packed.weight, packed.target, strict=True
    ):
        assert segment.max() >= 4
        for number in range(1, segment.max() + 1):
            learned = np.flatnonzero((segment == number) & (weight > 0))
            text = texts.tokenizer.decode(ids[segment == number].tolist())
            if "Options:" in text:
                assert texts.tokenizer.id_to_token(int(target[learned[-1]])) in "ABCD"
                verdicts = [texts.tokenizer.id_to_token(int(target[at])) for at in learned[:-1]]
                assert verdicts.count(TRUE) == 1 and len(verdicts) == text.count("\n(")
            else:
                assert texts.tokenizer.id_to_token(int(target[learned[-1]])) == "</s>"


def test_options_are_told_from_the_true_one(texts):
    question = Question("In which direction does it move?", ("left", "right", "up"), "B")
    ids, wanted, learned, _ = texts.choice(question, verdict=0.5)
    names = [texts.tokenizer.id_to_token(int(token)) for token in ids]
    after = [names.index(option) + 1 for option in ("▁left", "▁right", "▁up")]
    assert np.flatnonzero(learned == 0.5).tolist() == after
    assert texts.tokenizer.id_to_token(int(wanted[after[1]])) == TRUE
    wanted[after[1]] = ids[after[1]]
    np.testing.assert_array_equal(wanted, ids)
    assert learned[-1] == 1 and names[-1] == "B" and learned.sum() == 2.5
    assert texts.choice(question).learned.sum() == 1


def test_drills_name_their_answer(texts):
    packed = draw_drills(texts, 2, seed=0, step=0)
    assert not (packed.ids == texts.config.placeholder).any()
    for ids, segment, target, weight in zip(
        packed.ids, packed.segment, packed.target, packed.weight, strict=True
    ):
        for number in range(1, segment.max() + 1):
            own = segment == number
            text = texts.tokenizer.decode(ids[own].tolist())
            named = text.split("Which option is ")[1].split("?")[0]
            letter = texts.tokenizer.id_to_token(int(target[own & (weight > 0)][0]))
            assert f"({letter}) {named}" in text


def test_single_frames_have_one_time():
    batch = draw_frames(5, seed=0, step=0, alone=False)
    assert batch.x.shape == (5, 4, 1) and batch.background.shape == (5, 1, 3)


def test_blocks_begin_small_beside_the_embeddings(tokenizer):
    model = fresh_model(model_config(TINY, tokenizer), 0)
    assert float(model.decoder.embedding.embedding[...].std()) == pytest.approx(0.5, rel=0.05)
    kernels = model.decoder.layers.down.kernel[...], model.decoder.layers.up.kernel[...]
    assert float(kernels[0].std() / kernels[1].std()) == pytest.approx(0.5, rel=0.1)


def test_a_probe_scores_only_options_that_there_are():
    words = 6
    probe = Probe(words, nnx.Rngs(0))
    asked = Asked(
        np.ones(words, np.float32),
        np.ones((4, words), np.float32),
        np.array(2),
        np.array(0),
        np.zeros((48, 48, 3), np.float32),
    )
    scores = np.asarray(probe(asked))
    assert np.isfinite(scores[:2]).all() and np.isneginf(scores[2:]).all()
