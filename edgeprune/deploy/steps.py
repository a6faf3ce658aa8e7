"""Every script that a deployment runs on a device, and the steps they are run as. Nothing else here talks to a device.

The scripts are constant and of what dash, busybox and Android's toybox share; values are their arguments. What changes
the device does so by one rename, or in a folder that nothing points to. A step that changes anything first makes sure
that the lock is still ours and says for how long it will need it.

The lock is a symbolic link, which is made and read in one piece, to `token:boot:uptime:lease:who`. It is free again
when the device has started anew since, or when the lease, by the device's own uptime, is over: no clock is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.device_shell import SHORT_S

BUSY, LOST, MOVED, ABSENT, LACKS = 75, 76, 77, 66, 69
_FLUSH_S = 120.0  # a slow card writes what others left it to write first
_SLACK_S = 60.0  # of a lease, for what happens between two steps

_WHERE = r"""
if [ -n "$1" ]; then
  root=$1
elif [ -n "$(getprop ro.build.version.release 2>/dev/null)" ]; then
  root=/data/local/tmp/edgeprune
else
  case $HOME in /*) root=$HOME/edgeprune ;; *) exit 1 ;; esac
fi
printf '%s' "$root"
"""
_NOW = r"""
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null) || boot=unknown
read -r up rest </proc/uptime || exit 1
up=${up%%.*}
"""
_LOCK = (
    r"""
umask 022
mkdir -p "$1/incoming" "$1/releases" || exit 1
cd "$1" || exit 1
for tool in sha256sum readlink ln mv sync; do
  command -v "$tool" >/dev/null 2>&1 || { echo "there is no $tool" >&2; exit 69; }
done
ln -s ./ "lock.$2" && ln -s . "lock.$2.next" || exit 1
mv -fT "lock.$2.next" "lock.$2" 2>/dev/null
found=$(readlink "lock.$2")
rm -f "lock.$2" "lock.$2.next"
if [ "$found" != . ]; then
  [ -L lock ] && exit 75
  echo "mv -T does not replace a link" >&2
  exit 69
fi
"""
    + _NOW
    + r"""
mine="$2:$boot:$up:$3:$4"
ln -s "$mine" lock 2>/dev/null && exit 0
found=$(readlink lock) || { [ -e lock ] && echo "lock is no link of ours" >&2; exit 1; }
rest=${found#*:}; its_boot=${rest%%:*}
rest=${rest#*:}; since=${rest%%:*}
rest=${rest#*:}; lease=${rest%%:*}
who=${rest#*:}
case $since$lease in *[!0-9]*|"") echo "lock is no link of ours" >&2; exit 1 ;; esac
left=$((since + lease - up))
if [ "$its_boot" = "$boot" ] && [ "$up" -ge "$since" ] && [ "$left" -gt 0 ]; then
  printf '%s\t%s' "$left" "$who"
  exit 75
fi
mv -fT lock "lock.$2" || exit 75
if [ "$(readlink "lock.$2")" != "$found" ]; then
  ln -s "$(readlink "lock.$2")" lock 2>/dev/null
  rm -f "lock.$2"
  exit 75
fi
rm -f "lock.$2"
ln -s "$mine" lock 2>/dev/null || exit 75
printf '%s' "$who"
"""
)
_HELD = (
    r"""
umask 022
cd "$1" || exit 1
found=$(readlink lock) || exit 76
case $found in "$2:"*) ;; *) exit 76 ;; esac
"""
    + _NOW
    + r"""
rm -f "lock.$2"
ln -s "$2:$boot:$up:$3:${found##*:}" "lock.$2" && mv -fT "lock.$2" lock || exit 1
shift 3
flush() { sync "$@" 2>/dev/null || sync; }
hashed() {
  for name in * .[!.]* ..?*; do
    [ -e "$name" ] || [ -L "$name" ] || continue
    if [ -f "$name" ] && [ ! -L "$name" ]; then
      hash=$(sha256sum <"$name") || exit 1
      printf '%s %s\n' "${hash%% *}" "$name"
    else
      printf 'other %s\n' "$name"
    fi
  done
}
"""
)
_LOOK = (
    r"""
cd "$1" 2>/dev/null || exit 66
say() { printf '%s\t%s\n' "$1" "$2"; }
"""
    + _NOW
    + r"""
for name in current previous; do
  if [ -L "$name" ]; then say "$name" "$(readlink "$name")"; elif [ -e "$name" ]; then say "$name" "no link"; fi
done
for name in releases/*; do [ -d "$name" ] && say release "${name#releases/}"; done
[ -L lock ] && say lock "$(readlink lock)"
say clock "$(date +%s)"
df -Pk . 2>/dev/null | { read -r _; read -r _ _ _ free _; say free_kib "$free"; }
[ -f state.json ] && say state "$(head -c 65536 state.json)"
say end end
"""
)
# Of a folder within the app's: every entry, as `sha256 name`, or `other name` for what is no plain file.
_HASHES = (
    r"""
cd "$1/$2" || exit 66
"""
    + _HELD[_HELD.index("hashed()") :]
    + "hashed\n"
)
_READ = r"""
cd "$1/releases/$2" 2>/dev/null && [ -f "$3" ] && [ ! -L "$3" ] || exit 66
head -c 2097152 "$3"
"""
_BEGIN = (
    _HELD
    + r"""
mkdir -p "incoming/$1" && cd "incoming/$1" || exit 1
shift
for name in * .[!.]* ..?*; do
  [ -e "$name" ] || [ -L "$name" ] || continue
  wanted=
  for known in "$@"; do [ "$name" = "$known" ] && [ -f "$name" ] && [ ! -L "$name" ] && wanted=1; done
  [ -n "$wanted" ] || rm -rf "./$name"
done
hashed
"""
)
_SEAL = (
    _HELD
    + r"""
cd "incoming/$1" || exit 1
chmod 644 ./* || exit 1
flush ./* .
hashed
"""
)
_STAGE = (
    _HELD
    + r"""
[ ! -e "releases/$2" ] || exit 77
mv -fT "incoming/$1" "releases/$2" && flush releases incoming
"""
)
_TEST = (
    _HELD
    + r"""
cd "releases/$1" || exit 66
shift
exec "$@"
"""
)
_RUN = r"""
cd "$1/releases/$2" || exit 66
shift 2
exec "$@"
"""
_HEALTH = (
    _HELD
    + r"""
cd current/ || exit 66
exec "$@"
"""
)
_SWAP = (
    _HELD
    + r"""
[ "$(readlink current)" = "$2" ] || exit 77
[ -f "releases/$1/manifest.json" ] || exit 66
put() { rm -f "$2.next"; ln -s "releases/$1" "$2.next" && mv -fT "$2.next" "$2"; }
[ -z "$3" ] || put "$3" previous || exit 1
put "$1" current || exit 1
flush .
"""
)
_WITHDRAW = (
    _HELD
    + r"""
[ "$(readlink current)" = "$1" ] || exit 77
rm -f current && flush .
"""
)
_COMMIT = (
    _HELD
    + r"""
printf '%s\n' "$1" >state.json.next || exit 1
flush state.json.next
mv -f state.json.next state.json && flush .
"""
)
_COLLECT = (
    _HELD
    + r"""
current=$(readlink current) previous=$(readlink previous)
for name in "$@"; do
  case releases/$name in "$current" | "$previous") continue ;; esac
  mv -fT "releases/$name" "incoming/old-$name"
done
rm -rf incoming/* ./*.next
for name in lock.*; do [ -L "$name" ] && rm -f "$name"; done
exit 0
"""
)
_RENEW = _HELD + ":\n"
_UNLOCK = (
    _HELD
    + r"""
rm -f lock
"""
)


@dataclass(frozen=True)
class Step:
    """One call of a device.

    Attributes:
        name: What it does, in messages.
        arguments: The script's; `flow` puts folder, lock and lease before those of a step that holds the lock.
        held: Whether it needs the lock.
        program: Whether it ends with the status of a program of the release's or the user's.
    """

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    timeout_s: float = SHORT_S
    held: bool = True
    lease_s: float | None = None
    program: bool = False

    def full(self, folder: str, token: str) -> tuple[str, ...]:
        """All arguments, for an app's folder and a lock's token."""
        if not self.held:
            return (folder, *self.arguments)
        return (folder, token, str(int((self.lease_s or self.timeout_s) + _SLACK_S)), *self.arguments)


def where(root: str | None) -> Step:
    """Prints the root: that which was asked for, else the usual one of such a device. Has no folder yet."""
    return Step("finding its folder", _WHERE, (root or "",), held=False)


def lock(token: str, who: str, lease_s: float = 2 * SHORT_S) -> Step:
    """Makes the folders and takes the lock, also from one whose time is over; prints whose.

    Status BUSY: seconds left, and who holds it. Status LACKS: a tool is missing, or a link cannot be replaced in one
    piece.
    """
    return Step("taking the lock", _LOCK, (token, str(int(lease_s + _SLACK_S)), who), held=False)


def look() -> Step:
    """Prints what is there, see `state.read_state`; changes nothing."""
    return Step("looking", _LOOK, held=False)


def hashes(folder: str, timeout_s: float) -> Step:
    """Hashes everything in `releases/<name>` or another folder of the app."""
    return Step("hashing", _HASHES, (folder,), timeout_s, held=False)


def read(name: str, file: str) -> Step:
    """Prints a small file of a release. Status ABSENT: it has none."""
    return Step("reading", _READ, (name, file), held=False)


def begin(release: str, names: tuple[str, ...], timeout_s: float, lease_s: float) -> Step:
    """Makes the folder of an upload, or continues one: hashes what is there and wanted, removes the rest."""
    return Step("beginning the upload", _BEGIN, (release, *names), timeout_s, lease_s=lease_s)


def seal(release: str, timeout_s: float) -> Step:
    """Flushes an upload to disk, then hashes it."""
    return Step("hashing what arrived", _SEAL, (release,), _FLUSH_S + timeout_s)


def stage(release: str, name: str) -> Step:
    """Makes a complete upload a release, under a name that is free."""
    return Step("staging", _STAGE, (release, name), _FLUSH_S)


def run_in(name: str, words: tuple[str, ...], timeout_s: float, *, held: bool) -> Step:
    """Runs a program in a release's folder."""
    return Step("testing", _TEST if held else _RUN, (name, *words), timeout_s, held=held, program=True)


def health(words: tuple[str, ...], timeout_s: float) -> Step:
    """Runs the user's program in the folder of the current release."""
    return Step("asking the health command", _HEALTH, words, timeout_s, program=True)


def swap(name: str, current: str, previous: str) -> Step:
    """Makes a release current, where `current` still is (empty: nothing); `previous` becomes so too unless empty."""
    return Step("switching", _SWAP, (name, f"releases/{current}" if current else "", previous), _FLUSH_S)


def withdraw(name: str) -> Step:
    """Makes nothing current, where this release is: the way back from a first deployment."""
    return Step("withdrawing", _WITHDRAW, (f"releases/{name}",), _FLUSH_S)


def commit(state: str) -> Step:
    """Writes state.json."""
    return Step("committing", _COMMIT, (state,), _FLUSH_S)


def collect(names: tuple[str, ...]) -> Step:
    """Removes these releases, unless they are current or previous, and all leftovers."""
    return Step("clearing up", _COLLECT, names, 4 * SHORT_S)


def renew(lease_s: float) -> Step:
    """Keeps the lock for what is done beside it."""
    return Step("keeping the lock", _RENEW, lease_s=lease_s)


def unlock() -> Step:
    """Lets the next one deploy."""
    return Step("unlocking", _UNLOCK)
