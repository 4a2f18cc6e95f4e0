#!/bin/bash
# Checks what a machine must have and installs what Debian can provide. Nothing is touched when all is there.
#
#   prerequisites.sh rust          to compile the workspace and run the test bed
#   prerequisites.sh kubernetes    to build Kubernetes from Debian's source package
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

need() { # COMMAND PACKAGE: remembers the package if the command is missing
    command -v "$1" >/dev/null || missing+=("$2")
}

missing=()
case ${1:-} in
rust)
    need cc gcc
    need ld binutils
    [ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
    need setpriv util-linux
    need flock util-linux
    ;;
kubernetes)
    # golang-go is Debian's default Go (1.19 in Debian 12); a newer Go elsewhere on PATH does not build 1.20.
    [ -x /usr/lib/go-1.19/bin/go ] || missing+=(golang-go)
    need rsync rsync
    need jq jq
    need dpkg-source dpkg-dev
    need xz xz-utils
    need flock util-linux
    need setsid util-linux
    need make make
    ;;
*) die "usage: prerequisites.sh rust|kubernetes" ;;
esac

if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian names); install them and run again"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp "${TMPDIR:-/tmp}/lockstep-prerequisites.XXXXXX")
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        die "missing: ${missing[*]}; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    install=(apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}")
    # Lists may be absent (fresh image) or older than the archive (404): refresh them first.
    step "$log" "apt-get update" "$BASH" -c ". '$here/lib.sh'; as_root apt-get -q update"
    step "$log" "apt-get install ${missing[*]}" "$BASH" -c '. "$0/lib.sh"; as_root "$@"' "$here" "${install[@]}"
    rm -f "$log"
fi

if [ "$1" = rust ] && ! command -v cargo >/dev/null; then
    die "cargo is not on PATH: install Rust with rustup; rust-toolchain.toml names the version"
fi
