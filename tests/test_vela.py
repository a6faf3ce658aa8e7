"""Estimates of the Ethos-U compiler: what it writes is read, what it refuses is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune import vela
from edgeprune.cost import Source
from edgeprune.documents import profile_record
from edgeprune.errors import MissingExtraError, UnsupportedError, UsageError
from edgeprune.job import aimed
from edgeprune.profiling import profile
from edgeprune.report.summary import profile_table
from edgeprune.spec import BudgetSpec, Spec, TargetSpec
from edgeprune.target import load_target
from tests.backends.c.files import write
from tests.backends.c.steps import computed, constant, one_step

BOARD = load_target("ethos-u55-128")
# As vela 5.2.0 writes them, of the columns those that are read and their neighbours.
SUMMARY = """\
experiment,network,accelerator_configuration,system_config,memory_mode,core_clock,arena_cache_size,\
inferences_per_second,batch_size,inference_time,sram_memory_used,dram_memory_used,on_chip_flash_memory_used,\
off_chip_flash_memory_used,total_original_weights,nn_macs,nn_tops,cycles_npu,cycles_sram_access,cycles_total
default,model,Ethos_U55_128,Ethos_U55_High_End_Embedded,Shared_Sram,500000000.0,4194304.0,\
5561.735261401557,1,0.0001798,21.671875,0.0,0.0,30.375,22016,2664792,0.02964173526140156,88902,36383,89900
"""
LAYERS = """\
Original Operator,NNG Operator,Target,Staging Usage,Peak% (Staging),Op Cycles,Network% (cycles),NPU,SRAM AC,DRAM AC,\
OnFlash AC,OffFlash AC,MAC Count,Network% (MAC),Util% (MAC),Name
Conv2D,Conv2D,NPU,12976,58.47152126892574,26185,29.126807563959954,26185,6040,0,0,5760,320000,12.0,9.5,first
Conv2D,Relu,NPU,0,0.0,15,0.0,0,0,0,0,0,0,0.0,100,first
ReverseV2,Passthrough,CPU,0,0.0,0,0.0,0,0,0,0,0,0,0.0,100,second
"""
STAND_IN = """\
#!{python}
import pathlib, sys, time
if sys.argv[1:] == ["--version"]:
    print("5.2.0")
    sys.exit()
folder = pathlib.Path(sys.argv[sys.argv.index("--output-dir") + 1])
(folder.parent / "called").write_text(" ".join(sys.argv[1:]))
{behaviour}
(folder / "model_summary_Ethos_U55_High_End_Embedded.csv").write_text({summary!r})
(folder / "model_per-layer.csv").write_text({layers!r})
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "-m.tflite"
    path.write_bytes(b"a model")
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`stand_in(behaviour, summary, layers)`: a program in vela's place."""

    def put(behaviour: str = "", summary: str = SUMMARY, layers: str = LAYERS) -> None:
        program = tmp_path / "vela"
        program.write_text(STAND_IN.format(python=sys.executable, behaviour=behaviour, summary=summary, layers=layers))
        program.chmod(0o755)
        monkeypatch.setattr(vela, "command", lambda: str(program))
        monkeypatch.setattr(vela.tempfile, "tempdir", str(tmp_path))

    return put


def test_the_estimate_is_the_compilers(file: Path, stand_in: Callable[..., None], tmp_path: Path) -> None:
    stand_in()
    found = profile(file, BOARD)
    assert (found.target, found.runtime, found.runtime_version) == ("ethos-u55-128", "vela", "5.2.0")
    assert found.cost.source is Source.ESTIMATED and found.cost.latency_interval_s is None
    assert found.cost.latency_s == pytest.approx(89900 / 500e6)
    assert (found.cost.ram_bytes, found.cost.size_bytes, found.cost.macs) == (22192, 31104, 2664792)
    assert [(op.kind, op.name, op.macs) for op in found.ops] == [
        ("Conv2D", "first", 320000),
        ("ReverseV2", "second", 0),
    ]
    assert found.ops[0].latency_s == pytest.approx(26200 / 500e6) and found.ops[1].latency_s is None
    assert found.notes == (
        "the compiler's estimate (vela 5.2.0), not measured; operators on the CPU are not counted",
        "on the CPU: ReverseV2 (1)",
    )
    called = (tmp_path / "called").read_text()
    assert "--accelerator-config ethos-u55-128 --system-config Ethos_U55_High_End_Embedded" in called


def test_a_printed_estimate_names_the_compiler_and_no_device_model(file: Path, stand_in: Callable[..., None]) -> None:
    stand_in()
    text = profile_table(profile_record(profile(file, BOARD), file))
    assert "180 µs (estimate of the NPU's compiler)" in text and "device model" not in text


def test_without_operators_on_the_cpu_none_are_named(file: Path, stand_in: Callable[..., None]) -> None:
    stand_in(layers="\n".join(LAYERS.splitlines()[:3]))
    assert len(profile(file, BOARD).notes) == 1


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("sys.exit('RuntimeError: no such network')", r"vela refuses it \(status 1\): RuntimeError: no such network"),
        ("sys.exit(3)", r"vela refuses it \(status 3\): no message"),
        ("sys.exit()", "vela wrote no model_summary"),
    ],
)
def test_what_it_refuses_is_told(file: Path, stand_in: Callable[..., None], behaviour: str, message: str) -> None:
    stand_in(behaviour)
    with pytest.raises(UsageError, match=message):
        profile(file, BOARD)


def test_a_compiler_that_does_not_end_is_ended(
    file: Path, stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("time.sleep(60)")
    monkeypatch.setattr(vela, "_TIMEOUT_S", 0.5)
    with pytest.raises(UsageError, match=r"vela took more than 0.5 s"):
        profile(file, BOARD)


@pytest.mark.parametrize("wrong", ["", "nan", "-1", "many"])
def test_what_is_no_figure_is_refused(file: Path, stand_in: Callable[..., None], wrong: str) -> None:
    stand_in(summary=SUMMARY.replace("21.671875", wrong))
    with pytest.raises(UsageError, match="what vela wrote has no sram_memory_used"):
        profile(file, BOARD)


def test_a_network_that_stays_on_the_cpu_is_refused(file: Path, stand_in: Callable[..., None]) -> None:
    stand_in(layers=LAYERS.replace("NPU,", "CPU,"))
    with pytest.raises(UnsupportedError, match="none of its 3 operators on the NPU"):
        profile(file, BOARD)


def test_without_the_program_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "command", lambda: None)
    with pytest.raises(MissingExtraError, match="needs the extra 'ethos'"):
        profile(file, BOARD)


def test_the_program_is_looked_for_beside_this_python_and_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vela.sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vela.command() is None
    (tmp_path / "vela").touch(0o755)
    assert vela.command() == str(tmp_path / "vela")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "vela").touch()
    assert vela.command() == str(tmp_path / "beside" / "vela")


def test_a_fit_has_no_latency_limit_there() -> None:
    asked = Spec(target=TargetSpec(name="ethos-u55-128"), budget=BudgetSpec(latency="1ms"))
    with pytest.raises(UsageError, match="no latency model for ethos-u55-128, vela, int8"):
        aimed(asked)


def test_the_program_itself(tmp_path: Path) -> None:
    if vela.command() is None:
        pytest.skip("needs the tool vela")
    weights, bias = constant([[[[3]] * 1] * 1] * 8, "int8", 0.02), constant([0] * 8, "int32", 0.002)
    options: dict[str, Any] = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
    options |= {"dilation_h_factor": 1, "dilation_w_factor": 1}
    model = one_step("CONV_2D", [computed((1, 8, 8, 1)), weights, bias], [computed((1, 8, 8, 8))], **options)
    found = profile(write(model, tmp_path / "model.tflite"), BOARD)
    assert found.cost.latency_s and found.cost.ram_bytes and found.cost.size_bytes
    assert [op.macs for op in found.ops] == [512] and "vela 5" in found.notes[0]
