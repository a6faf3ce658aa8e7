"""The errors: stable names and exit codes, and hints that name what was meant."""

from __future__ import annotations

import pytest

from edgeprune import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgepruneError)]


@pytest.mark.parametrize(
    ("kind", "code", "exit_code"),
    [
        (errors.UsageError, "USAGE", 2),
        (errors.UnsupportedError, "UNSUPPORTED", 2),
        (errors.BudgetError, "BUDGET", 3),
        (errors.QualityError, "QUALITY", 4),
        (errors.DeviceError, "DEVICE", 5),
        (errors.MeasurementError, "MEASUREMENT", 6),
        (errors.MissingExtraError, "MISSING_EXTRA", 7),
        (errors.TrustError, "TRUST", 8),
        (errors.DeployError, "DEPLOY", 9),
        (errors.UnknownStateError, "UNKNOWN_STATE", 10),
        (errors.NoRoomError, "NO_ROOM", 11),
    ],
)
def test_names_and_exit_codes_are_fixed(kind: type[errors.EdgepruneError], code: str, exit_code: int) -> None:
    err = kind("what", where="where", hint="hint")
    assert (err.code, err.exit_code, err.message, err.where, err.hint) == (code, exit_code, "what", "where", "hint")
    assert str(err) == "what"


def test_the_tree_in_the_docstring_names_every_class() -> None:
    text = errors.__doc__ or ""
    assert all(kind.__name__ in text for kind in KINDS)


def test_a_near_name_is_offered_and_else_all_are() -> None:
    assert errors.did_you_mean("rpi", ["rpi4", "rpi5", "host"]) in (
        "did you mean rpi5 or rpi4?",
        "did you mean rpi4 or rpi5?",
    )
    assert errors.did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert errors.did_you_mean("zzz", []) == ""


def test_a_missing_extra_names_the_install_line() -> None:
    err = errors.missing_extra("openvino", "export to OpenVINO")
    assert err.message == "export to OpenVINO needs the extra 'openvino', which is not installed"
    assert err.hint == 'pip install "edgeprune[openvino]"'
