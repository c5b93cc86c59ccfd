"""Prompts by a checkpoint's chat template, against what `transformers` renders."""

import dataclasses
import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.layout import encode_prompt
from flowjax.models.chat import chat_prompt, frame_of, read_chat_template
from flowjax.models.checkpoint import load_model
from flowjax.models.families.llava_qwen import TIMED
from flowjax.models.registry import families
from flowjax.runs.settings import model_settings
from flowjax_convert.run import convert
from tests.convert.checkpoints import edit_json, light_copy
from tests.oracle.conftest import ORACLE
from tests.test_open_questions import CASES, config_of, prompt_of

QWEN = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe brief."
    "<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for c in m.content %}{% if c.type == 'video' %}<|vision_start|><|video_pad|>"
    "<|vision_end|>{% elif 'text' in c %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_ONLY = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGES = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] | "
    "selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}{% for c in m['content']"
    " | selectattr('type', 'equalto', 'text') %}{% generation %}{{ c['text'] + ' ' }}"
    "{% endgeneration %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
VIDEOS = IMAGES.replace("image", "video")
SMOL = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}{% if m['content'][0]['type']"
    " == 'image' %}:{% else %}: {% endif %}{% for c in m['content'] %}{% if c['type'] == 'text' %}"
    "{{ c['text'] }}{% elif c['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>"
    "\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
BEFORE_QWEN = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
AFTER_QWEN = "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES = {
    "qwen2_5_vl": (QWEN, BEFORE_QWEN, "", AFTER_QWEN),
    "qwen3_vl": (QWEN, BEFORE_QWEN, "", AFTER_QWEN),
    "internvl": (TEXT_ONLY, "<s><|im_start|>user\n", "\n", AFTER_QWEN),
    "pllava": (IMAGES, "USER: ", "\n", " ASSISTANT:"),
    "llava_next_video": (VIDEOS, "USER: ", "\n", " ASSISTANT:"),
    # What the released processor writes after the frames is in no template.
    "smolvlm": (SMOL, "<|im_start|>User: ", "\n\n", "<end_of_utterance>\nAssistant:"),
}


def template_of(folder, source, **fields):
    fields |= {"chat_template": source, "bos_token": {"content": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return read_chat_template(folder)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes(name, tmp_path):
    source, before, between, after = TEMPLATES[name]
    template = template_of(tmp_path, source)
    shape = VideoShape(CASES[name][1], (0.0, 1.0))
    built = prompt_of(name, Question("What?", ()))
    frame = frame_of(template, built, shape)
    assert str(frame) == f"{before}<the video>{between}<the question>{after}"
    start, stop = frame.section
    video = built.text[start:stop]
    assert built.placeholder in video and video == video.strip()
    assert name != "internvl" or video == "<img><IMG_CONTEXT></img>"
    question = Question("Who runs?", ("A dog.", "A cat."), "B")
    text = chat_prompt(template, families()[name].prompt, "<s>")(config_of(name), question, shape)
    lines = "Question: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\nOnly give the best option."
    space = "" if after.endswith("\n") else " "
    assert text.text == (
        f"{before.removeprefix('<s>')}{video}{between}{lines}{after}{space}Best option:("
    )
    cells = {span.cell: text.text[span.start : span.stop] for span in text.spans}
    assert cells["question_stem"] == "Who runs?" and cells["option_B"] == "(B) A cat."
    assert text.videos == built.videos and text.grids == built.grids
    assert text.true_option == "option_B"
    covered = sum(span.stop - span.start for span in text.spans)
    assert covered + len(text.videos) * len(text.placeholder) == len(text.text)


def test_times_that_the_release_writes_after_the_video_stay(tmp_path):
    config = dataclasses.replace(config_of("llava_qwen"), conversation=TIMED)
    shape = VideoShape((2,), (0.0, 1.5), 3.25)
    family = families()["llava_qwen"]
    chat = chat_prompt(template_of(tmp_path, TEXT_ONLY), family.prompt, "<s>")
    ours, theirs = (
        prompt(config, Question("What?", ()), shape).text for prompt in (family.prompt, chat)
    )
    assert "located at 0.00s,1.50s." in theirs
    assert theirs == ours.replace(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", ""
    )


@pytest.mark.parametrize(
    "source", [QWEN, IMAGES, SMOL, "{{ tools is none and documents is none }}"]
)
def test_rendered_as_transformers_renders(source, tmp_path):
    content = [{"type": "image"}, {"type": "text", "text": "Who {{ runs }}?"}]
    conversation = [{"role": "user", "content": content}]
    (expected,), _ = render_jinja_template(
        [conversation], chat_template=source, add_generation_prompt=True
    )
    assert template_of(tmp_path, source).render(content) == expected


@pytest.mark.parametrize(
    "source, message",
    [
        ("{% for %}", "the chat template fails: "),
        ("{{ raise_exception('No users!') }}", "the chat template fails: No users!"),
        ("{{ messages.append(1) }}", "the chat template fails: access to attribute 'append'"),
        ("{{ ''.__class__.__mro__ }}", "the chat template fails: access to attribute '__class__'"),
        ("{{ 1 // 0 }}", "the chat template fails: "),
        ("Hello", "the chat template does not write a video and a question as they are"),
        ("{{ messages[0].content }}", "tokenizer_config.json"),
    ],
)
def test_templates_that_do_not_serve(source, message, tmp_path):
    template = template_of(tmp_path, source)
    built = prompt_of("llava_next_video", Question("What?", ()))
    shape = VideoShape((2,), (0.0, 1.0))
    if source == "{{ messages[0].content }}":  # a list is not text, but text is
        assert str(frame_of(template, built, shape)) == "<the video>\n<the question>"
        return
    with pytest.raises(FlowjaxError, match=message):
        frame_of(template, built, shape)


def test_where_a_template_may_be(tmp_path):
    assert read_chat_template(tmp_path) is None
    named = [{"name": "tool", "template": "no"}, {"name": "default", "template": "config"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert read_chat_template(tmp_path).source == "config"
    (tmp_path / "processor_config.json").write_text(json.dumps({"chat_template": "processor"}))
    assert read_chat_template(tmp_path).source == "processor"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert read_chat_template(tmp_path).source == "json"
    (tmp_path / "chat_template.jinja").write_text("own file")
    assert read_chat_template(tmp_path).source == "own file"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": 3}))
    with pytest.raises(FlowjaxError, match=r"chat_template\.json: chat_template must be text"):
        read_chat_template(tmp_path)


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """A checkpoint whose template begins with the day, converted for either prompt."""
    folder = tmp_path_factory.mktemp("dated")
    source = light_copy(ORACLE / "videollama3", folder / "source")
    system = "{{ '<|im_start|>system\\nToday is ' + strftime_now('%d %b %Y') + '.<|im_end|>\\n' }}"
    edit_json(
        source / "chat_template.json",
        lambda fields: fields.update(chat_template=system + fields["chat_template"]),
    )
    reports = [convert(source, folder / str(prompt), prompt=prompt) for prompt in (None, "chat")]
    return folder, reports


DAY = "<|im_start|>system\nToday is 26 Jul 2024.<|im_end|>\n"


def test_a_model_asked_by_its_checkpoint_s_template(dated):
    """The words around video and question are the template's, and the day is always the same."""
    folder, reports = dated
    loaded, plain = load_model(folder / "chat", parameters=False), families()["videollama3"]
    shape = VideoShape((2, 1, 1, 4, 48), (0.0, 1.0))
    question = Question("Who runs?", ("A dog.", "A cat."), "B")
    ours, other = (
        family.prompt(loaded.config, question, shape) for family in (loaded.family, plain)
    )
    assert ours.text == (
        f"{DAY}<|im_start|>user\nTime 0.0s:<image>,Time 1.0s:<image>\nQuestion: Who runs?\n"
        "Options:\n(A) A dog.\n(B) A cat.\nOnly give the best option.<|im_end|>\n"
        "<|im_start|>assistant\n"
        "Best option:("
    )
    assert ours.videos == other.videos and loaded.prompt == "chat"
    system = next(span for span in ours.spans if span.cell == "system")
    assert ours.text[: system.stop] == DAY + "<|im_start|>user\n"
    prompt = encode_prompt(ours, loaded.tokenizer)
    stem = prompt.layout.positions("question_stem")
    assert loaded.tokenizer.decode(list(prompt.ids[stem])).strip() == "Who runs?"
    for report in reports:
        assert "chat_template.json asks '<|im_start|>system\\nToday is 26 Jul 2024." in report.chat


def test_a_run_chooses_the_prompt(dated):
    """Whatever the model was converted for; a run's manifest says it, so that none is mixed."""
    folder, _ = dated
    reference, chat = (load_model(folder / name, parameters=False) for name in ("None", "chat"))
    shape, question = VideoShape((2, 1, 1, 4, 48), (0.0, 1.0)), Question("Who runs?", ())

    def text(loaded):
        return loaded.family.prompt(loaded.config, question, shape).text

    assert text(reference.asked_by("chat")) == text(chat) == DAY + text(reference)
    assert text(chat.asked_by("reference")) == text(reference)
    assert reference.asked_by(None) is reference and chat.asked_by("chat") is chat
    settings = [model_settings(loaded) for loaded in (chat, reference.asked_by("chat"))]
    assert settings[0]["prompt"] == settings[1]["prompt"] == "chat"
    assert "prompt" not in model_settings(chat.asked_by("reference"))
    with pytest.raises(FlowjaxError, match="prompt chats: choose reference or chat"):
        reference.asked_by("chats")


def test_chat_needs_a_template(tmp_path):
    source = ORACLE / "internvl"
    (copy := tmp_path / "source").mkdir()
    for file in source.iterdir():
        if file.name not in ("tokenizer_config.json", "chat_template.json"):
            (copy / file.name).symlink_to(file)
    with pytest.raises(FlowjaxError, match="has no chat template; leave out --prompt chat"):
        convert(copy, tmp_path / "out", prompt="chat")
    with pytest.raises(FlowjaxError, match="--prompt chats: only chat is another"):
        convert(source, tmp_path / "out", prompt="chats")
    assert not (tmp_path / "out").exists()
