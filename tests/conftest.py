"""What all tests share.

`--no-unexpected-skips`: a test may be skipped for a listed reason only, so that nothing drops out unseen.
`small_net`, `exported`: nets that together hold what exporters stumble over, and their files, written once per run.
`small_tflite`: a file for what only needs one.
`any_machine`: for tests that time for real.
`address`, `phone`, `ssh_board`, `aarch64_board`, `emulated`, `real_board`: devices to
    reach, see `tests/links/devices.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from edgeprune.boards.kit import FOLDER_VARIABLE
from tests.links.devices import (  # noqa: F401  (fixtures)
    aarch64_board,
    address,
    emulated,
    phone,
    real_board,
    ssh_board,
    sshd,
)

if TYPE_CHECKING:
    import torch

    from edgeprune.backends import Artifact

# Reasons that are right on some machine or other; each is a regular expression for the whole reason.
ALLOWED_SKIPS = (
    r"needs a GPU.*",
    r"needs the published measurements.*",
    r"needs the shared data.*",
    r"needs the tool .*",
    r"needs (arm-none-eabi-gcc|qemu-system-arm|the extra (mcu|sign|tensorboard)).*",
    r"needs an emulated board: edgeprune emulate setup .*",
    r"not a git checkout",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-unexpected-skips", action="store_true", help="fail when a skip has an unlisted reason")


def _reason(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def unexpected(reasons: list[str]) -> list[str]:
    """The reasons that no pattern of the list covers."""
    return [reason for reason in reasons if not any(re.fullmatch(p, reason, re.DOTALL) for p in ALLOWED_SKIPS)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("--no-unexpected-skips"):
        return
    skipped = terminalreporter.stats.get("skipped", [])
    bad = unexpected([_reason(report) for report in skipped])
    for reason in bad:
        terminalreporter.write_line(f"unexpected skip: {reason}", red=True)
    if bad and terminalreporter._session.exitstatus == 0:
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes what the user has calibrated, or finds an emulated board that it did not ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_CALIBRATIONS", str(tmp_path_factory.mktemp("calibrations")))
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("boards")))
        yield


@pytest.fixture
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does, its runs count: for tests that time for real, whose figures say nothing.

    What a disturbed run leads to is tested with invented runs.
    """
    from edgeprune import percentiles, timing
    from edgeprune.calibration import rounds

    monkeypatch.setattr(timing, "disturbed", lambda *_: False)
    monkeypatch.setattr(percentiles, "_PAIRED_SLOWER", float("inf"))
    monkeypatch.setattr(percentiles, "_FEWEST_KEPT", 0.0)
    monkeypatch.setattr(rounds, "_fault", lambda *_: "")


Array = np.ndarray[Any, np.dtype[Any]]

# Test machines are shared: how long an example takes says nothing about the code.
settings.register_profile("edgeprune", deadline=None)
settings.load_profile("edgeprune")

# Multiply-accumulates by hand: output positions × output channels × input channels per group × kernel.
MACS = {
    "residual": 64 * 16 * 3 * 9 + 16 * 24 * 16 * 9 + 16 * 24 * 16 + 10 * 24 * 16,
    "depthwise": 125 * 16 * 1 * 40 + 125 * 16 * 9 + 125 * 24 * 16 + 12 * 24,
    "excite": 64 * 16 * 3 * 9 + 4 * 16 + 16 * 4 + 64 * 24 * 16 * 9 + 10 * 40,
}


@dataclass(frozen=True)
class Net:
    """A net with its samples (n, ...) and its answers to them."""

    name: str
    model: torch.nn.Module
    samples: Array
    answers: Array
    macs: int


@pytest.fixture(scope="session")
def small_net() -> Callable[[str], Net]:
    """`small_net("residual" | "depthwise" | "excite")`."""

    @cache
    def build(name: str) -> Net:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, shape = _build(name)
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    assert module.running_mean is not None and module.running_var is not None
                    module.running_mean.uniform_(-0.3, 0.3)
                    module.running_var.uniform_(0.5, 1.5)
            samples = torch.randn(32, *shape)
            model.eval()
            with torch.no_grad():
                answers = model(samples)
        return Net(name, model, samples.numpy(), answers.numpy(), MACS[name])

    return build


@pytest.fixture(scope="session")
def exported(small_net: Callable[[str], Net], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """`exported(backend, net, precision)`: the artifact, written on first use."""

    @cache
    def export(backend_name: str, net_name: str, precision: Any = "int8") -> Artifact:
        from edgeprune import backends
        from edgeprune.quantization.ranges import RangePolicy

        backend = backends.get(backend_name)
        if reason := backend.missing():
            pytest.skip(reason)
        net = small_net(net_name)
        folder: Path = tmp_path_factory.mktemp(f"{backend_name}-{net_name}")
        return backend.export(net.model, net.samples[:1], folder, precision, net.samples, RangePolicy())

    return export


@pytest.fixture(scope="session")
def small_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small int8 .tflite file, written from sizes alone."""
    from edgeprune import backends
    from edgeprune.calibration.design import reference

    tflite = backends.writers()["tflite"]
    if reason := tflite.missing():
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("small") / "small net.tflite"
    tflite.write_network(reference(), path, "int8")
    return path


def _build(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    import torch
    from torch import nn
    from torch.nn import functional as f

    class Residual(nn.Module):
        """Strided residual block whose map is flattened by a hard-coded view."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            self.conv2, self.bn2 = nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24)
            self.shortcut, self.drop, self.head = nn.Conv2d(16, 24, 1, 2), nn.Dropout(0.2), nn.Linear(24 * 16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = f.relu(self.bn1(self.conv1(x)))
            x = f.relu(self.bn2(self.conv2(x)) + self.shortcut(x))
            return self.head(self.drop(x.view(-1, 24 * 16)))

    class Depthwise(nn.Module):
        """One input channel, depthwise and pointwise layers, a mean over both image axes."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 16, (10, 4), 2, (5, 1))
            self.depth, self.bn = nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16)
            self.point, self.head = nn.Conv2d(16, 24, 1), nn.Linear(24, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = f.relu6(self.bn(self.depth(f.relu6(self.stem(x)))))
            return self.head(f.relu(self.point(x)).mean((2, 3)))

    class Excite(nn.Module):
        """Squeeze and excitation, hard activations, concatenation and pooling."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 1, 1)
            self.squeeze, self.excite, self.head = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), nn.Linear(40, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = f.hardswish(self.stem(x))
            x = x * f.hardsigmoid(self.excite(f.relu(self.squeeze(f.adaptive_avg_pool2d(x, 1)))))
            x = f.max_pool2d(torch.cat([x, f.relu(self.body(x))], 1), 2)
            return self.head(torch.flatten(f.adaptive_avg_pool2d(x, 1), 1))

    known: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
        "residual": (Residual, (3, 8, 8)),
        "depthwise": (Depthwise, (1, 49, 10)),
        "excite": (Excite, (3, 16, 16)),
    }
    make, shape = known[name]
    return make(), shape
