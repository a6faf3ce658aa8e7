import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import edgeprune
from edgeprune.errors import MissingExtraError, QualityError, TrustError, UsageError
from edgeprune.spec import ModelSpec
from edgeprune.workload.models import load_model

CODE = """
from __future__ import annotations
import torch
from torch import nn
from dataclasses import dataclass
from inside import WIDTH

@dataclass
class Options:
    width: int = WIDTH

def make(width: int = 4, rate: float = 0.5, bias: bool = True, kind="plain"):
    assert isinstance(width, int) and isinstance(rate, float) and isinstance(bias, bool), (width, rate, bias)
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=bias), nn.BatchNorm2d(width), nn.Dropout(rate))
def needs(width): return nn.Linear(width, 2)
def double(): return nn.Linear(3, 2).double()
def broken(): raise ValueError("no such dataset")
def text(): return "a model"
def nan():
    model = nn.Linear(3, 2)
    model.weight.data[0, 0] = float("nan")
    return model
class Net(nn.Module):
    def __init__(self, width: int = Options().width):
        super().__init__()
        self.fc = nn.Linear(width, 2)
ready = Net(5)
number = 3
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "inside.py").write_text("WIDTH = 7\n")
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return path


def test_functions_classes_and_ready_modules_are_models(nets: Path) -> None:
    made = load_model(ModelSpec(entry=f"{nets}:make", args={"width": "6", "rate": "0.25", "bias": "no"}))
    assert made[0].out_channels == 6 and made[0].bias is None and made[2].p == 0.25 and not made.training
    assert load_model(ModelSpec(entry=f"{nets}:Net")).fc.in_features == 7
    assert load_model(ModelSpec(entry=f"{nets}:Net", args={"width": 3})).fc.in_features == 3
    assert load_model(ModelSpec(entry=f"{nets}:ready")).fc.in_features == 5
    assert load_model(ModelSpec(entry=f"{nets}:double")).weight.dtype == torch.float32


def test_an_installed_module_can_be_named_instead_of_a_file() -> None:
    model = load_model(ModelSpec(entry="torch.nn:Linear", args={"in_features": "3", "out_features": "2"}))
    assert isinstance(model, nn.Linear) and isinstance(model.in_features, int | str)


def test_the_folder_of_the_file_does_not_stay_importable(nets: Path) -> None:
    before = list(sys.path)
    load_model(ModelSpec(entry=f"{nets}:Net"))
    assert sys.path == before


@pytest.mark.parametrize(
    ("entry", "args", "message"),
    [
        (None, {}, "no model given"),
        ("none.py:make", {}, "no such file: none.py"),
        ("edgeprune_nowhere.nets:make", {}, "no module 'edgeprune_nowhere.nets'"),
        ("resnet18", {}, "cannot read 'resnet18'"),
        ("NETS:mkae", {}, "has no 'mkae'"),
        ("NETS:make", {"wdth": 3}, "no argument 'wdth'"),
        ("NETS:make", {"width": "wide"}, r"argument width: 'wide' is not a number \(int\)"),
        ("NETS:make", {"bias": "perhaps"}, "argument bias: 'perhaps' is neither true nor false"),
        ("NETS:needs", {}, "argument 'width' has no default"),
        ("NETS:broken", {}, r"broken\(\) failed: ValueError: no such dataset \(nets.py:17\)"),
        ("NETS:text", {}, "gave str, not a torch.nn.Module"),
        ("NETS:number", {}, "is int, not a function or a module class"),
        ("NETS:ready", {"width": 3}, "is a ready model and takes no arguments"),
        ("net.onnx", {}, "net.onnx cannot be pruned, only profiled"),
    ],
)
def test_bad_entries_are_named(nets: Path, entry: str | None, args: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(ModelSpec(entry=entry and entry.replace("NETS", str(nets)), args=args))


def test_near_names_are_offered(nets: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_model(ModelSpec(entry=f"{nets}:mkae"))
    assert "make" in caught.value.hint


@pytest.mark.parametrize(("code", "message"), [("1/0", "ZeroDivisionError"), ("import no_such_thing", "no_such_thing")])
def test_code_that_fails_while_loading_is_named_with_its_line(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(f"\n{code}\n")
    with pytest.raises(UsageError, match=rf"bad.py cannot be loaded: .*{message}.*\(bad.py:2\)"):
        load_model(ModelSpec(entry=f"{tmp_path / 'bad.py'}:make"))


def test_a_module_that_imports_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lonely_pack").mkdir()
    (tmp_path / "lonely_pack" / "nets.py").write_text("import no_such_thing\n")
    (tmp_path / "lonely_pack" / "bad.py").write_text("1/0\n")
    for name, message in (("nets", "no_such_thing"), ("bad", "ZeroDivisionError")):
        with pytest.raises(UsageError, match=f"lonely_pack.{name} cannot be loaded: .*{message}"):
            load_model(ModelSpec(entry=f"lonely_pack.{name}:make"))


@pytest.mark.parametrize("name", ["net.pt2", "net.pkl", "net.pt"])
def test_files_that_are_code_are_refused_as_models(name: str) -> None:
    with pytest.raises(TrustError, match=f"{name} can run code"):
        load_model(ModelSpec(entry=name))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_is_named_with_its_install_line(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=f"{library} is installed but does not load|not installed") as caught:
        load_model(ModelSpec(entry=f"{library}:resnet18"))
    assert f"{library}" in caught.value.hint and caught.value.exit_code == 7


def library_with(models: dict) -> ModuleType:
    fake = ModuleType("fake")
    fake.list_models = lambda: list(models)  # type: ignore[attr-defined]
    fake.create_model = lambda model_name, pretrained, **more: models[model_name](**more)  # type: ignore[attr-defined]
    fake.get_model_builder = models.__getitem__  # type: ignore[attr-defined]
    return fake


def test_library_models_are_built_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = library_with({"tiny": lambda width=3: nn.Linear(width, 2)})
    holder = ModuleType("torchvision")
    holder.models = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", fake)
    monkeypatch.setitem(sys.modules, "torchvision", holder)
    for library in ("timm", "torchvision"):
        assert load_model(ModelSpec(entry=f"{library}:tiny", args={"width": 4})).in_features == 4
        with pytest.raises(UsageError, match=f"{library} has no model 'tinny'"):
            load_model(ModelSpec(entry=f"{library}:tinny"))


def test_a_library_built_for_another_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(MissingExtraError, match="torchvision is installed but does not load: operator"):
        load_model(ModelSpec(entry="torchvision:resnet18"))


def spec_with(nets: Path, state: object, name: str = "w.pt") -> ModelSpec:
    path = nets.parent / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path)
    return ModelSpec(entry=f"{nets}:make", weights=path)


def archive(path: Path, model: nn.Module, x: torch.Tensor, *, fixed: bool = False, core: bool = False) -> ModelSpec:
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=shapes)
    torch.export.save(program.run_decompositions() if core else program, path)
    return ModelSpec(entry=str(path), trust=True)


def flat_net() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, 5)]
    return nn.Sequential(*layers)


def test_a_trusted_archive_is_a_model_that_trains_and_is_pruned(tmp_path: Path) -> None:
    model, x = flat_net(), torch.randn(2, 3, 8, 8)
    spec = archive(tmp_path / "net.pt2", model, x)
    with pytest.raises(TrustError, match=r"net\.pt2 can run code") as caught:
        load_model(spec.model_copy(update={"trust": False}))
    assert caught.value.exit_code == 8 and "--trust-model" in caught.value.hint
    loaded = load_model(spec)
    assert torch.equal(loaded(x), model(x)) and not loaded.training
    loaded.train()
    assert not torch.equal(loaded(x), loaded(x)), "dropout drops in training mode"
    done = edgeprune.prune(loaded.eval(), x, keep=0.5)
    assert done.model.get_parameter("5.weight").shape == (5, 144) and not done.excluded
    assert done.model(torch.randn(7, 3, 8, 8)).shape == (7, 5)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, while it decomposes
@pytest.mark.parametrize(
    ("options", "message"),
    [({"fixed": True}, "net.pt2 has a fixed batch size of 2"), ({"core": True}, "holds a decomposed program")],
)
def test_archives_that_cannot_be_fitted_are_named(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_model(archive(tmp_path / "net.pt2", flat_net(), torch.randn(2, 3, 8, 8), **options))
    assert "torch.export.export" in caught.value.hint


def test_archives_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    spec = ModelSpec(entry=str(tmp_path / "net.pt2"), trust=True)
    with pytest.raises(UsageError, match="no such file"):
        load_model(spec)
    (tmp_path / "net.pt2").write_bytes(b"garbage")
    with pytest.raises(UsageError, match=r"cannot read net\.pt2"):
        load_model(spec)
    with pytest.raises(UsageError, match="takes no arguments"):
        load_model(spec.model_copy(update={"args": {"width": 3}}))


def trained(nets: Path) -> dict[str, torch.Tensor]:
    state = load_model(ModelSpec(entry=f"{nets}:make")).state_dict()
    return {key: value + 1 for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap", ["plain", "state_dict", "model", "module.", "_orig_mod.", "safetensors", "no counters"]
)
def test_weights_are_loaded_from_every_usual_wrapping(nets: Path, wrap: str) -> None:
    state = trained(nets)
    given: dict = state
    if wrap in ("state_dict", "model"):
        given = {wrap: state, "epoch": 3}
    elif wrap.endswith("."):
        given = {wrap + key: value for key, value in state.items()}
    elif wrap == "no counters":
        given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    name = "w.safetensors" if wrap == "safetensors" else "w.pt"
    model = load_model(spec_with(nets, given, name))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in state.items() if not k.endswith("tracked"))


def test_weights_that_do_not_fit_are_named_in_one_message(nets: Path) -> None:
    state = trained(nets)
    state["head.weight"] = state.pop("0.bias")
    state["0.weight"] = torch.zeros(8, 3, 3, 3)
    with pytest.raises(UsageError) as caught:
        load_model(spec_with(nets, state))
    for text in (
        "1 missing in the file: 0.bias",
        "1 unknown to the model: head.weight",
        "0.weight (8x3x3x3 in the file",
    ):
        assert text in caught.value.message


def test_a_long_list_of_misfits_is_cut(nets: Path) -> None:
    state = {f"layer{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(UsageError, match="9 unknown to the model: layer0, layer1, layer2, layer3, …"):
        load_model(spec_with(nets, state))


def test_weights_that_are_not_finite_are_refused_by_name(nets: Path) -> None:
    with pytest.raises(QualityError, match="weight: 1 of 6 values are not finite"):
        load_model(ModelSpec(entry=f"{nets}:nan"))
    state = trained(nets)
    state["1.running_var"][2] = float("inf")
    with pytest.raises(QualityError, match=r"1\.running_var: 1 of 4 values are not finite"):
        load_model(spec_with(nets, state))


class Payload:
    def __reduce__(self) -> tuple:
        return (print, ("it ran",))


def test_checkpoints_with_code_are_refused_and_never_run(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = nets.parent / "w.pkl"
    path.write_bytes(pickle.dumps(Payload()))
    specs = [spec_with(nets, {"x": Payload()}), ModelSpec(entry=f"{nets}:make", weights=path)]
    for spec in specs:
        with pytest.raises(TrustError, match="can run code when it is opened") as caught:
            load_model(spec)
        assert caught.value.exit_code == 8
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"garbage", "cannot read w.pt"),
        ("w.pt", b"", "cannot read w.pt"),
        ("w.safetensors", b"garbage", "cannot read w.safetensors"),
        ("w.h5", b"garbage", "unknown kind of weights 'w.h5'"),
        ("w.pt", None, "no such file"),
    ],
)
def test_unreadable_weights_are_named(nets: Path, name: str, content: bytes | None, message: str) -> None:
    path = nets.parent / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_model(ModelSpec(entry=f"{nets}:make", weights=path))


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}])
def test_files_without_a_state_dict_are_named(nets: Path, content: object) -> None:
    with pytest.raises(UsageError, match="w.pt holds no state dict"):
        load_model(spec_with(nets, content))
