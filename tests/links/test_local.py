from pathlib import Path

import pytest

from edgeprune.children import Ended
from edgeprune.errors import DeviceError, UsageError
from edgeprune.links import local


def test_each_script_begins_in_a_folder_of_its_own_that_is_removed() -> None:
    link = local.connect("local")
    first, second = (Path(link.run("pwd; ls -A; touch left; ls").stdout.decode().split("\n")[0]) for _ in range(2))
    assert first != second and first != Path.cwd() and not first.exists()


def test_an_address_has_nothing_after_the_word() -> None:
    with pytest.raises(UsageError, match="cannot read the address 'local:x'"):
        local.connect("local:x")


def test_a_shell_that_does_not_answer_is_an_error() -> None:
    error = local.connect("local").program.fault(Ended(1, b"", b"out of memory\n"))
    assert isinstance(error, DeviceError) and "out of memory" in error.message
