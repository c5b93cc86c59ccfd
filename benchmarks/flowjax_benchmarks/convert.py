"""Speed and memory of `flowjax convert`, beside a plain copy of the same bytes.

    python -m flowjax_benchmarks.convert --gigabytes 4 --json benchmarks/results/convert-cpu.json

Each measurement is a process of its own. Pages of the checkpoint are dropped from the system's
cache before each, and both bring all they write to the disk before the clock stops.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from flowjax.folders import sync
from flowjax.platforms import skip_absent_tpu
from flowjax_benchmarks.synthetic import write_checkpoint

SIDE_FILES = Path(__file__).parents[2] / "tests/oracle/data/pllava"
PACKAGES = ("jax", "orbax-checkpoint", "tensorstore", "numpy", "huggingface_hub")
LAYER_BYTES = 2 * (4 * 4096**2 + 3 * 4096 * 11008)
OTHER_BYTES = 2 * (2 * 32064 * 4096 + 325_000_000)


@dataclass(frozen=True)
class Measurement:
    """One process's work.

    peak_rss_mib: resident memory, mapped pages of the checkpoint included.
    peak_anonymous_mib: of that, memory that is not backed by a file.
    base_anonymous_mib: the same before the work began (the imported libraries).
    """

    seconds: float
    gb_per_s: float
    peak_rss_mib: float
    peak_anonymous_mib: float
    base_anonymous_mib: float


def config(layers: int) -> dict:
    """Widths of the published 7B model, with this many decoder layers."""
    return {
        "model_type": "llava",
        "image_token_index": 32000,
        "frame_shape": [24, 24],
        "pooling_shape": [8, 12, 12],
        "num_frames": 8,
        "text_config": {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_attention_heads": 32,
            "num_hidden_layers": layers,
            "vocab_size": 32064,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "image_size": 336,
            "patch_size": 14,
        },
    }


def copy(src: Path, out: Path) -> None:
    """A plain copy, on the disk when it returns."""
    shutil.copytree(src, out)
    sync(out)


def convert_checkpoint(src: Path, out: Path) -> None:
    """The conversion; imported here so that the copy's process stays small."""
    from flowjax_convert.run import convert  # noqa: PLC0415

    convert(src, out)


def measure(work: Callable[[Path, Path], None], src: Path, out: Path) -> Measurement:
    """Run `work` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    drop_cache(src)
    process = context.Process(target=_measured, args=(sender, work, src, out))
    process.start()
    sender.close()
    measurement = receiver.recv()
    process.join()
    return measurement


def drop_cache(directory: Path) -> None:
    """Make the next reader of these files read the disk."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def memory() -> dict[str, float]:
    """MiB of this process's resident memory, by the names in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}


def _measured(
    sender: Connection,
    work: Callable[[Path, Path], None],
    src: Path,
    out: Path,
) -> None:
    if work is convert_checkpoint:
        import flowjax_convert.run  # noqa: F401, PLC0415 - importing is not part of the time
    done, samples = threading.Event(), [memory()]

    def sample() -> None:
        while not done.wait(0.01):
            samples.append(memory())

    sampler = threading.Thread(target=sample)
    sampler.start()
    start = time.perf_counter()
    try:
        work(src, out)
        seconds = time.perf_counter() - start
    finally:
        done.set()
        sampler.join()
    size = sum(path.stat().st_size for path in src.glob("*.safetensors"))
    sender.send(
        Measurement(
            seconds=round(seconds, 3),
            gb_per_s=round(size / seconds / 1e9, 4),
            peak_rss_mib=round(max(sample["VmRSS"] for sample in samples), 1),
            peak_anonymous_mib=round(max(sample["RssAnon"] for sample in samples), 1),
            base_anonymous_mib=round(samples[0]["RssAnon"], 1),
        )
    )


def main() -> None:
    """Make the checkpoint, measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="an empty place with room for three copies")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    layers = max(1, -(-int(options.gigabytes * 1e9 - OTHER_BYTES) // LAYER_BYTES))
    load = os.getloadavg()[0]
    runs: dict[str, list[Measurement]] = {"copy": [], "convert": []}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        src = Path(scratch, "checkpoint")
        write_checkpoint(
            src, config(layers), side_files=SIDE_FILES, dtype="BF16", shards=options.shards
        )
        size = sum(path.stat().st_size for path in src.glob("*.safetensors"))
        for _ in range(options.repeat):
            for name, work in (("copy", copy), ("convert", convert_checkpoint)):
                out = Path(scratch, name)
                runs[name].append(measure(work, src, out))
                shutil.rmtree(out)
                print(name, asdict(runs[name][-1]), file=sys.stderr, flush=True)
    best = {name: max(run.gb_per_s for run in of_name) for name, of_name in runs.items()}
    results = {
        "command": f"python -m flowjax_benchmarks.convert {' '.join(sys.argv[1:])}".strip(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_average_before": round(load, 2),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        },
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "checkpoint": {
            "bytes": size,
            "shards": options.shards,
            "decoder_layers": layers,
            "largest_tensor_bytes": 2 * 32064 * 4096,
        },
        "runs": {name: [asdict(run) for run in of_name] for name, of_name in runs.items()},
        "best_gb_per_s": best,
        "convert_to_copy": round(best["convert"] / best["copy"], 3),
        "peak_anonymous_mib": max(run.peak_anonymous_mib for run in runs["convert"]),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


if __name__ == "__main__":
    skip_absent_tpu()
    main()
