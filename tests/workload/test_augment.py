"""Augmentation of batches: what each one changes, that it follows from the generator, and where it is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.spec import DataSpec, load_spec
from edgeprune.workload.augment import (
    Mixed,
    augmentation,
    check_augmentation,
    cutout,
    jitter,
    mixture,
    mixup_alpha,
    scale,
    spec_augment,
)

SHAPES = {"cutout": (3, 12, 10), "specaugment": (1, 12, 20), "jitter": (6, 50), "scale": (6, 50)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spec(*entries: dict[str, object], **more: object) -> DataSpec:
    return DataSpec.model_validate({"augment": entries, **more})


@pytest.mark.parametrize("name", SHAPES)
def test_each_follows_from_its_seed_keeps_the_shape_and_leaves_its_argument(name: str) -> None:
    wanted = spec({"name": name})
    check_augmentation(wanted, SHAPES[name])
    augment, x = augmentation(wanted), torch.rand(16, *SHAPES[name])
    before = x.clone()
    assert augment is not None
    one, same, other = (augment(x, generator(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape and torch.equal(one, same) and not torch.equal(one, other) and torch.equal(x, before)


@given(height=st.integers(3, 12), width=st.integers(3, 12), size=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_cutout_is_one_square_that_edges_cut(height: int, width: int, size: int, seed: int) -> None:
    x = torch.ones(20, 2, height, width)
    cut = cutout(x, size, generator(seed))
    assert torch.equal(cut[:, 0], cut[:, 1])
    for image in cut[:, 0]:
        rows, columns = torch.where(image == 0)
        assert 1 <= len(rows) <= size**2
        box = (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1)
        assert max(box) <= size and box[0] * box[1] == len(rows)


@pytest.mark.parametrize("shape", [(40, 12, 20), (40, 2, 12, 20)])
def test_masks_of_spectrograms_are_bands_and_spans_within_their_limits(shape: tuple[int, ...]) -> None:
    bands = spec_augment(torch.ones(shape), (4, 1), (0, 0), generator())
    spans = spec_augment(torch.ones(shape), (0, 0), (7, 1), generator())
    for masked, axis, most in ((bands, -2, 4), (spans, -1, 7)):
        flat = masked.reshape(40, -1, 12, 20)[:, 0]
        lines = flat.amax(1 if axis == -1 else 2)  # (n, length): a line is masked whole or not at all
        assert torch.equal(lines, flat.amin(1 if axis == -1 else 2))
        lengths = {int((line == 0).sum()) for line in lines}
        assert lengths <= set(range(most + 1)) and max(lengths) == most
        for line in lines:
            gone = torch.where(line == 0)[0]
            assert not len(gone) or int(gone.max() - gone.min()) + 1 == len(gone)
    assert torch.equal(spec_augment(torch.ones(shape), (0, 2), (0, 2), generator()), torch.ones(shape))


def test_noise_and_factors_have_the_deviation_that_was_asked_for() -> None:
    x = torch.full((200, 6, 100), 2.0)
    noise = jitter(x, 0.05, generator()) - x
    assert abs(float(noise.mean())) < 1e-3 and float(noise.std()) == pytest.approx(0.05, rel=0.02)
    factors = scale(x, 0.1, generator()) / x
    assert torch.equal(factors.amin(2), factors.amax(2)), "one factor per channel"
    assert float(factors.mean()) == pytest.approx(1, abs=0.01) and float(factors[..., 0].std()) == pytest.approx(
        0.1, 0.1
    )


def test_mixing_is_that_of_inputs_and_of_losses() -> None:
    mix = mixture(8, 0.4, generator(3))
    assert 0 <= mix.share <= 1 and sorted(mix.partner.tolist()) == list(range(8))
    x, y, outputs = torch.rand(8, 3), torch.arange(8) % 4, torch.randn(8, 4)
    torch.testing.assert_close(mix.of_inputs(x), mix.share * x + (1 - mix.share) * x[mix.partner])
    soft = mix.share * torch.eye(4)[y] + (1 - mix.share) * torch.eye(4)[y[mix.partner]]
    found = Mixed(mix.share, y[mix.partner]).loss(lambda wanted: torch.nn.functional.cross_entropy(outputs, wanted), y)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(outputs, soft))
    shares = [mixture(2, 0.4, generator(seed)).share for seed in range(400)]
    assert sum(shares) / 400 == pytest.approx(0.5, abs=0.06)
    assert mixture(8, 0.4, generator(3)).share == mix.share


def test_entries_work_in_the_order_of_the_list_after_crop_and_flip() -> None:
    both = spec({"name": "scale", "std": 0.5}, {"name": "jitter", "std": 0.5})
    augment, x = augmentation(both), torch.ones(4, 2, 5)
    assert augment is not None
    drawn = generator(1)
    expected = jitter(scale(x, 0.5, drawn), 0.5, drawn)
    assert torch.equal(augment(x, generator(1)), expected)
    assert augmentation(spec({"name": "mixup"})) is None and mixup_alpha(spec({"name": "mixup", "alpha": 0.3})) == 0.3


@pytest.mark.parametrize(
    ("entry", "shape", "message"),
    [
        ({"name": "cutout"}, (10,), "cutout is for images"),
        ({"name": "cutout", "size": 9}, (3, 8, 8), "cutout of 9 pixels is larger than the images"),
        ({"name": "specaugment"}, (10,), "specaugment is for spectrograms"),
        ({"name": "specaugment"}, (1, 40, 12), "specaugment with 8 frequencies and 16 times is too large"),
        ({"name": "jitter"}, (1, 8, 8), "jitter is for sensors"),
        ({"name": "scale"}, (8,), "scale is for sensors"),
    ],
)
def test_what_means_nothing_for_the_samples_is_refused(
    entry: dict[str, object], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_augmentation(spec(entry), shape)
    assert caught.value.where == "data.augment" and str(shape) in caught.value.hint


def test_two_mixups_are_refused_and_one_fits_anything() -> None:
    check_augmentation(spec({"name": "mixup"}), (7,))
    with pytest.raises(UsageError, match="mixup stands twice"):
        check_augmentation(spec({"name": "mixup"}, {"name": "mixup"}), (7,))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "cutoff"}, "data.augment.0: .*'cutoff'.*'cutout'"),
        ({"name": "cutout", "side": 3}, "unknown key 'data.augment.0.cutout.side'"),
        ({"name": "mixup", "alpha": 0}, "data.augment.0.mixup.alpha: .*greater than 0"),
    ],
)
def test_entries_that_cannot_be_read_are_named(entry: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_spec(None, {"data.augment": [entry]})
