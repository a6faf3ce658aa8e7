import numpy as np
import pytest
import torch

from edgeprune.spec import Spec
from edgeprune.training.evaluate import evaluate
from edgeprune.workload.demo import FIT_SCENES, SCENES, WEIGHTS, demo_model, demo_network, demo_scenes
from edgeprune.workload.demo_scenes import CLASSES, SPLITS, scenes, source_digits
from edgeprune.workload.load import load_workload
from edgeprune.workload.samples import part
from edgeprune.workload.splits import stratified_draw
from edgeprune.workload.tasks import Classify


def test_scenes_are_the_same_every_time_and_differ_by_seed() -> None:
    one, same, other = (scenes("validation", 20, seed) for seed in (0, 0, 1))
    assert (one[0] == same[0]).all() and (one[1] == same[1]).all() and (one[0] != other[0]).any()


def test_no_handwritten_digit_is_in_two_splits() -> None:
    used = [set(source_digits(split)[0].tolist()) for split in SPLITS]
    assert sum(map(len, used)) == len(set().union(*used)) == 1797


def test_every_split_has_digits_of_every_class() -> None:
    for split in SPLITS:
        assert np.bincount(source_digits(split)[1], minlength=CLASSES).min() >= 20


def test_scenes_are_grey_bytes_with_balanced_labels() -> None:
    images, labels = scenes("test", 95)
    assert images.shape == (95, 64, 64) and images.dtype == np.uint8 and labels.dtype == np.int64
    counts = np.bincount(labels, minlength=CLASSES)
    assert counts.sum() == 95 and np.ptp(counts) <= 1
    assert images.std(axis=(1, 2)).min() > 5 and np.unique(images.reshape(95, -1), axis=0).shape[0] == 95


def test_the_network_takes_scenes_and_has_an_even_number_of_channels_everywhere() -> None:
    dataset = demo_scenes("train", 4)
    assert dataset.x.shape == (4, 1, 64, 64) and abs(float(dataset.x.mean())) < 1 and 0.5 < float(dataset.x.std()) < 2
    network = demo_network().eval()
    assert network(dataset.x).shape == (4, CLASSES)
    widths = {layer.out_channels for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)}
    assert all(width % 8 == 0 for width in widths)


def test_a_job_without_a_model_is_the_demo() -> None:
    workload = load_workload(Spec())
    sizes = {role: len(getattr(workload.data, role)) for role in SCENES}
    assert workload.kind == "demo" and sizes == {**SCENES, "train": FIT_SCENES} and sizes["test"] >= 1000
    assert workload.example.shape == (1, 1, 64, 64) and len(workload.data.calibration) == 256 and workload.notes


def test_the_shipped_weights_are_small_and_read_most_scenes() -> None:
    assert WEIGHTS.stat().st_size <= 5_000_000
    dataset = demo_scenes("test", SCENES["test"])
    sample = part(dataset, stratified_draw(dataset.y.numpy(), 200, 0).tolist())
    assert evaluate(demo_model(), sample, Classify())["accuracy"] == pytest.approx(0.95, abs=0.04)
