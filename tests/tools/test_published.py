import json
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from tests.tools.published_rows import TFLITE_NETWORKS, seconds_of, write_boards
from tools.engines import ENGINES
from tools.published import fitted, rank_correlation, read_published, write_published

SHIPPED = Path(__file__).parents[2] / "profiles" / "published"


def test_models_come_back_from_their_files_as_they_were_written(tmp_path: Path) -> None:
    write_boards(tmp_path / "rows", noise=0.03)
    paths = write_published(tmp_path / "rows", tmp_path / "out")
    assert {path.stem for path in paths} == set(ENGINES)
    again = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_published(tmp_path / "rows", tmp_path / "out")] == again
    models = read_published(tmp_path / "out")
    assert len(models) == 3
    for key, model in models.items():
        assert model.key == key and set(model.networks) == set(TFLITE_NETWORKS)
        assert model.band[0] < 1 < model.band[1]
        assert model.left_out_model["median"] < 0.1
    one = next(model for model in models.values() if model.key.device == "one")
    ops = ENGINES["ruy"].network("mobilenet_v2_0.75_160")
    assert ops is not None
    amounts = ENGINES["ruy"].amounts(ops, "int8")
    estimated_s = sum(a * p for a, p in zip(amounts, one.prices_s, strict=True))
    assert estimated_s == pytest.approx(seconds_of("mobilenet_v2_0.75_160"), rel=0.1)


@pytest.mark.parametrize("change", [{"schema": "other/1"}, {"engine": "of nobody"}, {"terms": ["macs"]}])
def test_a_file_of_another_version_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_boards(tmp_path / "rows")
    for path in write_published(tmp_path / "rows", tmp_path / "out"):
        if path.stem == "ruy":
            path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(UsageError, match="not a file of published models"):
        read_published(tmp_path / "out")


def test_the_shipped_models_name_defined_networks_and_have_a_band() -> None:
    models = read_published(SHIPPED)
    assert len(models) > 300 and {key.engine for key in models} == set(ENGINES)
    for key, model in models.items():
        engine = ENGINES[key.engine]
        assert len(model.prices_s) == len(engine.terms) and all(price > 0 for price in model.prices_s)
        assert len(model.networks) >= 3 and all(engine.network(name) is not None for name in model.networks)
        assert 0 < model.band[0] < 1 < model.band[1] and set(model.left_out_family) >= {"median", "p90"}


def test_ranks_agree_or_do_not() -> None:
    assert rank_correlation([1, 2, 3, 9], [0.1, 0.2, 3, 4]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_no_group_gives_no_model() -> None:
    assert fitted([]) == []
