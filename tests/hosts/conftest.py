import pytest

from tests.experiments.answering import write_answering_model, write_benchmark
from tests.hosts.child_runs import run_all


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A model with fewer heads of keys than devices, and a benchmark, as folders.

    Devices sum up in another order. What becomes of that rounding grows with depth and sharpness;
    with 8 layers and a sharpness of 4, lens probabilities near 0.5 differ by 7e-5.
    """
    folder = tmp_path_factory.mktemp("hosts")
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 4}
    model = write_answering_model(folder / "answering", sharpness=1, **sizes)
    return model, write_benchmark(folder / "bench")


@pytest.fixture(scope="session")
def alone(inputs, tmp_path_factory):
    """The folder of an analysis of `child_runs`, run when it is asked for in one process."""
    out = tmp_path_factory.mktemp("alone")
    model, data = inputs

    def run(name):
        if not (out / name).exists():
            run_all(model, data, out, None, [name])
        return out / name

    return run
