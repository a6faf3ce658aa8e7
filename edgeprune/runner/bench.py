"""Times model files on the machine it runs on and prints one JSON document. Stands alone: copy it to a device.

    python bench.py --runtime tflite --model model.tflite --threads 1 --min-runs 200 --min-time 1.0

Needs numpy and one of ai-edge-litert, tflite-runtime, onnxruntime, openvino. Several --model options are timed in
turns, so that they meet the same state of the machine. A --reference is another file of the same runtime, run between
stretches of the model: its times say how fast the machine was meanwhile. Exit status 7: the runtime is not installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCHEMA = "edgeprune.bench/1"
EXIT_NO_RUNTIME = 7
WARM_UP_S, WARM_UP_CAP_S, WARM_UP_RUNS, SETTLED = 0.5, 10.0, 5, 0.02
SLICE_S = 0.1
TURN_S = 0.02  # one model's turn when several are timed
REFERENCE_TURN_S = 0.03  # the reference's turn, and the shortest of the model beside it

Array = Any
Call = Callable[[], Any]


class Loaded(NamedTuple):
    """A model that is ready: one inference, the precision it runs in (asked for after the timing), its answers."""

    call: Call
    precision: Callable[[], str]
    outputs: Callable[[], list[Array]]


def load_tflite(path: str, threads: int, samples: Array | None, delegates: bool = True) -> Loaded:
    module = _tflite_module()
    more = {}
    if not delegates:
        more["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = module.Interpreter(model_path=path, num_threads=threads, **more)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    shape, kind = tuple(source["shape"]), np.dtype(source["dtype"])
    values = samples
    if values is not None and values.ndim == 4 and values.shape[1:] != shape[1:]:
        values = values.transpose(0, 2, 3, 1)
    if values is None:
        values = _noise(shape, kind)
    elif kind.kind != "f":
        scale, zero = source["quantization"]
        limits = np.iinfo(kind)
        values = np.clip(np.round(values / (scale or 1)) + zero, limits.min, limits.max)
    interpreter.set_tensor(source["index"], np.ascontiguousarray(values[:1].astype(kind)))
    weights = [entry["dtype"] for entry in interpreter.get_tensor_details() if len(entry["shape"]) >= 2]
    answers = [entry["index"] for entry in interpreter.get_output_details()]
    return Loaded(
        interpreter.invoke,
        lambda: "int8" if np.int8 in weights else "fp32",
        lambda: [interpreter.get_tensor(index) for index in answers],
    )


def load_onnxruntime(path: str, threads: int, samples: Array | None) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in source.shape)
    kinds = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
    kind = np.dtype(kinds.get(source.type, "float32"))
    values = _noise(shape, kind) if samples is None else samples[:1].astype(kind)
    feed = {source.name: np.ascontiguousarray(values)}
    return Loaded(lambda: session.run(None, feed), lambda: _onnx_precision(path), lambda: list(session.run(None, feed)))


def _onnx_precision(path: str) -> str:
    """Int8 when integer kernels survive the runtime's own fusion; operator names are plain text in the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        data = optimized.read_bytes()
    return "int8" if any(name in data for name in (b"QLinearConv", b"QGemm", b"QLinearMatMul")) else "fp32"


def load_openvino(path: str, threads: int, samples: Array | None) -> Loaded:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    request = compiled.create_infer_request()
    port = compiled.input(0)
    shape = tuple(1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    values = _noise(shape, np.dtype("float32")) if samples is None else samples[:1].astype("float32")
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(values)))
    return Loaded(
        request.infer,
        lambda: _openvino_precision(compiled),
        lambda: [np.array(request.get_output_tensor(index).data) for index in range(len(compiled.outputs))],
    )


def _openvino_precision(compiled: Any) -> str:
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if str(info["layerType"].astype(str)) in ("Convolution", "FullyConnected", "MatMul", "Deconvolution"):
            found.append(str(info["runtimePrecision"].astype(str)))
    main = statistics.mode(found) if found else "f32"
    return {"u8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16"}.get(main, main)


LOADERS = {"tflite": load_tflite, "onnxruntime": load_onnxruntime, "openvino": load_openvino}


def _tflite_module() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        from tflite_runtime import interpreter
    return interpreter


def runtime_version(runtime: str) -> str:
    """Imports the runtime and nothing else; its version as the package states it."""
    if runtime == "tflite":
        _tflite_module()
    else:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it reports to its vendor
        __import__(runtime)
    return installed_version(runtime)


def installed_version(runtime: str) -> str:
    """Package and version that are installed, without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    for name in ("ai-edge-litert", "tflite-runtime") if runtime == "tflite" else (runtime,):
        try:
            return name + " " + version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _noise(shape: tuple[int, ...], kind: Any) -> Array:
    generator = np.random.default_rng(0)
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max + 1, shape).astype(kind)


def peak_rss_bytes() -> int:
    """High-water mark of this process alone: unlike getrusage's it does not begin with that of its parent."""
    lines = _read("/proc/self/status").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def empty_rss_bytes(runtime: str) -> int:
    """Peak memory of a fresh process that imports the runtime and loads no model."""
    command = [sys.executable, str(Path(__file__).resolve()), "--runtime", runtime, "--empty"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return int(json.loads(done.stdout)["peak_rss_bytes"])


def machine_state() -> dict[str, str]:
    """Clock, governor, temperature, load and throttling, as far as the system tells."""
    state = {"load": " ".join(f"{value:.2f}" for value in os.getloadavg())}
    cpus = Path("/sys/devices/system/cpu")
    clocks = [int(_read(file)) / 1000 for file in cpus.glob("cpu*/cpufreq/scaling_cur_freq")]
    lines = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("cpu MHz")]
    clocks = clocks or [float(line.split(":")[1]) for line in lines]
    if clocks:
        state["clock_mhz"] = f"{max(clocks):.0f}"
    governors = sorted({_read(file) for file in cpus.glob("cpu*/cpufreq/scaling_governor")})
    if governors:
        state["governor"] = ",".join(governors)
    heat = [_read(file) for file in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in heat if text.lstrip("-").isdigit()]
    if degrees:
        state["temperature_c"] = f"{max(degrees):.1f}"
    if shutil.which("vcgencmd"):
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, timeout=10, check=False)
        state["throttled"] = done.stdout.decode(errors="replace").strip()
    return state


def cpu_name() -> str:
    lines = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return lines[0].split(":", 1)[1].strip() if lines else platform.machine()


def _read(file: str | Path) -> str:
    """The text of a file of the system; empty where there is none."""
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""


def warm_up(call: Call) -> dict[str, Any]:
    """At least 0.5 s and 5 runs, until the medians of two consecutive windows agree within 2 %, at most 10 s."""
    begin = time.perf_counter()
    window: list[int] = []
    last, runs, settled = 0.0, 0, False
    while True:
        window.append(timed(call))
        runs += 1
        elapsed = time.perf_counter() - begin
        if elapsed > WARM_UP_CAP_S:
            break
        if len(window) >= WARM_UP_RUNS and sum(window) >= 1e8:
            median = statistics.median(window)
            settled = last > 0 and abs(median / last - 1) <= SETTLED
            last, window = median, []
            if settled and elapsed >= WARM_UP_S and runs >= WARM_UP_RUNS:
                break
    return {"runs": runs, "seconds": round(time.perf_counter() - begin, 3), "settled": settled}


def timed(call: Call) -> int:
    begin = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin


def measure(call: Call, min_runs: int, min_time_s: float, max_time_s: float) -> tuple[list[int], list[list[float]]]:
    """Nanoseconds of every run, and (runs, CPUs used by others) of every slice of about a tenth of a second.

    At least `min_runs` and `min_time_s`, whatever happens no longer than the cap.
    """
    samples: list[int] = []
    slices: list[list[float]] = []
    begin = slice_begin = time.perf_counter()
    counted, busy, own = 0, busy_s(), time.process_time()
    while True:
        samples.append(timed(call))
        now = time.perf_counter()
        done = (len(samples) >= min_runs and now - begin >= min_time_s) or now - begin > max_time_s
        if now - slice_begin >= SLICE_S or done:
            new_busy, new_own = busy_s(), time.process_time()
            others = max(0.0, (new_busy - busy) - (new_own - own)) / max(now - slice_begin, SLICE_S)
            slices.append([len(samples) - counted, round(others, 3)])
            counted, busy, own, slice_begin = len(samples), new_busy, new_own, time.perf_counter()
        if done:
            return samples, slices


def measure_beside(
    call: Call, reference: Call, min_runs: int, min_time_s: float, max_time_s: float
) -> tuple[list[int], list[list[float]]]:
    """Nanoseconds of every run, and [runs, median of the reference after them] of every stretch.

    A stretch is no shorter than the reference's turn was, so that a slow reference takes at most half of the time.
    At least `min_runs` and `min_time_s` of the model itself, whatever happens no longer than the cap in all.
    """
    samples: list[int] = []
    stretches: list[list[float]] = []
    begin = time.perf_counter()
    own_s, length_s = 0.0, REFERENCE_TURN_S
    while True:
        call()  # the caches belong to the reference
        own = turn(call, length_s)
        call_s = sum(own) * 1e-9
        begun = time.perf_counter()
        reference()
        beside = turn(reference, REFERENCE_TURN_S)
        now = time.perf_counter()
        length_s, own_s = max(REFERENCE_TURN_S, now - begun), own_s + call_s
        samples += own
        stretches.append([len(own), statistics.median(beside)])
        if (len(samples) >= min_runs and own_s >= min_time_s) or now - begin > max_time_s:
            return samples, stretches


def turn(call: Call, length_s: float) -> list[int]:
    """Nanoseconds of runs one after the other, for at least so long."""
    begin, samples = time.perf_counter(), [timed(call)]
    while time.perf_counter() - begin < length_s:
        samples.append(timed(call))
    return samples


def busy_s() -> float:
    """CPU seconds that anybody used since the system started, time stolen by other virtual machines included."""
    lines = _read("/proc/stat").splitlines()
    if not lines:
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, lines[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def interleave(calls: list[Call], min_runs: int, min_time_s: float, max_time_s: float) -> list[list[int]]:
    """Samples of several models timed in turns, until each has enough."""
    samples: list[list[int]] = [[] for _ in calls]
    begin = time.perf_counter()
    while True:
        for call, own in zip(calls, samples):
            call()  # the caches belong to the model before
            own += turn(call, TURN_S)
        elapsed = time.perf_counter() - begin
        enough = min(map(len, samples)) >= min_runs and elapsed >= min_time_s * len(calls)
        if enough or elapsed > max_time_s:
            return samples


def bench(options: argparse.Namespace) -> dict[str, Any]:
    samples = np.load(options.inputs, allow_pickle=False, mmap_mode="r") if options.inputs else None
    version = runtime_version(options.runtime)
    begin = time.perf_counter_ns()
    loaded = [LOADERS[options.runtime](path, options.threads, samples) for path in options.model]
    load_ns = time.perf_counter_ns() - begin
    calls = [one.call for one in loaded]
    first_ns = timed(calls[0])
    before = machine_state()
    gc.disable()
    warm = [warm_up(call) for call in calls] if len(calls) == 1 else [warm_up(lambda: [call() for call in calls])]
    peak = peak_rss_bytes()  # before the list of timings grows and the reference is loaded
    reference: Call | None = None
    if options.reference:
        reference = LOADERS[options.runtime](options.reference, options.threads, samples).call
        warm_up(reference)
    cpu_begin, wall_begin = time.process_time(), time.perf_counter()
    limits = options.min_runs, options.min_time, options.max_time
    slices: list[list[float]] = []
    stretches: list[list[float]] = []
    if reference is not None:
        samples_ns, stretches = measure_beside(calls[0], reference, *limits)
        timings = [samples_ns]
    elif len(calls) == 1:
        samples_ns, slices = measure(calls[0], *limits)
        timings = [samples_ns]
    else:
        timings = interleave(calls, *limits)
    wall_s = time.perf_counter() - wall_begin
    cpu_share = (time.process_time() - cpu_begin) / wall_s
    return {
        "schema": SCHEMA,
        "runtime": options.runtime,
        "runtime_version": version,
        "threads": options.threads,
        "precision": [one.precision() for one in loaded],
        "models": options.model,
        "load_ns": load_ns,
        "first_ns": first_ns,
        "warm_up": warm[0],
        "samples_ns": timings,
        "slices": slices,
        "stretches": stretches,
        "wall_s": wall_s,
        "peak_rss_bytes": peak,
        "empty_rss_bytes": empty_rss_bytes(options.runtime),
        "cpu": cpu_name(),
        "cpu_share": round(cpu_share, 3),
        "preemptions": resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        "system": platform.platform(),
        "python": platform.python_version(),
        "before": before,
        "after": machine_state(),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", required=True, choices=sorted(LOADERS))
    parser.add_argument("--model", action="append", default=[], help="may be given several times")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-runs", type=int, default=200)
    parser.add_argument("--min-time", type=float, default=1.0, help="seconds per model")
    parser.add_argument("--max-time", type=float, default=120.0, help="seconds in all")
    parser.add_argument("--inputs", help=".npy with samples (n, ...) float32, images NCHW; noise when not given")
    parser.add_argument("--reference", help="another file of the runtime, timed between stretches of the only model")
    parser.add_argument("--empty", action="store_true", help="load the runtime only and print the peak memory")
    options = parser.parse_args(arguments)
    if not options.empty and not options.model:
        parser.error("--model is missing")
    if options.reference and len(options.model) > 1:
        parser.error("--reference goes with one --model")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        runtime_version(options.runtime)
    except ImportError as error:
        print(f"{options.runtime} is not installed: {error}", file=sys.stderr)
        return EXIT_NO_RUNTIME
    # Runtimes write to stdout as they load; the document alone belongs there.
    document = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer = {"peak_rss_bytes": peak_rss_bytes()} if options.empty else bench(options)
    json.dump(answer, document)
    document.write("\n")
    document.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
