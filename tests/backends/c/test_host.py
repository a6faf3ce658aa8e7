"""Libraries compiled for this machine, and what is said where that cannot be."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune import backends
from edgeprune.backends.c import host
from edgeprune.backends.c.library import write_library
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.schedule import schedule
from edgeprune.errors import MissingExtraError, UsageError
from tests.backends.c import toys

pytestmark = pytest.mark.usefixtures("toy_lowerings")


def library(folder: Path, net: Model) -> Path:
    given = toys.noise(net)
    return write_library(schedule(net), folder, "net", [(given, toys.answers(net, given))])


def image_net() -> Model:
    """An image of 2 by 3 with 4 channels, halved scale, and the same image back."""
    image = Tensor("image", (1, 2, 3, 4), "int8", Quantization((0.5,), (3,)))
    return Model((image, image), (Operator("RESHAPE", (0,), (1,)),), (0,), (1,))


def test_images_are_channel_first_outside_and_levels_inside(tmp_path: Path) -> None:
    session = host.LibrarySession(library(tmp_path, image_net()))
    assert (session.runtime, session.threads, session.precision) == ("edgeprune-c", 1, "int8")
    samples = np.random.default_rng(0).uniform(-90, 90, (5, 4, 2, 3)).astype(np.float32)
    expected = np.clip(np.round(samples / 0.5) + 3, -128, 127)
    assert np.array_equal(session.run(samples), ((expected - 3) * 0.5).astype(np.float32))


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    session = host.LibrarySession(library(tmp_path, image_net()))
    with pytest.raises(UsageError, match="the library takes 1×2×3×4, the sample is 1×4×2×4"):
        session.run(np.zeros((1, 4, 2, 4), np.float32))


def test_a_library_of_two_inputs_takes_no_samples(tmp_path: Path) -> None:
    session = host.LibrarySession(library(tmp_path, toys.model([16, 16, 16], [toys.add(0, 1, 2)], [2], inputs=2)))
    with pytest.raises(UsageError, match="the library takes 2 inputs, samples have one"):
        session.run(np.zeros((1, 1, 16, 1), np.float32))


def test_floats_and_unscaled_integers_pass_as_they_are() -> None:
    for end in ({"scale": None, "type": "int32"}, {"scale": 0.5, "type": "float32"}):
        values = np.array([1.0, 70000.0], np.float32)
        stored = host.quantized(values, end)
        assert stored.dtype == end["type"] and host.dequantized(stored, end).tolist() == [1.0, 70000.0]


def test_without_a_compiler_nothing_runs_and_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = library(tmp_path, image_net())
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    monkeypatch.setattr(host, "find_spec", lambda name: None)
    host.compiler.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match="needs a C compiler") as caught:
            host.LibrarySession(report)
        assert "ziglang" in caught.value.hint
        assert backends.get("c").missing().startswith("there is no C compiler")
        monkeypatch.setattr(host, "find_spec", lambda name: True)
        host.compiler.cache_clear()
        assert host.compiler() == (sys.executable, "-m", "ziglang", "cc")
    finally:
        host.compiler.cache_clear()


def test_a_missing_runtime_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backends.get("c")
    assert backend.missing() == ""
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert backend.missing() == "the package ai-edge-litert is not installed"


def test_sources_that_do_not_compile_are_refused_with_the_compilers_words(tmp_path: Path) -> None:
    report = library(tmp_path, image_net())
    (tmp_path / "src" / "net.c").write_text("#warning before it\nint net_run(void) { return nothing; }\n")
    with pytest.raises(UsageError, match=r"the C compiler refuses the library: .*net.c:2.*error: .*nothing"):
        host.LibrarySession(report)


def test_a_compiler_that_says_nothing_is_told_so() -> None:
    assert host._reason("\n") == "no message" and host._reason("killed\nby the system") == "killed"


@pytest.mark.slow
def test_the_python_package_of_a_compiler_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if host.find_spec("ziglang") is None:
        pytest.skip("needs the tool ziglang")
    real = shutil.which
    monkeypatch.setattr(host.shutil, "which", lambda name: None if name in ("cc", "gcc", "clang") else real(name))
    host.compiler.cache_clear()
    try:
        session = host.LibrarySession(library(tmp_path, toys.residual()))
    finally:
        host.compiler.cache_clear()
    inputs = toys.noise(toys.residual())
    assert np.array_equal(session.run_stored(inputs)[0], toys.answers(toys.residual(), inputs)[0])
