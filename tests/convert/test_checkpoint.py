"""Loading a converted model, and what is refused."""

import json
import shutil
import socket
import subprocess
import sys

import jax
import orbax.checkpoint as ocp
import pytest

from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax_benchmarks.synthetic import write_checkpoint
from flowjax_convert.run import convert
from tests.convert.checkpoints import edit_json
from tests.processes import environment

DOWN = "params/decoder.layers.down.kernel"


@pytest.fixture
def model(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "model")


def refused(path, *words):
    with pytest.raises(FlowjaxError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_directory_that_is_no_model(tmp_path, tiny):
    refused(tmp_path / "nowhere", "nowhere is not a directory")
    refused(tiny, "flowjax.json", "flowjax convert")


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_version(model, version):
    edit_json(model / "flowjax.json", lambda fields: fields.update(format=version))
    refused(model, "flowjax.json: format is", repr(version))


def test_a_damaged_manifest(model):
    edit_json(model / "flowjax.json", lambda fields: fields.update(surprise=1))
    refused(model, "field surprise is unknown")
    edit_json(model / "flowjax.json", lambda fields: [fields.pop(x) for x in ("surprise", "note")])
    refused(model, "field note is missing")
    (model / "flowjax.json").write_text("{")
    refused(model, "flowjax.json: not readable as JSON")


def test_an_unknown_family(model):
    edit_json(model / "flowjax.json", lambda fields: fields.update(family="other"))
    refused(model, "family 'other' does not exist", "pllava")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_side_file(model, name):
    (model / name).unlink()
    refused(model, name, "missing")


def test_missing_parameters(model):
    shutil.rmtree(model / "params")
    refused(model, "params is missing")
    (model / "params").mkdir()
    refused(model, "params", "missing")
    (model / "params" / "manifest.ocdbt").touch()
    refused(model, "params: not an Orbax checkpoint")


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("num_hidden_layers", 4, ("shape", "[3, 64]", "[4, 64]")),
        ("intermediate_size", 95, ("decoder/layers/", "95")),
        ("tie_word_embeddings", True, ("decoder/unembedding/kernel is unknown",)),
    ],
)
def test_parameters_that_do_not_fit_the_configuration(model, field, value, words):
    edit_json(model / "config.json", lambda fields: fields["text_config"].update({field: value}))
    refused(model, *words)


def test_a_parameter_that_is_not_there(model):
    metadata = model / "params" / "_METADATA"
    fields = json.loads(metadata.read_text())
    fields["tree_metadata"].pop("('decoder', 'layers', 'down', 'kernel')")
    metadata.write_text(json.dumps(fields))
    refused(model, "parameter decoder/layers/down/kernel is missing")


@pytest.mark.parametrize("damage", ["chunk", "array", "truncated"])
def test_a_damaged_array_is_never_read_as_zeros(model, damage):
    if damage == "chunk":
        (model / DOWN / "1.0.0").unlink()
    elif damage == "array":
        shutil.rmtree(model / DOWN)
    else:
        (model / DOWN / "1.0.0").write_bytes(b"short")
    refused(model, "params")


def test_a_mesh_with_other_axes(converted):
    mesh = jax.make_mesh((1,), ("batch",))
    with pytest.raises(FlowjaxError, match="data and model"):
        load_model(converted, mesh=mesh)


MESHES = """
import sys
import jax, numpy as np
from flax import nnx
from flowjax.models.checkpoint import load_model
from flowjax.models.sharding import parameter_sharding

def parameters(**options):
    model = load_model(sys.argv[1], **options).model
    leaves, _ = jax.tree.flatten_with_path(nnx.to_pure_dict(nnx.state(model)))
    heads = model.decoder.config.kv_heads
    return heads, {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}

assert len(jax.devices()) == 8
kv_heads, plain = parameters()
for shape in ((2, 4), (4, 2), (1, 8)):
    mesh = jax.make_mesh(shape, ("data", "model"))
    split = 0
    for name, leaf in parameters(mesh=mesh)[1].items():
        wanted = parameter_sharding(name, leaf.shape, mesh, kv_heads=kv_heads)
        assert leaf.sharding == wanted, name
        assert len(leaf.addressable_shards) == 8
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(plain[name])[shard.index])
        split += leaf.addressable_shards[0].data.size == leaf.size // shape[1]
    print(shape, split, len(plain))
    assert split > 15, split
"""


def test_restoring_onto_eight_devices(converted):
    """On 2x4, 4x2 and 1x8 meshes every device holds its part of every value."""
    result = subprocess.run(
        [sys.executable, "-c", MESHES, str(converted)],
        env=environment(devices=8),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3


PROCESS = """
import sys
import jax
from flax import nnx
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 4, int(sys.argv[3]))
from flowjax.models.checkpoint import load_model

def bytes_read():
    return int(open("/proc/self/io").readline().split()[1])

assert len(jax.devices()) == 8 and len(jax.local_devices()) == 2
before = bytes_read()
model = load_model(sys.argv[1], mesh=jax.make_mesh((1, 8), ("data", "model"))).model
read, share = bytes_read() - before, 0
for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model))):
    share += sum({str(part.index): part.data.nbytes for part in leaf.addressable_shards}.values())
print(read, share, file=open(sys.argv[4], "w"))  # gloo writes into standard output
"""


def test_each_process_reads_only_its_shards(tmp_path, tiny_config, pllava_oracle):
    """Four processes with two devices each read what these hold, and at most a tenth more."""
    text = tiny_config["text_config"] | {
        "hidden_size": 1024,
        "intermediate_size": 8192,
        "num_hidden_layers": 1,
        "vocab_size": 8192,
    }
    config = tiny_config | {"text_config": text, "vocab_size": 8192}
    write_checkpoint(tmp_path / "source", config, side_files=pllava_oracle)
    total = convert(tmp_path / "source", tmp_path / "out").bytes
    assert total > 150 * 10**6
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    counted = [tmp_path / f"bytes-{index}" for index in range(4)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, tmp_path / "out", str(port), str(index), path],
            env=environment(devices=2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, path in enumerate(counted)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert not any(process.returncode for process in processes), errors
    for path in counted:
        read, share = map(int, path.read_text().split())
        assert share < 0.3 * total
        assert read <= 1.1 * share


def test_what_jax_says_is_not_blamed_on_the_model(model, monkeypatch):
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointer, "restore", lambda *_: raised(full))
        refused(model, "params: no place for the parameters: RESOURCE_EXHAUSTED: Out of memory")
    absent = RuntimeError("Unable to initialize backend 'cuda': Backend 'cuda' is not in the list")
    for error, words in ((absent, str(absent)), (AssertionError(), "no such backend is installed")):
        with monkeypatch.context() as patch:
            patch.setenv("JAX_PLATFORMS", "cuda")
            patch.setattr(jax, "devices", lambda error=error: raised(error))
            refused(model, f"JAX cannot start with JAX_PLATFORMS=cuda: {words}")


def raised(error):
    raise error


def test_pointers_of_git_lfs_and_byte_order_marks(model):
    config = model / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    load_model(model, parameters=False)
    for name in ("tokenizer.json", "config.json", "flowjax.json"):
        (model / name).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
        )
        refused(model, f"{name} only points to a file that Git LFS has not fetched", "git lfs pull")
