#!/bin/bash
# Finds or builds etcd, kube-apiserver, kube-controller-manager and kubectl, and prints the directory that holds
# all four as the only line on standard output. In this order:
#
#   1. KUBEBUILDER_ASSETS, if it is set and complete (a missing kubectl or controller manager may come from the cache)
#   2. the cache, ${XDG_CACHE_HOME:-~/.cache}/lockstep/testbed
#   3. LOCKSTEP_TESTBED_URL, if it is set: a tar.gz with these binaries (the envtest layout is understood)
#   4. Debian's source package of Kubernetes 1.20.2: five to eight minutes on two cores, once
#
# With the argument --plan it does nothing but say which it would be: assets, cache, download or build.
#
# An interrupted build resumes where it was; two at once build once. Nothing is installed except the Go tool
# chain, rsync, jq and dpkg-dev where they are missing; no service is started.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

VERSION=1.20.2
RECIPE=1 # raise it when the recipe changes what comes out
BINARIES=(etcd kube-apiserver kube-controller-manager kubectl)

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/testbed
stamp=kubernetes-$VERSION-r$RECIPE-$(uname -m)

complete() { # DIR: all four are there and executable
    local binary
    for binary in "${BINARIES[@]}"; do [ -x "$1/$binary" ] || return 1; done
}

minor_of() { # BINARY: "1.20" of "Kubernetes v1.20.2"
    "$1" --version | sed -nE 's/^Kubernetes v([0-9]+\.[0-9]+).*/\1/p'
}

# Prints a directory that combines KUBEBUILDER_ASSETS with what the cache can add; 1: not usable.
from_assets() {
    local assets=$1 missing=() binary combined version
    for binary in etcd kube-apiserver; do
        [ -x "$assets/$binary" ] || { say "KUBEBUILDER_ASSETS has no $binary, not used: $assets"; return 1; }
    done
    for binary in "${BINARIES[@]}"; do [ -x "$assets/$binary" ] || missing+=("$binary"); done
    if [ "${#missing[@]}" -eq 0 ]; then (cd "$assets" && pwd); return; fi
    version=$(minor_of "$assets/kube-apiserver")
    if [ "$version" != "${VERSION%.*}" ]; then
        say "KUBEBUILDER_ASSETS ($version) has no ${missing[*]}, and ours ($VERSION) do not fit that version;" \
            "not used. Put them of version $version into $assets"
        return 1
    fi
    if ! complete "$cache/$stamp"; then
        say "KUBEBUILDER_ASSETS has no ${missing[*]}; they come from a build of our own"
        completes_assets=yes
        return 1
    fi
    combined=$cache/assets-$(printf %s "$assets" | sha256sum | cut -c1-12)
    mkdir -p "$combined"
    for binary in "${BINARIES[@]}"; do
        if [ -x "$assets/$binary" ]; then ln -sfn "$assets/$binary" "$combined/$binary"; else ln -sfn "$cache/$stamp/$binary" "$combined/$binary"; fi
    done
    echo "$combined"
}

# One build at a time. Steps inherit the lock: after a SIGKILL of this script it is free when the last of them has ended.
take_lock() {
    local told=-$HEARTBEAT_SECONDS
    exec 9>>"$cache/lock"
    until flock -n 9; do
        if [ $((SECONDS - told)) -ge "$HEARTBEAT_SECONDS" ]; then
            told=$SECONDS
            say "another run is building into $cache; waiting for it"
        fi
        sleep 0.5
    done
}

# publish DIR: makes the finished directory visible under the name of its stamp, all or nothing.
publish() {
    complete "$1" || die "incomplete: $1 (needs ${BINARIES[*]})"
    rm -rf "${cache:?}/$stamp"
    mv -T "$1" "$cache/$stamp"
}

download() {
    local work=$cache/$stamp.download
    rm -rf "$work"
    mkdir -p "$work/unpacked" "$work/bin"
    command -v curl >/dev/null || die "LOCKSTEP_TESTBED_URL needs curl"
    step "$logs/download.log" "downloading LOCKSTEP_TESTBED_URL" curl -fsSL --retry 3 -o "$work/archive.tar.gz" "$LOCKSTEP_TESTBED_URL"
    step "$logs/download.log" "unpacking it" tar -xzf "$work/archive.tar.gz" -C "$work/unpacked"
    find "$work/unpacked" -type f \( -name etcd -o -name 'kube-*' -o -name kubectl \) -exec mv -t "$work/bin" {} +
    publish "$work/bin"
    rm -rf "$work"
}

# once NAME FUNCTION: runs a stage of the build unless an earlier, interrupted run completed it.
once() {
    [ -e "$work/$1.done" ] && return
    "$2"
    touch "$work/$1.done"
}

stage_indexes() {
    "$here/apt-sources.sh" "$work/apt"
    step "$logs/apt.log" "reading Debian's package indexes" apt-get -q update
}

stage_debs() {
    rm -rf "$work/debs"
    mkdir -p "$work/debs/root"
    cd "$work/debs"
    step "$logs/apt.log" "fetching etcd, kubectl and reflect2 from Debian's packages" \
        apt-get -q download etcd-server kubernetes-client golang-github-modern-go-reflect2-dev
    local deb
    for deb in ./*.deb; do step "$logs/apt.log" "unpacking $(basename "$deb")" dpkg-deb -x "$deb" root; done
}

stage_source() {
    rm -rf "$work/source" "$work/gopath"
    mkdir -p "$work/source" "$work/gopath/src/k8s.io"
    cd "$work/source"
    step "$logs/source.log" "fetching and unpacking the source of Kubernetes $VERSION" \
        apt-get -q --only-source source "kubernetes=$(source_version)"
    mv -T "$work"/source/kubernetes-*/ "$tree"
}

source_version() {
    apt-cache showsrc --only-source kubernetes | sed -n 's/^Version: //p' | grep -F "$VERSION" | sort -V | tail -n 1 | grep . ||
        die "the machine's Debian entries offer no source of Kubernetes $VERSION"
}

# The vendored reflect2 1.0.1 iterates maps wrongly when compiled by Go >= 1.18; the API server crashes within a minute.
stage_reflect2() {
    local vendored=$tree/vendor/github.com/modern-go/reflect2
    rm -rf "$vendored"
    cp -r "$work/debs/root/usr/share/gocode/src/github.com/modern-go/reflect2" "$vendored"
}

stage_compile() {
    cd "$tree"
    rm -rf "$work/tmp"
    mkdir -p "$work/tmp"
    export GOPATH=$work/gopath GOCACHE=$work/gocache GOTMPDIR=$work/tmp GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
    export PATH=/usr/lib/go-1.19/bin:$PATH
    export KUBE_GIT_VERSION=v$VERSION KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 KUBE_GIT_TREE_STATE=archive
    export KUBE_GIT_COMMIT=0000000000000000000000000000000000000000
    step "$logs/compile.log" "compiling kube-apiserver and kube-controller-manager (about five minutes on two cores)" \
        make WHAT="cmd/kube-apiserver cmd/kube-controller-manager" GOLDFLAGS="-s -w"
}

stage_collect() {
    rm -rf "${work:?}/bin"
    mkdir -p "$work/bin"
    cp -L "$tree/_output/bin/kube-apiserver" "$tree/_output/bin/kube-controller-manager" "$work/bin/"
    cp "$work/debs/root/usr/bin/etcd" "$work/debs/root/usr/bin/kubectl" "$work/bin/"
}

build() {
    command -v apt-get >/dev/null ||
        die "no apt-get here, so Kubernetes cannot be built; set KUBEBUILDER_ASSETS or LOCKSTEP_TESTBED_URL (see $here/build-kubernetes.sh)"
    work=$cache/$stamp.build
    tree=$work/gopath/src/k8s.io/kubernetes
    mkdir -p "$work"
    say "building Kubernetes $VERSION from Debian's source package, once; logs: $logs"
    "$here/prerequisites.sh" kubernetes
    export APT_CONFIG=$work/apt/apt.conf
    once indexes stage_indexes
    once debs stage_debs
    once source stage_source
    once reflect2 stage_reflect2
    once compile stage_compile
    once collect stage_collect
    publish "$work/bin"
    # Go marks parts of its caches read-only.
    chmod -R u+w "$work"
    step "$logs/source.log" "removing the build tree" rm -rf "$work"
}

completes_assets=
if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    if [ "${1:-}" = --plan ]; then
        if from_assets "$KUBEBUILDER_ASSETS" >/dev/null; then echo assets; exit; fi
    elif from_assets "$KUBEBUILDER_ASSETS"; then
        exit
    fi
fi
if [ -n "$completes_assets" ]; then unset LOCKSTEP_TESTBED_URL; fi # its version may be another
if [ -n "${LOCKSTEP_TESTBED_URL:-}" ]; then stamp=download-$(printf %s "$LOCKSTEP_TESTBED_URL" | sha256sum | cut -c1-12); fi

if [ "${1:-}" = --plan ]; then
    if complete "$cache/$stamp"; then echo cache; elif [ -n "${LOCKSTEP_TESTBED_URL:-}" ]; then echo download; else echo build; fi
    exit
fi

if ! complete "$cache/$stamp"; then
    logs=$cache/logs
    mkdir -p "$logs"
    take_lock
    if ! complete "$cache/$stamp"; then
        if [ -n "${LOCKSTEP_TESTBED_URL:-}" ]; then download; else build; fi
        say "ready: $cache/$stamp"
    fi
fi
if [ -n "$completes_assets" ] && from_assets "$KUBEBUILDER_ASSETS"; then exit; fi
echo "$cache/$stamp"
