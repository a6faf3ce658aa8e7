import pytest

from edgeprune.device.latency import Work
from edgeprune.device.ops import Op
from tools.engines import ENGINES

NCNN = ENGINES["ncnn"]


def ncnn_terms(op: Op) -> dict[str, float]:
    found = dict(zip(NCNN.terms, NCNN.amounts([op], "fp32"), strict=True))
    return {name: value for name, value in found.items() if value}


def conv(cin: int, cout: int, **other: int) -> Op:
    return Op("op", "conv", ("x",), "op", cin, cout, 100, other.pop("out_positions", 100), **other)  # type: ignore[arg-type]


def test_each_convolution_is_priced_as_the_algorithm_that_runs_it() -> None:
    both = 100 * (32 + 64)
    assert ncnn_terms(conv(32, 64)) == {"pointwise_macs": 204_800, "elements": both, "weights": 2048, "ops": 1}
    winograd = ncnn_terms(conv(32, 64, kernel=9))
    assert winograd["winograd_macs"] == 9 * 204_800 and winograd["elements"] == 9 * both
    strided = ncnn_terms(conv(32, 64, kernel=9, stride=4, out_positions=25))
    assert strided["spatial_macs"] == 9 * 204_800 / 4 and "winograd_macs" not in strided
    assert ncnn_terms(conv(3, 32, kernel=9))["first_conv_macs"] == 100 * 32 * 27
    assert ncnn_terms(conv(58, 58))["odd_macs"] == 100 * 58 * 58 and "odd_macs" not in ncnn_terms(conv(56, 56))
    grouped = ncnn_terms(conv(32, 32, groups=4))
    assert grouped["grouped_macs"] == 100 * 32 * 8 * (1 + 12 / 8)
    assert ncnn_terms(conv(32, 64, out_positions=1)) == {"dense_weights": 2048, "ops": 1}


def test_moving_data_is_no_operator_of_its_own_in_ncnn() -> None:
    assert ncnn_terms(Op("a", "add", ("x", "y"), "a", 8, 8, 10, 10)) == {"elements": 80}
    assert ncnn_terms(Op("c", "concat", ("x", "y"), "c", 8, 16, 10, 10)) == {"elements": 640}
    assert ncnn_terms(Op("p", "pool", ("x",), "p", 8, 8, 40, 10, kernel=4)) == {"elements": 320, "ops": 1}


@pytest.mark.parametrize("name", ["ruy", "armnn", "xnnpack", "phone"])
def test_engines_of_deployed_formats_price_what_a_latency_model_prices(name: str) -> None:
    engine = ENGINES[name]
    assert engine.terms == Work._fields
    ops = engine.network("mobilenet_v1_1.0_224")
    assert ops is not None
    fp32, int8 = engine.amounts(ops, "fp32"), engine.amounts(ops, "int8")
    assert fp32[0] == int8[0] and fp32[1] > int8[1]  # gathering a first convolution's patches shows in fp32 only


def test_engines_know_their_own_networks() -> None:
    assert ENGINES["ruy"].network("netspresso_yolox_s_640") and ENGINES["ruy"].network("vgg16_224") is None
    assert (
        NCNN.network("vgg16_224") and NCNN.network("ncnn_FastestDet") and NCNN.network("netspresso_yolox_s_640") is None
    )
    assert NCNN.network("mobilenet_v2_1.0_224") != ENGINES["ruy"].network("mobilenet_v2_1.0_224")
