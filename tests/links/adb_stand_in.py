"""Stands in for the adb program: the same arguments, messages and exit statuses, with this machine as the phone.

The serial number decides how the phone behaves: `noisy-…` prints before and after the command, `old-…` has the first
shell protocol, `dying-…` breaks off in the middle, `lying-…` loses the exit status, `shy-…` has not allowed this
computer, `gone-…` is not there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def shell(serial: str, arguments: list[str]) -> int:
    """Words are joined and run by the phone's shell, with stdin, stdout, stderr and exit status passed on."""
    while arguments and arguments[0].startswith("-"):
        if arguments.pop(0) not in ("-T", "-t", "-n", "-x"):
            return complain("adb: error: unknown option")
    command = ["/bin/sh", "-c", " ".join(arguments)]
    if serial.startswith("old-"):
        subprocess.run(command, stderr=subprocess.STDOUT, start_new_session=True, check=False)
        return 0
    if serial.startswith("dying-"):
        done = subprocess.run(command, capture_output=True, start_new_session=True, check=False)
        sys.stdout.buffer.write(done.stdout[: len(done.stdout) // 2])
        return complain("error: closed", 255)
    if serial.startswith("noisy-"):
        print("Welcome, all of you", flush=True)
        print("WARNING: linker: something", file=sys.stderr, flush=True)
    status = subprocess.run(command, start_new_session=True, check=False).returncode
    if serial.startswith("noisy-"):
        print("logout", flush=True)
    return 0 if serial.startswith("lying-") else status if status >= 0 else 128 - status


def push(source: str, destination: str) -> int:
    try:
        shutil.copyfile(source, destination)
    except FileNotFoundError as error:
        if error.filename == source:
            return complain(f"adb: error: cannot stat '{source}': No such file or directory")
        why = "remote couldn't create file: No such file or directory"
        return complain(f"adb: error: failed to copy '{source}' to '{destination}': {why}")
    print(f"{source}: 1 file pushed, 0 skipped. 21.4 MB/s ({Path(source).stat().st_size} bytes in 0.000s)")
    return 0


def pull(source: str, destination: str) -> int:
    if not Path(source).exists():
        return complain(f"adb: error: failed to stat remote object '{source}': No such file or directory")
    shutil.copyfile(source, destination)
    print(f"{source}: 1 file pulled, 0 skipped. 21.4 MB/s ({Path(source).stat().st_size} bytes in 0.000s)")
    return 0


def complain(text: str, status: int = 1) -> int:
    print(text, file=sys.stderr)
    return status


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[0] != "-s":
        return complain("adb: error: more than one device/emulator")
    serial, verb, rest = arguments[1], arguments[2], arguments[3:]
    if serial.startswith("gone-"):
        return complain(f"adb: device '{serial}' not found")
    if serial.startswith("shy-"):
        return complain(
            "adb: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\nTry that on the phone."
        )
    if verb == "get-state":
        print("device")
        return 0
    if verb == "shell":
        return shell(serial, rest)
    if verb in ("push", "pull") and len(rest) == 2:
        return push(*rest) if verb == "push" else pull(*rest)
    return complain(f"adb: unknown command {verb}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
