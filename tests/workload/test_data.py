import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeprune.errors import TrustError, UsageError
from edgeprune.spec import DataSpec
from edgeprune.workload.data import load_data
from edgeprune.workload.samples import TensorSet, batch_of, labels_of

RNG = np.random.default_rng(0)


def save_npz(path: Path, **arrays: np.ndarray) -> DataSpec:
    np.savez(path, **arrays)
    return DataSpec(source=f"npz:{path}")


def small_npz(path: Path, count: int = 100, shape: tuple[int, ...] = (8, 8, 3)) -> DataSpec:
    x = RNG.integers(0, 256, (count, *shape)).astype(np.uint8)
    return save_npz(path, x=x, y=np.arange(count) % 5)


def keys(dataset: TensorSet) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in dataset.x}


def test_splits_are_disjoint_and_together_all_samples(tmp_path: Path) -> None:
    data = load_data(small_npz(tmp_path / "d.npz"), seed=3)
    sets = [keys(part) for part in (data.train, data.validation, data.test)]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 100
    assert keys(data.calibration) <= keys(data.train)


def test_splits_keep_the_share_of_every_class_and_say_so(tmp_path: Path) -> None:
    data = load_data(small_npz(tmp_path / "d.npz"), seed=3)
    for part in (data.validation, data.test):
        counts = np.bincount(labels_of(part), minlength=5)
        assert counts.min() >= 2 and np.ptp(counts) <= 1
    assert any("split off" in note for note in data.notes) and any("calibration" in note for note in data.notes)


def test_same_seed_gives_the_same_splits_and_another_seed_others(tmp_path: Path) -> None:
    spec = small_npz(tmp_path / "d.npz")
    one, same, other = (load_data(spec, seed) for seed in (1, 1, 2))
    assert (one.validation.x == same.validation.x).all()
    assert keys(one.validation) != keys(other.validation)


def test_given_validation_and_test_sets_are_used_as_they_are(tmp_path: Path) -> None:
    x = RNG.random((30, 1, 5, 5), dtype=np.float32)
    y = np.arange(10) % 2
    spec = save_npz(tmp_path / "d.npz", x=x[:10], y=y, x_val=x[10:20], y_val=y, x_test=x[20:], y_test=y)
    data = load_data(spec, calibration_samples=8)
    assert (data.train.x.numpy() == x[:10]).all() and (data.test.x.numpy() == x[20:]).all()
    assert (data.validation.x.numpy() == x[10:20]).all() and len(data.calibration) == 8


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 8), (8, 8)])
def test_bytes_become_channels_first_floats_in_0_to_1(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = RNG.integers(0, 256, (20, *shape)).astype(np.uint8)
    data = load_data(save_npz(tmp_path / "d.npz", x=x, y=np.arange(20) % 2), calibration_samples=4)
    got, _ = data.train[0]
    channels = 1 if len(shape) == 2 else 3
    assert got.dtype == np.float32 and got.shape == (channels, 8, 8) and 0 <= got.min() <= got.max() <= 1
    expected = (x.transpose(0, 2, 3, 1) if shape[0] == 3 else x).reshape(20, 8, 8, channels)
    assert any(np.allclose(got.transpose(1, 2, 0) * 255, image, atol=1e-3) for image in expected)


def test_mean_std_and_size_are_applied(tmp_path: Path) -> None:
    spec = small_npz(tmp_path / "d.npz")
    plain = load_data(spec)
    scaled = load_data(spec.model_copy(update={"mean": (0.5,), "std": (0.25, 0.5, 1.0)}))
    expected = (plain.train.x - 0.5) / torch.tensor([0.25, 0.5, 1.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(scaled.train.x, expected)
    assert load_data(spec.model_copy(update={"size": (4, 6)})).train.x.shape[1:] == (3, 4, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.1, 0.2)}, "3 channels but 2 means"),
        ({"std": (0.0,)}, "deviation 0 is not above zero"),
    ],
)
def test_standardisation_that_does_not_fit_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_data(small_npz(tmp_path / "d.npz").model_copy(update=change))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 8, 8, 3))}, "data without labels: d.npz: x"),
        ({"y": np.zeros(4)}, "no array 'x'"),
        ({"x": np.zeros((4, 8)), "y": np.zeros(3, int)}, "4 samples but 3 targets"),
        ({"x": np.zeros((0, 8)), "y": np.zeros(0, int)}, "0 samples"),
        ({"x": np.zeros((4, 3, 8, 3)), "y": np.zeros(4, int)}, "could be channels first or last"),
        ({"x": np.full((4, 8), np.nan), "y": np.zeros(4, int)}, "32 of 32 values are not finite"),
        ({"x": np.array(["a", "b"]), "y": np.zeros(2, int)}, "are not numbers"),
        ({"x": np.zeros((2, 8)), "y": np.array(["cat", "dog"])}, "targets are <U3, not numbers"),
        ({"x": np.zeros((4, 8)), "y": np.zeros(4, int), "z": np.zeros(1)}, "unknown array 'z'"),
        ({"x": np.zeros((4, 8)), "y": np.arange(4)}, "has a single sample: nothing to split off"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_data(save_npz(tmp_path / "d.npz", **arrays))


def test_pickled_objects_are_refused_for_safety(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}], dtype=object), y=np.zeros(1))
    with pytest.raises(TrustError, match="holds pickled objects"):
        load_data(DataSpec(source=f"npz:{tmp_path / 'd.npz'}"))


def test_files_that_are_no_npz_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "b.npz"
    broken.write_bytes(b"PK\x03\x04 cut off")
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name, message in [("b.npz", "cannot read b.npz"), ("none.npz", "no such file"), ("single.npy", "single array")]:
        with pytest.raises(UsageError, match=message):
            load_data(DataSpec(source=f"npz:{tmp_path / name}"))


@pytest.mark.parametrize(
    ("source", "message"),
    [(None, "no data given"), ("npy:x", "unknown data source 'npy:x'"), ("somewhere", "unknown data source")],
)
def test_unknown_sources_are_refused(source: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_data(DataSpec(source=source))


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, name: str, images: np.ndarray, labels: np.ndarray, packed: bool) -> None:
    for kind, array in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", labels)):
        raw = idx_bytes(array.astype(np.uint8))
        path = folder / (f"{kind}.gz" if packed else kind)
        path.write_bytes(gzip.compress(raw) if packed else raw)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_folders_give_their_train_and_test_files(tmp_path: Path, packed: bool) -> None:
    images, labels = RNG.integers(0, 256, (40, 6, 5)), np.arange(40) % 4
    write_idx(tmp_path, "train", images[:30], labels[:30], packed)
    write_idx(tmp_path, "t10k", images[30:], labels[30:], packed)
    data = load_data(DataSpec(source=f"idx:{tmp_path}"), calibration_samples=8)
    assert len(data.train) + len(data.validation) == 30
    assert np.allclose(data.test.x.numpy()[:, 0] * 255, images[30:], atol=1e-3) and list(data.test.y) == list(
        labels[30:]
    )


def test_bad_idx_folders_are_named(tmp_path: Path) -> None:
    spec = DataSpec(source=f"idx:{tmp_path}")
    with pytest.raises(UsageError, match="no such folder"):
        load_data(DataSpec(source=f"idx:{tmp_path / 'none'}"))
    with pytest.raises(UsageError, match="no train-images"):
        load_data(spec)
    images = tmp_path / "train-images-idx3-ubyte"
    for content, message in [
        (b"\x89PNG....", "no idx file: it starts with 89504e47"),
        (b"", "it starts with nothing"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], "cut off: 17 of 18 bytes"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8)), "data without labels"),
    ]:
        images.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            load_data(spec)
    images.unlink()
    images.with_suffix(".gz").write_bytes(b"no gzip")
    with pytest.raises(UsageError, match="cannot read train-images-idx3-ubyte.gz"):
        load_data(spec)


def write_images(folder: Path, count: int = 6, mode: str = "RGB") -> None:
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            shade = 40 + 100 * label + index
            Image.new(mode, (12 + index, 10), shade if mode == "L" else (shade, 0, 0)).save(
                folder / name / f"{index}.png"
            )


def test_image_folders_are_scaled_and_labelled_by_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "d")
    data = load_data(DataSpec(source=f"images:{tmp_path / 'd'}", size=(8, 9)), calibration_samples=4)
    assert len(data.train) + len(data.validation) + len(data.test) == 12
    x, y = batch_of(data.train, range(len(data.train)))
    assert x.shape[1:] == (3, 8, 9) and ((x[:, 0, 0, 0] * 255 > 100).long() == y).all()


def test_image_subfolders_give_the_splits_and_grey_stays_grey(tmp_path: Path) -> None:
    for role, count in (("train", 6), ("val", 2), ("test", 3)):
        write_images(tmp_path / role, count, "L")
    data = load_data(DataSpec(source=f"images:{tmp_path}", size=(8, 8)), calibration_samples=4)
    assert [len(s) for s in (data.train, data.validation, data.test, data.calibration)] == [12, 4, 6, 4]
    assert data.test[0][0].shape == (1, 8, 8)


def test_bad_image_folders_are_named(tmp_path: Path) -> None:
    spec = DataSpec(source=f"images:{tmp_path / 'd'}", size=(8, 8))
    with pytest.raises(UsageError, match="no such folder"):
        load_data(spec)
    (tmp_path / "d" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="images need a size"):
        load_data(spec.model_copy(update={"size": None}))
    with pytest.raises(UsageError, match="data without labels: 1 class folders"):
        load_data(spec)
    (tmp_path / "d" / "dog").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        load_data(spec)


def test_a_broken_or_huge_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    spec = DataSpec(source=f"images:{tmp_path}", size=(8, 8))
    monkeypatch.setattr("edgeprune.workload.images.PIXEL_LIMIT", 100)
    with pytest.raises(UsageError, match="12x10 pixels") as caught:
        load_data(spec)
    assert caught.value.where.endswith("0.png")
    (tmp_path / "cat" / "0.png").write_bytes(b"not an image")
    with pytest.raises(UsageError, match="cannot decode the image"):
        load_data(spec)


def test_an_image_cut_off_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    write_images(tmp_path)
    image = tmp_path / "cat" / "3.png"
    image.write_bytes(image.read_bytes()[:45])
    with pytest.raises(UsageError, match="cannot decode the image") as caught:
        load_data(DataSpec(source=f"images:{tmp_path}", size=(8, 8)))
    assert caught.value.where.endswith("3.png")


def test_classes_that_training_lacks_and_parts_without_training_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "test")
    spec = DataSpec(source=f"images:{tmp_path}", size=(8, 8))
    with pytest.raises(UsageError, match="test but no train folder"):
        load_data(spec)
    write_images(tmp_path / "train")
    (tmp_path / "test" / "eel").mkdir()
    with pytest.raises(UsageError, match="class 'eel' in"):
        load_data(spec)


CODE = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
from beside import COUNT

def samples(count):
    return [(np.full((2, 3), i, dtype=np.float32), i % 2) for i in range(count)]

def two(): return samples(COUNT), samples(4)
def three(): return samples(COUNT), iter_only(), samples(6)
class iter_only:
    def __len__(self): return 4
    def __iter__(self): return iter(samples(4))
def torch_sets():
    x, y = torch.zeros(20, 3), torch.arange(20) % 2
    return TensorDataset(x, y), TensorDataset(x[:4], y[:4])
def one(): return samples(COUNT)
def loader(): return DataLoader(samples(8)), samples(4)
def generator(): return (s for s in samples(4)), samples(4)
def unlabelled(): return [s[0] for s in samples(8)], samples(4)
def none_labels(): return [(s[0], None) for s in samples(8)], samples(4)
def integers(): return [(s[0].astype(int), 0) for s in samples(8)], samples(4)
def texts(): return [(s[0], "cat") for s in samples(8)], samples(4)
def ragged(): return [(np.zeros(2 + i % 2), 0) for i in range(8)], samples(4)
def nan(): return [(np.full(2, np.nan), 0) for i in range(8)], samples(4)
def empty(): return [], samples(4)
def fails(): raise OSError("disk gone")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("COUNT = 20\n")
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def test_user_code_gives_two_or_three_sets(code: Path) -> None:
    two = load_data(DataSpec(source=f"{code}:two"), calibration_samples=8)
    assert [len(s) for s in (two.train, two.test, two.validation, two.calibration)] == [16, 4, 4, 8]
    three = load_data(DataSpec(source=f"{code}:three"), calibration_samples=8)
    assert [len(s) for s in (three.train, three.validation, three.test)] == [20, 4, 6]
    assert load_data(DataSpec(source=f"{code}:torch_sets"), calibration_samples=8).train[0][0].shape == (3,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one", r"gave list, not \(train, validation\)"),
        ("loader", "a DataLoader gives batches"),
        ("generator", "generator has no length"),
        ("unlabelled", "data without labels: sample 0 is not a pair"),
        ("none_labels", r"data without labels: .* \(x, None\)"),
        ("integers", "x is int64, not floating point"),
        ("texts", "holds str, not numbers"),
        ("ragged", "train samples differ in shape"),
        ("nan", "train sample 0 has values that are not finite"),
        ("empty", "the train set is empty"),
        ("fails", "disk gone"),
    ],
)
def test_bad_user_sets_are_named(code: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_data(DataSpec(source=f"{code}:{name}"))


def test_scaling_of_user_sets_is_refused_rather_than_ignored(code: Path) -> None:
    with pytest.raises(UsageError, match="size, mean and std are for files of images"):
        load_data(DataSpec(source=f"{code}:two", size=(8, 8)))


def test_a_batch_of_different_shapes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="samples differ in shape: sample 0"):
        batch_of([(np.zeros(2, np.float32), 0), (np.zeros(3, np.float32), 1)], [0, 1])
