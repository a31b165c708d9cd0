#!/usr/bin/env bash
# Makes the standard library for a WASM target available to the pinned rustc. Prints the flags that rustc needs to find
# it (none when rustup installed it) on stdout, and everything else on stderr.
#
# First choice: `rustup target add`. Where rustup's server cannot be reached: the same version's sources as Debian packages
# them, built once into a folder of the user's cache, without root and without touching the system.
#
#   wasm-std.sh [TARGET]
#
# SKIP_RUSTUP=1        go straight to Debian's sources
# WASM_STD_CACHE=DIR   where the built library is kept (the path is part of what a big stage compiles to: keep it)
# DEBIAN_MIRROR=URL    the mirror to use, on systems that are not Debian
set -euo pipefail

target=${1:-wasm32-unknown-unknown}
version=1.95.0
package_version='1.95.0+dfsg1-2~bpo13+1'
package_sha256=7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b
cache=${WASM_STD_CACHE:-$HOME/.cache/pajamas/wasm-std-$version}
export RUSTUP_TOOLCHAIN=${RUSTUP_TOOLCHAIN:-$version}

installed() { ls "$(rustc --print target-libdir --target "$target")"/libstd-*.rlib >/dev/null 2>&1; }

installed && exit 0
if [ -z "${SKIP_RUSTUP:-}" ] && command -v rustup >/dev/null && timeout 300 rustup target add "$target" >&2 && installed; then
    exit 0
fi

sysroot=$cache/sysroot
if ! [ -f "$sysroot/$target.ok" ]; then
    command -v apt-get >/dev/null || {
        echo "wasm-std.sh: rustup could not install $target, and there is no apt-get to fetch the sources with" >&2
        exit 1
    }
    apt=$cache/apt
    mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$sysroot"
    : >"$apt/status"
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '/\/debian\/?$/ && !n++')}
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # The package's hash is pinned below, so that a system without Debian's keys can fetch it too.
    trust="signed-by=$keys"
    [ -f "$keys" ] || trust="trusted=yes"
    echo "deb [$trust] $mirror trixie-backports main" >"$apt/sources.list"
    private_apt() {
        apt-get -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Dir::State::status="$apt/status" \
            -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@" >&2
    }
    private_apt update
    (cd "$apt" && private_apt download "rust-src=$package_version" 2>/dev/null)
    package=$(ls "$apt"/rust-src_*.deb)
    echo "$package_sha256  $package" | sha256sum -c --quiet - >&2

    rm -rf "$cache/src"
    mkdir -p "$cache/src"
    dpkg-deb --fsys-tarfile "$package" | tar x -C "$cache/src" --strip-components=5 "./usr/src/rustc-$version/library"

    stub=$cache/stub
    mkdir -p "$stub/src"
    echo '#![no_std]' >"$stub/src/lib.rs"
    printf '[package]\nname="std-stub"\nversion="0.0.0"\nedition="2021"\n[workspace]\n' >"$stub/Cargo.toml"
    (
        cd "$stub"
        export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT=$cache/src CARGO_TARGET_DIR=$stub/target
        # Without bitcode in the library the stages could not be optimised across crates.
        export RUSTFLAGS="-Cembed-bitcode=yes --remap-path-prefix=$cache/src=/rustc/library --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/registry"
        cargo build -q --release --target "$target" -Zbuild-std=std,panic_abort >&2
    )
    lib=$sysroot/lib/rustlib/$target/lib
    rm -rf "$lib"
    mkdir -p "$lib"
    cp "$stub/target/$target/release/deps/"*.rlib "$lib/"
    rm -f "$lib"/libstd_stub*
    rm -rf "$stub" "$apt"
    touch "$sysroot/$target.ok"
fi
echo "--sysroot=$sysroot"
