#!/usr/bin/env bash
# Runs the core suite as an ordinary user.  Only root can, and root should: it
# passes permission checks that would stop anybody else.
#
# The tests run in a private copy of the tree, so that this user needs no access
# to ours and leaves nothing in it.  Nothing of root's is opened up for them.
#
# Settings, from the environment:
#   TEST_USER     who runs the tests (nobody)
#   PYTEST_ARGS   further arguments for pytest, split at spaces
#   PYTHON        the interpreter to prefer, if that user may run it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TEST_USER=${TEST_USER:-nobody}
SUITE=(tests/unit tests/property tests/contract tests/integration)
CACHE=/var/tmp/sharedcache-test-venvs

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

[ "$(id -u)" -eq 0 ] || fail "only root can run tests as another user"
uid=$(id -u "$TEST_USER" 2>/dev/null) || fail "there is no user $TEST_USER"
gid=$(id -g "$TEST_USER")
[ "$uid" -ne 0 ] || fail "$TEST_USER is root, and this is to test as somebody else"

# What a program says is shown only if it fails, and then all of it.
quietly() {
    local output status=0
    output=$("$@" 2>&1) || status=$?
    if [ "$status" -ne 0 ]; then
        say "$output"
        fail "$1 ended with exit code $status"
    fi
}

# setpriv, because runuser and su start a PAM session, which a container may
# not have.  It still has root's capabilities when it looks the program up, and
# would start one that the user cannot reach; env looks it up without them.
as_user() {
    setpriv --reuid "$uid" --regid "$gid" --init-groups --inh-caps=-all -- env "$@"
}

# --- A private copy ---------------------------------------------------------

# Not below TMPDIR, which root may have for itself alone.
home=$(mktemp -d /tmp/sharedcache.XXXXXX)
trap 'rm -rf "$home"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
tree=$home/tree
mkdir "$tree" "$home/tmp"

# What git tracks, and what is new and not ignored.  Deleted files are still in
# its index, hence the look at each.  The tree may belong to somebody else than
# root, which git refuses unless told.  A release unpacked from an archive has
# no git, and nothing in it that is not wanted except what we made.
list_files() {
    if git -c safe.directory="$PWD" rev-parse --is-inside-work-tree >/dev/null 2>&1
    then
        git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard |
            while IFS= read -r -d '' file; do
                if [ -e "$file" ] || [ -L "$file" ]; then printf '%s\0' "$file"; fi
            done
    else
        find . \( -name .venv -o -name __pycache__ -o -name '.*_cache' \
            -o -name .hypothesis -o -name '*.egg-info' \) -prune -o \
            ! -type d -print0
    fi
}
list_files | tar --create --null --no-recursion --files-from=- |
    tar --extract --no-same-owner --directory="$tree"
chmod -R u+rwX,go-w "$tree"
chown -R --no-dereference "$uid:$gid" "$home"

# --- An interpreter that this user may run ----------------------------------

# Runs from the copy, because the user may not be able to enter our directory.
user_can_run() {
    (cd "$tree" && as_user "$1" -I -c "
import sys
sys.exit(sys.version_info < (3, 11))") 2>/dev/null
}

# A tool can be readable while the libraries are not, so they are imported too.
venv_serves_user() {
    user_can_run "$1" &&
        (cd "$tree" && as_user "$1" -I -c "import pytest, kazoo, tooz") 2>/dev/null
}

find_user_python() {
    local candidate path
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
        # The first one on PATH may be root's own; the others are looked at too.
        while IFS= read -r path; do
            if user_can_run "$path" && "$path" -c 'import ensurepip, venv' 2>/dev/null
            then
                printf '%s' "$path"
                return 0
            fi
        done < <(type -aP "$candidate" || true)
    done
    return 1
}

# Everything that the tests need is installed once for each set of
# requirements, with a hollow sharedcache that has the metadata (the entry
# points, above all) and no code.  The code comes from the copy, and a process
# that loses sight of the copy fails instead of testing something else.
make_user_venv() {
    local python=$1 target=$2 building
    building=$target.building.$$
    rm -rf "$building"
    mkdir -p "$building/hollow/sharedcache" "$building/hollow/agents"
    cp pyproject.toml README.md LICENSE "$building/hollow/"
    cp sharedcache/__init__.py "$building/hollow/sharedcache/"
    touch "$building/hollow/agents/__init__.py"
    # A virtual environment cannot be moved: its programs name their own place.
    rm -rf "$target"
    mv "$building" "$target"
    quietly "$python" -m venv "$target/venv"
    quietly "$target/venv/bin/python" -m pip --disable-pip-version-check install \
        --progress-bar off -e "$target/hollow[test,yaml]"
    # Whatever umask root has, the user must be able to read this.
    chmod -R u+rwX,go+rX,go-w "$target"
    touch "$target/complete"
}

python=$PWD/.venv/bin/python
if ! venv_serves_user "$python"; then
    if ! base=$(find_user_python); then
        command -v apt-get >/dev/null ||
            fail "$TEST_USER can run no Python 3.11 or newer with venv and ensurepip"
        say "Installing Debian's python3-venv, for a Python that $TEST_USER can run"
        export DEBIAN_FRONTEND=noninteractive
        quietly apt-get update
        quietly apt-get install -y --no-install-recommends python3-venv
        base=$(find_user_python) ||
            fail "$TEST_USER can run no Python 3.11 or newer with venv and ensurepip"
    fi
    # /var/tmp is everybody's: a directory that somebody else made there first
    # would give them root.
    (umask 022 && mkdir -p "$CACHE")
    if [ -L "$CACHE" ] || [ "$(stat -c '%u %a' "$CACHE")" != '0 755' ]; then
        fail "$CACHE is not root's own; look at it and remove it"
    fi
    version=$("$base" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    key=$(cat pyproject.toml scripts/test-as-user.sh | sha256sum | cut -c1-16)
    cached=$CACHE/$version-$key
    exec 9>"$CACHE/lock"
    flock 9
    if [ ! -e "$cached/complete" ] || ! venv_serves_user "$cached/venv/bin/python"; then
        say "Making a virtual environment that $TEST_USER can use, with $base"
        # Those of other requirements will not be asked for again.
        find "$CACHE" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
        make_user_venv "$base" "$cached"
    fi
    # Shared from here: others may use this one too, none may rebuild it.
    flock --shared 9
    python=$cached/venv/bin/python
fi

# --- The tests --------------------------------------------------------------

# A directory on PATH that the user may not enter turns "no such program" into
# "permission denied", which no test expects.
path=
while IFS= read -r -d : directory; do
    if [ -n "$directory" ] && as_user test -x "$directory" 2>/dev/null; then
        path=$path${path:+:}$directory
    fi
done <<<"$PATH:"

environment=(
    "PATH=${python%/*}:$path"
    "HOME=$home"
    "TMPDIR=$home/tmp"
    "USER=$TEST_USER"
    "LOGNAME=$TEST_USER"
    "LANG=${LANG:-C.UTF-8}"
    # Before the installed package, for the tests and for what they start.
    "PYTHONPATH=$tree"
)
for name in ZOOKEEPER_CLASSPATH SHAREDCACHE_TEST_ZOOKEEPER JAVA_HOME CI TERM \
    HYPOTHESIS_PROFILE; do
    if [ -n "${!name-}" ]; then environment+=("$name=${!name}"); fi
done
# Root's lock is no business of the tests, nor of what they may leave running.
run() { (cd "$tree" && as_user -i "${environment[@]}" "$@" 9>&-); }

origin=$(run "$python" -c 'import sharedcache; print(sharedcache.__file__)')
[ "$origin" = "$tree/sharedcache/__init__.py" ] ||
    fail "the tests would import $origin, not the copy"

say "As $TEST_USER, with $python"
read -r -a arguments <<<"${PYTEST_ARGS-}"
status=0
run "$python" -m pytest -q -m "not root" -n auto --maxprocesses 4 --dist worksteal \
    "${arguments[@]}" "${SUITE[@]}" || status=$?
exit "$status"
