#!/usr/bin/env bash
# Installs what building, testing and the demo need, and nothing that is there
# already.  A second run takes a fraction of a second.
#
#   scripts/bootstrap.sh              what the demo and the daemons need
#   scripts/bootstrap.sh --tests      that, and what only some tests need
#   scripts/bootstrap.sh --nfs        what `make test-nfs` needs: an NFS server,
#                                     an emulator, and a kernel for its guests
#   scripts/bootstrap.sh --venv-only  only .venv, for the checks without servers
#
# As root, missing Debian packages are installed.  Anybody else is told in one
# command what to install.
#
# Settings, from the environment:
#   PYTHON                       the interpreter to build .venv with (3.11+)
#   ZOOKEEPER_CLASSPATH          a Java class path with ZooKeeper's jars, used
#                                in place of Debian's package
#   JAVA_HOME                    a Java runtime (8+), before the one on PATH
#   SHAREDCACHE_TEST_ZOOKEEPER   host:port of a running server, used in place
#                                of both the package and Java
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The order is the order of preference.  A name that is only a version
# manager's shim can be on PATH and still not run, so each one is tried.
PYTHONS=(${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3)
ZOOKEEPER_JAR=/usr/share/java/zookeeper.jar
LEAST_JAVA=8
STAMP=.venv/bootstrap.stamp

venv_only=no
for_tests=no
for_nfs=no
case "${1-}" in
    '') ;;
    --venv-only) venv_only=yes ;;
    --tests) for_tests=yes ;;
    --nfs) for_nfs=yes ;;
    *) echo "usage: $0 [--tests|--nfs|--venv-only]" >&2; exit 2 ;;
esac

say() { printf '%s\n' "$*" >&2; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# Two runs at once would install into one .venv; the second waits, and then
# finds the work done.  A filesystem without locks costs only that protection.
exec 9<pyproject.toml
flock 9 2>/dev/null || true

# --- What is there ----------------------------------------------------------

python_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Debian splits ensurepip from its python3, and without it a virtual
# environment has no pip.
python_makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in "${PYTHONS[@]}"; do
        if python_is_new_enough "$candidate" && python_makes_venvs "$candidate"; then
            printf '%s' "$candidate"
            return 0
        fi
    done
    return 1
}

# Names the package that gives a Python able to make virtual environments.
venv_package() {
    local candidate version default
    default=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
        2>/dev/null) || default=
    for candidate in "${PYTHONS[@]}"; do
        if python_is_new_enough "$candidate"; then
            version=$("$candidate" -c \
                'import sys; print("%d.%d" % sys.version_info[:2])')
            if [ "$version" = "$default" ]; then
                printf 'python3-venv'
            else
                printf 'python%s-venv' "$version"
            fi
            return
        fi
    done
    printf 'python3-venv'
}

# The stamp names the tree as well, because an editable install points into
# it: a tree that was moved or copied must install itself again.
wanted_stamp() { printf '%s %s\n' "$(sha256sum <pyproject.toml)" "$PWD"; }

venv_runs() { [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null; }

venv_is_current() {
    [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ] &&
        [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null
}

java_is_new_enough() {
    local java=java told major
    if [ -n "${JAVA_HOME-}" ] && [ -x "$JAVA_HOME/bin/java" ]; then
        java=$JAVA_HOME/bin/java
    fi
    told=$("$java" -version 2>&1) || return 1
    # The line of interest reads: openjdk version "17.0.1" 2021-10-19
    major=${told#*version \"}
    # Java 8 calls itself 1.8.
    major=${major#1.}
    major=${major%%[!0-9]*}
    [ -n "$major" ] && [ "$major" -ge "$LEAST_JAVA" ]
}

missing_for_servers() {
    if [ -z "${SHAREDCACHE_TEST_ZOOKEEPER-}" ]; then
        if [ -z "${ZOOKEEPER_CLASSPATH-}" ] && [ ! -r "$ZOOKEEPER_JAR" ]; then
            # The plain package has only jars and scripts.  The service is in
            # zookeeperd, which we do not want running.
            echo zookeeper
        fi
        java_is_new_enough || echo default-jre-headless
    fi
}

GANESHA_FSAL=ganesha/libfsalvfs.so
KERNEL=.kernel
KERNEL_PACKAGE=linux-image-cloud-amd64

missing_for_nfs() {
    local sbin=$PATH:/usr/sbin:/sbin
    PATH=$sbin command -v ganesha.nfsd >/dev/null || echo nfs-ganesha
    compgen -G "/usr/lib/*/$GANESHA_FSAL" >/dev/null || [ -e "/usr/lib/$GANESHA_FSAL" ] ||
        [ -e "/usr/lib64/$GANESHA_FSAL" ] || echo nfs-ganesha-vfs
    PATH=$sbin command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
    # The daemon that shares files with a guest became a package of its own.
    [ -x /usr/lib/qemu/virtiofsd ] || [ -x /usr/libexec/virtiofsd ] ||
        if [ -n "$(apt-cache show virtiofsd 2>/dev/null)" ]; then echo virtiofsd
        else echo qemu-system-common; fi
    # The plain busybox wants libraries that the guests' first file system lacks.
    { [ -x /bin/busybox ] && ! head -c 4096 /bin/busybox | grep -aq ld-linux; } ||
        echo busybox-static
}

kernel_is_there() {
    .venv/bin/python -c 'from tests.support.nfs.kernel import find_kernel
find_kernel()' 2>/dev/null
}

# Unpacked here and not installed: nobody wants another kernel to boot from.
fetch_kernel() {
    local package log directory
    say "Fetching a kernel for the guests into $KERNEL"
    directory=$(mktemp -d)
    log=$directory/log
    if ! (
        package=$(apt-cache depends "$KERNEL_PACKAGE" |
            sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
        [ -n "$package" ] || { echo "apt knows no $KERNEL_PACKAGE"; exit 1; }
        cd "$directory" && apt-get download "$package"
    ) >"$log" 2>&1; then
        cat "$log" >&2
        rm -rf "$directory"
        say "error: could not fetch a kernel (Debian: apt-get download $KERNEL_PACKAGE);" \
            "an installed one with the modules virtiofs, overlay and nfsv4 serves too"
        return 1
    fi
    rm -rf "$KERNEL"
    dpkg-deb --extract "$directory"/*.deb "$KERNEL"
    rm -rf "$directory"
}

# Debian splits the headers from its interpreter; others bring them along.
missing_python_headers() {
    local python
    python=$(find_python) || return 0
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        "$python" -c 'import sys; print("libpython%d.%d-dev" % sys.version_info[:2])'
}

missing_optional() {
    command -v qemu-img >/dev/null || echo qemu-utils
    [ "$for_tests" = yes ] || return 0
    # The protocol's model is compiled from what Spin generates.
    command -v spin >/dev/null || echo spin
    command -v gcc >/dev/null || printf '%s\n' gcc libc6-dev
    # Clocks that differ between two processes of one test.
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo faketime
    # Real guests.  These packages start no service: that is another one's.
    local sbin=$PATH:/usr/sbin:/sbin
    PATH=$sbin command -v libvirtd >/dev/null || echo libvirt-daemon
    compgen -G '/usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so' >/dev/null ||
        compgen -G '/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so' \
            >/dev/null || echo libvirt-daemon-driver-qemu
    command -v virsh >/dev/null || echo libvirt-clients
    PATH=$sbin command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
    # libvirt's Python module is compiled.
    command -v pkg-config >/dev/null || echo pkg-config
    if ! pkg-config --exists libvirt 2>/dev/null; then echo libvirt-dev; fi
    missing_python_headers
}

# --- Packages ---------------------------------------------------------------

apt_install() {
    local log
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    say "Installing Debian packages: $*"
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
        apt-get update >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; return 1; }
    fi
    # Old lists name versions that the mirror no longer has, so a failure is
    # tried once more with new ones.
    if ! apt-get install -y --no-install-recommends "$@" >"$log" 2>&1 &&
        ! { apt-get update >>"$log" 2>&1 &&
            apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1; }; then
        cat "$log" >&2
        rm -f "$log"
        say "error: could not install: $*"
        return 1
    fi
    rm -f "$log"
    hash -r
}

# The server's package would start one for everybody, on the usual port.  The
# tests start their own.
POLICY=/usr/sbin/policy-rc.d
without_services() {
    local status=0
    if [ -e "$POLICY" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
    "$@" || status=$?
    rm -f "$POLICY"
    trap - EXIT
    return "$status"
}

# What each package is, for systems whose package manager is not apt.
describe() {
    case "$1" in
        zookeeper) echo "Apache ZooKeeper's jars (then set ZOOKEEPER_CLASSPATH," \
            "or SHAREDCACHE_TEST_ZOOKEEPER=host:port for a running server)" ;;
        default-jre-headless) echo "a Java runtime, version $LEAST_JAVA or newer" ;;
        qemu-utils) echo "qemu-img" ;;
        spin) echo "the model checker Spin" ;;
        faketime) echo "libfaketime, for clocks that differ" ;;
        nfs-ganesha*) echo "the NFS server nfs-ganesha with its VFS back end" ;;
        qemu-system-x86) echo "qemu-system-x86_64" ;;
        qemu-system-common | virtiofsd) echo "virtiofsd" ;;
        busybox-static) echo "a statically linked busybox as /bin/busybox" ;;
        gcc | libc6-dev) echo "a C compiler and its headers" ;;
        libvirt-daemon*) echo "libvirtd with its qemu driver" ;;
        libvirt-clients) echo "virsh" ;;
        libvirt-dev | pkg-config) echo "libvirt's headers, and pkg-config" ;;
        libpython*) echo "Python's headers" ;;
        python*) echo "Python 3.11 or newer with its venv and ensurepip modules" \
            "(PYTHON=... names one off the PATH)" ;;
    esac
}

look_around() {
    required=()
    optional=()
    if ! venv_is_current && ! find_python >/dev/null; then
        required+=("$(venv_package)")
    fi
    if [ "$venv_only" = no ]; then
        if [ "$for_nfs" = yes ]; then
            mapfile -t -O "${#required[@]}" required < <(missing_for_nfs)
            return
        fi
        mapfile -t -O "${#required[@]}" required < <(missing_for_servers)
        mapfile -t optional < <(missing_optional)
    fi
}

look_around
# An ordinary user can do without these, and is told what that costs.
if [ "${#optional[@]}" -gt 0 ] && [ "${#required[@]}" -eq 0 ] && ! is_root; then
    say "warning: missing (Debian: sudo apt-get install -y ${optional[*]}):" \
        "tests that need them will be skipped, each with its reason."
    optional=()
fi

packages=("${required[@]}" "${optional[@]}")
if [ "${#packages[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        say "error: this is needed and missing, and there is no apt-get to install it:"
        for package in "${packages[@]}"; do
            say "  - $(describe "$package")"
        done
        exit 1
    fi
    if ! is_root; then
        say "error: packages are missing; install them and run this again:"
        say ""
        say "  sudo apt-get install -y ${packages[*]}"
        say ""
        exit 1
    fi
    # A service that a package starts must not inherit our lock, and keep it.
    if [ "$for_nfs" = yes ]; then
        without_services apt_install "${packages[@]}" 9>&-
    else
        apt_install "${packages[@]}" 9>&-
    fi
    # An old Java or Python that comes first on PATH hides the new one.
    look_around
    if [ "${#required[@]}" -gt 0 ]; then
        say "error: the packages are installed, and this is still missing on PATH:"
        for package in "${required[@]}"; do say "  - $(describe "$package")"; done
        exit 1
    fi
fi

# --- The virtual environment ------------------------------------------------

if ! venv_is_current; then
    if ! venv_runs; then
        python=$(find_python)
        say "Making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    say "Installing the package and its tools into .venv"
    rm -f "$STAMP"
    pip=(.venv/bin/python -m pip --disable-pip-version-check install -e '.[test,yaml]')
    if [ -t 2 ]; then
        "${pip[@]}" >&2
    else
        log=$(mktemp)
        status=0
        "${pip[@]}" --progress-bar off >"$log" 2>&1 || status=$?
        [ "$status" -eq 0 ] || cat "$log" >&2
        rm -f "$log"
        [ "$status" -eq 0 ] || { say "error: pip failed"; exit "$status"; }
    fi
    wanted_stamp >"$STAMP"
fi

# The module of the source libvirt; without it the tests of that source are
# skipped, with the reason.
if [ "$for_tests" = yes ] && ! .venv/bin/python -c 'import libvirt' 2>/dev/null; then
    log=$(mktemp)
    if pkg-config --exists libvirt 2>/dev/null &&
        .venv/bin/python -m pip --disable-pip-version-check install \
            --progress-bar off -e '.[libvirt]' >"$log" 2>&1; then
        say "Added libvirt's Python module"
    else
        tail -n 5 "$log" >&2
        say "warning: libvirt's Python module cannot be built:" \
            "tests that need it will be skipped, each with its reason."
    fi
    rm -f "$log"
fi

if [ "$for_nfs" = yes ] && ! kernel_is_there; then fetch_kernel; fi
