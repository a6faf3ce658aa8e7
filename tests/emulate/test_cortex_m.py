import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.emulate import cortex_m, unicorn_child
from edgeprune.emulate.cores import core_of
from edgeprune.emulate.cortex_m import Call, call
from edgeprune.errors import DeviceError, MissingExtraError, QualityError, UnsupportedError
from tests.emulate.programs import LOOP, LOOP_INSTRUCTIONS, MEMORY, RUN, counted, linked, ran

CORES = ("Cortex-M0", "Cortex-M3", "Cortex-M4", "Cortex-M7", "Cortex-M33")
DSP = (
    RUN + "{ (void)arena; int32_t r; const int32_t *p = (const int32_t *)(const void *)in;"
    ' __asm__("sxtb16 %0, %1\\n smlad %0, %0, %2, %1" : "=&r"(r) : "r"(p[0]), "r"(p[1]));'
    " *(int32_t *)(void *)out = r; return 0; }\n"
)
ENDLESS = RUN + "{ (void)in; (void)arena; for (;;) { *(volatile int8_t *)out = 1; } }\n"


@pytest.mark.parametrize("core", CORES)
def test_a_loop_is_counted_to_the_instruction(tmp_path: Path, core: str) -> None:
    image = linked(tmp_path, LOOP, core)
    run = ran(image, core)
    (found,) = counted(image, run).values()
    assert found.total == LOOP_INSTRUCTIONS
    assert (found.branches_taken, found.branches_not_taken, found.loads) == (999 + 1, 1, 0)
    assert found.alu == 2 + 1000 * 9 + 1 and run.stack_bytes == 0 and run.returned == 0


def test_both_ways_of_counting_agree_and_repeat(tmp_path: Path) -> None:
    from tests.emulate.programs import NET

    image = linked(tmp_path, NET + "const int8_t net_weights[864] = {1, -2, 3};\n", "Cortex-M4", arena=2048)
    wanted = {"inputs": (bytes(range(128)) * 9,), "output_bytes": 16, "arena_bytes": 2048}
    layers = cortex_m.layer_functions(image, "net")
    assert layers == {"net_layer_0": 0, "net_layer_1": 1}
    runs = [
        call(image, core_of("Cortex-M4"), MEMORY, Call("net_run", layers=layers, portable=portable, **wanted))  # type: ignore[arg-type]
        for portable in (False, False, True)
    ]
    assert runs[0] == runs[1] == runs[2]
    (run,) = runs[0][1]
    assert set(run.layers) == {None, 0, 1}
    rows = counted(image, run)
    outside = [found for (layer, name), found in rows.items() if layer is None]
    assert [name for layer, name in rows if layer is None] == ["net_run"] and outside[0].total < 20
    # 14 * 14 - 12 * 12 positions are padding: 34 * 34 of 36 * 36 products per channel remain
    assert sum(found.macs + found.multiplies for (layer, _), found in rows.items() if layer == 0) == 34 * 34 * 8 * 12
    assert sum(found.loads for (layer, _), found in rows.items() if layer == 1) >= 12 * 144


def test_instructions_of_the_dsp_extension_run_on_an_m4_and_fault_on_an_m3(tmp_path: Path) -> None:
    given = bytes([3, 0, 0xFE, 0, 5, 0, 7, 0]) + bytes(8)
    run = ran(linked(tmp_path, DSP, "Cortex-M4"), "Cortex-M4", given)
    assert int.from_bytes(run.output[:4], "little", signed=True) == 3 * 5 + -2 * 7 + int.from_bytes(given[:4], "little")
    (found,) = counted(linked(tmp_path, DSP, "Cortex-M4"), run).values()
    assert (found.macs, found.simd) == (1, 1)
    # the compiler refuses it for an M3, so an M3 is given the code of an M4
    with pytest.raises(QualityError, match="net_run stops with undefined instruction at 0x80000.* on Cortex-M3"):
        ran(linked(tmp_path, DSP, "Cortex-M4"), "Cortex-M3", given)


@pytest.mark.parametrize("depth", [1, 5])
def test_the_stack_is_as_deep_as_it_gets(tmp_path: Path, depth: int) -> None:
    text = (
        "#include <stdint.h>\n__attribute__((noinline)) int deeper(int n)\n"
        "{ volatile uint8_t held[64]; held[0] = (uint8_t)n; return n > 1 ? deeper(n - 1) + held[0] : held[0]; }\n"
        f"{RUN}{{ (void)out; (void)arena; return deeper({depth}) * in[0]; }}\n"
    )
    run = ran(linked(tmp_path, text, "Cortex-M4"), "Cortex-M4")
    assert 72 * depth <= run.stack_bytes <= 88 * depth + 16


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("*(volatile int8_t *)0x50000000 = in[0];", "net_run writes 1 bytes at 0x50000000, where it has nothing"),
        ("out[0] = *(volatile int8_t *)0x1000;", "net_run reads 1 bytes at 0x1000, where it has nothing"),
        ("*(volatile int8_t *)0x08000010 = in[0];", "net_run writes 1 bytes at 0x8000010"),
        ("((int (*)(void))0x20000001)();", "executes .* bytes at 0x20000000|stops"),
        ("((volatile int8_t *)out)[16] = 1;", "net_run writes 1 bytes at"),
        ("((volatile int8_t *)arena)[1024] = 1;", "net_run writes 1 bytes at"),
        ("out[0] = ((volatile const int8_t *)in)[16];", "net_run reads 1 bytes at"),
        ('__asm__("udf 1");', "net_run stops with undefined instruction"),
    ],
)
def test_a_fault_names_the_function_and_the_address(tmp_path: Path, body: str, message: str) -> None:
    text = RUN + f"{{ (void)in; (void)out; (void)arena; {body} return 0; }}\n"
    with pytest.raises(QualityError, match=message) as caught:
        ran(linked(tmp_path, text, "Cortex-M4"), "Cortex-M4")
    assert caught.value.where == "input 0"


def test_bytes_between_a_buffer_and_the_end_of_memory_are_watched(tmp_path: Path) -> None:
    text = RUN + "{ (void)in; (void)out; ((volatile int8_t *)arena)[1000] = 1; return 0; }\n"
    image = linked(tmp_path, text, "Cortex-M4")
    wanted = Call("net_run", (bytes(16),), 16, 1000, {})
    with pytest.raises(QualityError, match="net_run writes past the end of its arena"):
        call(image, core_of("Cortex-M4"), MEMORY, wanted)


def test_an_unaligned_word_faults_on_an_m0(tmp_path: Path) -> None:
    text = RUN + "{ (void)arena; out[0] = (int8_t)*(volatile const int32_t *)(const void *)(in + 1); return 0; }\n"
    assert ran(linked(tmp_path, text, "Cortex-M4"), "Cortex-M4").returned == 0
    with pytest.raises(QualityError, match="net_run stops .*on Cortex-M0"):
        ran(linked(tmp_path, text, "Cortex-M0"), "Cortex-M0")


@pytest.mark.parametrize("portable", [False, True])
def test_an_endless_loop_is_given_up(tmp_path: Path, portable: bool) -> None:
    image = linked(tmp_path, ENDLESS, "Cortex-M4")
    with pytest.raises(
        QualityError, match="net_run has not returned after 100000 bytes of instructions; it is in net_run"
    ):
        ran(image, "Cortex-M4", limit_bytes=100_000, portable=portable)


def test_time_is_limited_whatever_is_counted(tmp_path: Path) -> None:
    image = linked(tmp_path, ENDLESS, "Cortex-M4")
    with pytest.raises(DeviceError, match="ended by signal .* after at most 1 s of CPU time"):
        ran(image, "Cortex-M4", limit_bytes=1 << 60, limit_s=1)


def test_several_inputs_start_from_the_same_memory(tmp_path: Path) -> None:
    text = RUN + "{ int8_t *a = arena; out[0] = (int8_t)(in[0] + a[0]); a[0] = 9; return in[1]; }\n"
    image = linked(tmp_path, text, "Cortex-M33")
    inputs = (bytes([1, 5]) + bytes(14), bytes([2, 255]) + bytes(14), bytes([1, 0]) + bytes(14))
    _, runs = call(image, core_of("Cortex-M33"), MEMORY, Call("net_run", inputs, 16, 1024, {}))
    assert [run.output[0] for run in runs] == [0xA6, 0xA7, 0xA6]
    assert [run.returned for run in runs] == [5, 0xFFFF_FFFF, 0]


def test_a_core_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="Unicorn has no model of Cortex-M55"):
        ran(linked(tmp_path, ENDLESS, "Cortex-M55"), "Cortex-M55")


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("import sys; sys.exit(7)", MissingExtraError, "emulating a Cortex-M needs the extra 'mcu'"),
        ("raise RuntimeError('broken')", DeviceError, "the emulator failed: RuntimeError: broken"),
        ("import time; time.sleep(60)", DeviceError, "did not answer within 1"),
    ],
)
def test_what_goes_wrong_with_the_emulator_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "child.py").write_text(script)
    monkeypatch.setattr(cortex_m, "_CHILD", tmp_path / "child.py")
    with pytest.raises(error, match=message):
        cortex_m._asked({}, 0.1)  # type: ignore[arg-type]


def test_the_engine_is_never_loaded_into_the_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unicorn", raising=False)  # other tests of this process may have loaded it
    assert ran(linked(tmp_path, LOOP, "Cortex-M4"), "Cortex-M4").returned == 0
    assert "unicorn" not in sys.modules


def test_the_child_says_when_unicorn_is_missing(tmp_path: Path) -> None:
    (tmp_path / "unicorn.py").write_text("raise ImportError")
    child = [sys.executable, str(Path(unicorn_child.__file__))]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(child, input=json.dumps({}), text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == unicorn_child.MISSING


def test_layers_are_found_by_name(tmp_path: Path) -> None:
    text = "".join(
        f'__attribute__((noinline)) void {n}(void) {{ __asm__("nop"); }}\n'
        for n in ("net_layer_0", "net_layer_12", "other_layer_1", "net_layer_x")
    )
    calls = "net_layer_0(); net_layer_12(); other_layer_1(); net_layer_x();"
    image = linked(tmp_path, text + RUN + f"{{ (void)in; (void)out; (void)arena; {calls} return 0; }}\n", "Cortex-M4")
    assert cortex_m.layer_functions(image, "net") == {"net_layer_0": 0, "net_layer_12": 12}
