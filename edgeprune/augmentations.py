"""The entries of `data.augment`: what is done to training batches, by name, in the order of the list."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeprune.values import Value


class Cutout(Value):
    """A square of each image is set to zero."""

    name: Literal["cutout"] = "cutout"
    size: int = Field(8, ge=1)  # its side, pixels


class Mixup(Value):
    """Samples are mixed in pairs, and so are their losses."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0)  # both parameters of the Beta distribution of the shares


class SpecAugment(Value):
    """Bands of frequencies and spans of time of a spectrogram are set to zero."""

    name: Literal["specaugment"] = "specaugment"
    frequencies: int = Field(8, ge=0)  # widest band
    bands: int = Field(2, ge=0)
    times: int = Field(16, ge=0)  # longest span
    spans: int = Field(2, ge=0)


class Jitter(Value):
    """Noise on the samples of sensors."""

    name: Literal["jitter"] = "jitter"
    std: float = Field(0.03, gt=0)  # in units of the data


class Scale(Value):
    """Each channel of a sensor times a factor of its own."""

    name: Literal["scale"] = "scale"
    std: float = Field(0.1, gt=0)  # of the factor, whose mean is one


Augmentation = Annotated[Cutout | Mixup | SpecAugment | Jitter | Scale, Field(discriminator="name")]
