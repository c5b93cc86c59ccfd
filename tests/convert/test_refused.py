"""Checkpoints that are refused, with the key, field or file in the message."""

import json
import math
import os
import re
import shutil

import pytest

from flowjax_convert.run import convert
from tests.convert.checkpoints import (
    edit_json,
    read_file,
    rewrite,
    shard,
    tensors_of,
    write_file,
    write_raw,
)

KEY = "language_model.model.layers.1.mlp.up_proj.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def weights(source):
    """The one weight file of `source`, no longer linked to the original."""
    path = source / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path


@pytest.fixture
def sharded(source, tiny):
    """`source` in three shards with an index."""
    shutil.rmtree(source)
    return shard(tiny, source, 3)


def test_a_key_of_every_kind_removed_renamed_or_reshaped(weights, refused):
    """In files; every key is tried in headers by the tests of the families."""
    tensors = tensors_of(weights)
    kinds = {re.sub(r"\d+", "N", key): key for key in tensors}
    assert len(kinds) > 30
    for key in kinds.values():
        dtype, shape, content = tensors[key]
        others = {name: tensor for name, tensor in tensors.items() if name != key}
        write_file(weights, others)
        refused(key)
        write_file(weights, others | {key + "_": (dtype, shape, content)})
        refused(key, key + "_")
        longer = [shape[0] + 1, *shape[1:]]
        size = math.prod(longer) * 4
        write_file(weights, others | {key: (dtype, longer, bytes(size))})
        refused(key, str(longer))


def test_transposed_tensors_do_not_fit(weights, refused):
    rewrite(weights, lambda tensors: tensors.update({KEY: (*_swapped(tensors[KEY]),)}))
    refused(KEY, "[64, 96]")


def _swapped(tensor):
    dtype, shape, content = tensor
    return dtype, shape[::-1], content


def test_a_pointer_of_git_lfs(weights, refused):
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused("model.safetensors only points to a file that Git LFS has not fetched", "git lfs pull")


def test_files_that_macos_leaves_are_not_looked_at(source, tmp_path):
    (source / "._model.safetensors").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    convert(source, tmp_path / "out")


def test_unknown_key(weights, refused):
    rewrite(weights, lambda tensors: tensors.update({"model.extra": ("F32", [1], b"\0" * 4)}))
    refused("model.extra is unknown")


def test_known_buffers_are_ignored(weights, tmp_path, source):
    extra = {
        "vision_tower.vision_model.embeddings.position_ids": ("I64", [1, 17], bytes(136)),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [4], bytes(16)),
        "image_newline": ("F32", [64], bytes(256)),
    }
    rewrite(weights, lambda tensors: tensors.update(extra))
    report = convert(source, tmp_path / "out")
    assert all(report.ignored[key] for key in extra)


def test_ignored_tensor_of_the_wrong_shape(weights, refused):
    rewrite(weights, lambda tensors: tensors.update(image_newline=("F32", [65], bytes(260))))
    refused("image_newline", "[65]", "[64]")


@pytest.mark.parametrize("dtype, size", [("I8", 1), ("F8_E4M3", 1), ("F64", 8), ("F4", 1)])
def test_dtype_that_is_not_read(weights, refused, dtype, size):
    count = 96 * 64
    rewrite(weights, lambda tensors: tensors.update({KEY: (dtype, [96, 64], bytes(count * size))}))
    refused(KEY, dtype)


def test_layers_of_different_dtypes(weights, tmp_path, source, refused):
    rewrite(weights, lambda t: t.update({KEY: ("BF16", [96, 64], bytes(96 * 64 * 2))}))
    refused(KEY, "BF16", "--dtype")
    convert(source, tmp_path / "out", dtype="float32")


def test_missing_shard(sharded, refused):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    refused("model-00002-of-00003.safetensors is missing", INDEX)


def test_missing_shard_without_index(sharded, refused):
    (sharded / INDEX).unlink()
    (sharded / "model-00003-of-00003.safetensors").unlink()
    refused("model-00003-of-00003.safetensors is missing")


def test_stray_shard(sharded, refused):
    shutil.copyfile(sharded / "model-00001-of-00003.safetensors", sharded / "model.safetensors")
    refused("model.safetensors is not named by", INDEX)


def test_every_key_duplicated_across_shards(sharded, refused):
    (sharded / INDEX).unlink()
    first, second = (sharded / f"model-0000{part}-of-00003.safetensors" for part in (1, 2))
    original, extra = tensors_of(second), tensors_of(first)
    for key in extra:
        write_file(second, original | {key: extra[key]})
        refused(key, first.name, second.name)


def test_key_duplicated_despite_an_index(sharded, refused):
    first, second = (sharded / f"model-0000{part}-of-00003.safetensors" for part in (1, 2))
    key, tensor = next(iter(tensors_of(first).items()))
    rewrite(second, lambda tensors: tensors.update({key: tensor}))
    refused(key, first.name, second.name)


def test_key_that_the_index_names_is_missing(sharded, refused):
    edit_json(
        sharded / INDEX,
        lambda fields: fields["weight_map"].update(ghost="model-00001-of-00003.safetensors"),
    )
    refused("model-00001-of-00003.safetensors", "ghost", INDEX)


def test_key_that_the_index_does_not_name(sharded, refused):
    edit_json(sharded / INDEX, lambda fields: fields["weight_map"].pop(KEY))
    refused(KEY, INDEX)


def test_key_in_another_shard_than_the_index_says(sharded, refused):
    swap = {"model-00001-of-00003.safetensors": "model-00002-of-00003.safetensors"}

    def move(fields):
        key = next(k for k, name in fields["weight_map"].items() if name in swap)
        fields["weight_map"][key] = swap[fields["weight_map"][key]]

    edit_json(sharded / INDEX, move)
    refused("model-00001-of-00003.safetensors", INDEX)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "", 3, ".."])
def test_index_that_leaves_its_directory(sharded, refused, name):
    edit_json(sharded / INDEX, lambda fields: fields["weight_map"].update({KEY: name}))
    refused(INDEX, KEY)


@pytest.mark.parametrize("weight_map", [None, {}, []])
def test_index_without_a_map(sharded, refused, weight_map):
    edit_json(sharded / INDEX, lambda fields: fields.update(weight_map=weight_map))
    refused(INDEX, "weight_map")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, -1])
def test_truncated_shard(sharded, refused, keep):
    path = sharded / "model-00002-of-00003.safetensors"
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if keep == 0.5 else size - 1 if keep < 0 else keep)
    refused(path.name)


def test_bytes_after_the_last_tensor(weights, refused):
    weights.write_bytes(weights.read_bytes() + b"\0")
    refused("model.safetensors", "1 bytes after")


def change_header(path, change) -> None:
    header, data = read_file(path)
    change(header)
    write_raw(path, json.dumps(header).encode(), data)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header[KEY].update(shape=[96, 65]),
        lambda header: header[KEY].update(shape=[-96, -64]),
        lambda header: header[KEY].update(shape=[96.0, 64]),
        lambda header: header[KEY].update(shape="96"),
        lambda header: header[KEY].update(data_offsets=[0, 24576]),
        lambda header: header[KEY].update(data_offsets=[10**18, 10**18 + 24576]),
        lambda header: header[KEY].update(data_offsets=[0]),
        lambda header: header[KEY].pop("dtype"),
        lambda header: header.update({KEY: 1}),
    ],
)
def test_inconsistent_header(weights, refused, change):
    change_header(weights, change)
    refused("model.safetensors")


@pytest.mark.parametrize("text", [b"{ ", b"[]", b"\xff\xff", b'{"a": 1, "a": 1}', b"[" * 5000])
def test_header_that_is_not_one(weights, refused, text):
    _, data = read_file(weights)
    write_raw(weights, text, data)
    refused("model.safetensors", "bad safetensors header")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.pt", "a.pth"])
def test_pickle_is_refused(weights, source, refused, name):
    weights.rename(source / name)
    refused(name, "safe_serialization=True")


def test_no_weights_at_all(weights, source, refused):
    weights.unlink()
    (source / "training_args.bin").touch()
    refused("source", "no *.safetensors")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_missing_or_damaged_side_file(source, refused, name):
    (source / name).write_text("{ no")
    refused(str(source / name))
    (source / name).write_text("[]")
    refused(str(source / name))
    (source / name).unlink()
    refused(str(source / name), "missing")


def test_tokenizer_of_a_larger_model(source, refused, tiny_config):
    def add(fields):
        token = fields["added_tokens"][0]
        fields["added_tokens"] += [token | {"id": 704 + i, "content": f"<{i}>"} for i in range(9)]

    edit_json(source / "tokenizer.json", add)
    refused("tokenizer.json", "704")


@pytest.mark.parametrize(
    "src", ["no/such/place", "nowhere", "./a/b", "", "a/b/c", "../no-such-checkpoint"]
)
def test_source_that_is_nothing(refused, src):
    refused(f"{src} is neither a directory nor the id of a hub repository", src=src)


def test_source_that_is_a_file(source, refused):
    refused("neither a directory", src=str(source / "config.json"))


def test_revision_of_a_directory(source, refused):
    refused("--revision", revision="main")


def test_pooling_shape_is_checked(source, refused):
    refused("pooling_shape", pooling_shape=(0, 2, 2))
