#!/bin/bash
# Checks all that continuous integration checks, and stops at the first step that fails.
#
# Needs no argument and no answer. Installs the Debian packages that it misses when root runs it; else it names them.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
exec </dev/null

RUST=1.95
# The compiler's linker, what the library for C is tried with, and the peers that judge us: Debian's switch and tools, in
# namespaces of their own; and the programs that are run as nodes.
PACKAGES=(gcc libc6-dev binutils make pkg-config vde2 vdeplug vdens libvdeplug-dev libvdestack-dev
    dnsmasq-base iproute2 iputils-ping passt procps slirp4netns socat tcpdump tshark util-linux
    python3 libpython3.11-testsuite nginx-light curl wget openssh-server openssh-client
    redis-server redis-tools iperf3 git nodejs postgresql-15 postgresql-client-15)
BENCH_SECONDS=180

fail() {
    printf '\ntest.sh: %s\n' "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    "$@" || fail "failed at \"$name\" after $SECONDS s in all; the command was: $*"
    printf -- '--- %s: %s s\n' "$name" $((SECONDS - start))
}

need_rust() {
    # Where rustup puts it, for shells that were opened before.
    [ ! -d "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin" ] || PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
    local how="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    local version
    command -v cargo >/dev/null && command -v rustc >/dev/null ||
        fail "no cargo and rustc found; Rust $RUST or later is needed: apt-get install curl; $how"
    version=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$RUST" "$version" | sort -V | head -n 1)" = "$RUST" ] ||
        fail "rustc is $version, $RUST or later is needed: rustup update stable, or without rustup: $how"
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        fail "rustfmt or clippy is missing: rustup component add rustfmt clippy"
    rustc --version
    cargo --version
}

is_installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

need_packages() {
    command -v dpkg-query >/dev/null || fail "no dpkg-query found: the tests' peers are taken from Debian's packages"
    local missing=() package
    for package in "${PACKAGES[@]}"; do
        is_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        echo "all there: ${PACKAGES[*]}"
        return
    fi
    is_root || fail "Debian packages are missing; install them with: sudo apt-get install ${missing[*]}"
    echo "installing ${missing[*]}"
    apt-get update
    without_daemons env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "${missing[@]}"
}

# Runs a command, during which packages start no servers of theirs on this machine: the tests start them, elsewhere.
# Where there is a policy already, it is the administrator's.
without_daemons() {
    local policy=/usr/sbin/policy-rc.d status=0
    [ ! -e $policy ] || { "$@"; return; }
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
    "$@" || status=$?
    rm -f $policy
    return $status
}

need_namespaces() {
    if is_root; then
        unshare --net true ||
            fail "root may not make network namespaces here; a container needs: docker run --privileged"
    else
        unshare -Urn true || fail "namespaces of users are switched off; they are switched on with:" \
            "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000" \
            "kernel.apparmor_restrict_unprivileged_userns=0 (those that there are)"
    fi
    echo "network namespaces can be made"
}

# vde_plug makes a TAP device of it, by which a kernel is plugged into the tests' switches.
need_tun() {
    if is_root && [ ! -e /dev/net/tun ]; then
        modprobe tun 2>/dev/null || true
        [ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200; }
    fi
    (: <>/dev/net/tun) 2>/dev/null ||
        fail "/dev/net/tun cannot be opened; as Debian's udev has it: sudo modprobe tun && sudo chmod 666 /dev/net/tun"
    echo "/dev/net/tun can be opened"
}

# socat's own tests are in the source of its package only. Neither the system's list of sources nor what it knows of them is
# touched, so this needs no root.
fetch_socat_tests() {
    local folder=$target/peers/socat version from uri suite component options
    version=$(dpkg-query --show --showformat='${source:Version}' socat)
    if [ -s "$folder/test.sh" ] && [ "$(cat "$folder/version")" = "$version" ]; then
        echo "there already: $folder/test.sh"
        return
    fi
    # Where the package comes from: "socat | VERSION | URI SUITE/COMPONENT ARCHITECTURE Packages".
    from=$(apt-cache madison socat | awk -F'|' -v version="$version" '$2 ~ "^ *" version " *$" { print $3; exit }')
    if [ -z "$from" ] && is_root; then
        apt-get update || return
        from=$(apt-cache madison socat | awk -F'|' '{ print $3; exit }')
    fi
    [ -n "$from" ] || fail "apt does not know where socat $version comes from: sudo apt-get update"
    read -r uri suite _ <<<"$from"
    component=${suite##*/} suite=${suite%/*}
    rm -rf "$folder" && mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" || return
    echo "deb-src $uri $suite $component" >"$folder/sources.list"
    options=(-o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::Cache=$folder/cache"
        -o "Dir::State::Lists=$folder/lists" -o APT::Sandbox::User="$(id -un)")
    apt-get "${options[@]}" update || return
    (cd "$folder" && apt-get "${options[@]}" source --download-only "socat=$version") || return
    tar -xf "$folder"/socat_*.orig.tar.* -C "$folder" --strip-components=1 --wildcards '*/test.sh' || return
    rm -rf "$folder/lists" "$folder/cache" "$folder"/socat_*
    echo "$version" >"$folder/version"
}

run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked
    else
        # All tests but those in the documentation, whose step comes next.
        cargo test --workspace --locked --no-fail-fast --lib --bins --tests
    fi
}

run_doctests() { cargo test --workspace --locked --no-fail-fast --doc; }

# cfg(loom) changes every crate that knows it, so it is built apart; its tests are no use in debug mode.
run_models() {
    local crate
    for crate in ioth-core:readiness::models ioth-smoltcp:driver::models; do
        RUSTFLAGS="${RUSTFLAGS:-} --cfg loom" CARGO_TARGET_DIR="$target/loom" CARGO_PROFILE_RELEASE_LTO=off \
            cargo test --locked --release -p "${crate%%:*}" --lib "${crate#*:}" || return
    done
}

# In a workspace of their own, which libFuzzer's main function asks for. Its path is only for the linker, and nothing is linked:
# without one, libFuzzer would be compiled.
check_fuzz_targets() {
    cargo fmt --check --manifest-path fuzz/Cargo.toml || return
    CUSTOM_LIBFUZZER_PATH=/nowhere/libfuzzer.a cargo check --manifest-path fuzz/Cargo.toml --locked --bins
}

# Other programs each time; a run that found something is repeated with its seed, and its input is saved.
soak() {
    local seed=${IOTH_SOAK_SEED:-$(date +%s)}
    echo "the same programs again: IOTH_SOAK_SEED=$seed ./test.sh"
    timeout 300 cargo run --locked -p ioth-tests --bin soak -- --minutes 0.4 --seed "$seed" --jobs 2 \
        --corpus fuzz/corpus/ingress --artifacts "$target/soak"
}

# Figures are shown, not judged: other machines have others.
show_figures() {
    cargo build --locked --release -p ioth-bench -p ioth-cli || return
    timeout "$BENCH_SECONDS" cargo run --locked --release -p ioth-bench -- --quick ||
        echo "no figures: the bench failed or took more than $BENCH_SECONDS s"
}

# Compiling is most of the time: lines are all that a backtrace needs.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_DEBUG=0
# A fresh clone gains nothing from what makes the second build faster.
[ "${CI:-}" != true ] || export CARGO_INCREMENTAL=0
target=${CARGO_TARGET_DIR:-$PWD/target}
# Programs are run as nodes by a library that is built in there.
case $target in
*[[:blank:]:]*) fail "LD_PRELOAD takes no path with a blank or a colon: move the project from $PWD, or set CARGO_TARGET_DIR" ;;
esac

step "Rust $RUST" need_rust
step "Debian packages" need_packages
step "namespaces" need_namespaces
step "TAP devices" need_tun
step "format" cargo fmt --all --check
step "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
step "targets of the fuzzers" check_fuzz_targets
# Not before cargo has made its target directory, which it marks for programs that make backups.
step "socat's tests" fetch_socat_tests
step "documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
step "tests: build" cargo test --workspace --locked --no-run
# As its tests build it, each of which would wait for it.
step "library for C" cargo build --locked --package ioth-capi --lib
step "the command ioth" cargo build --locked --package ioth-cli --package ioth-preload
step "tests, the crates' borders and the replay of the fuzzers' corpora among them" run_tests
step "random programs over two nodes, in virtual time" soak
step "tests in the documentation" run_doctests
step "examples" cargo build --workspace --examples --bins --locked
if [ -f benches/Cargo.toml ]; then
    step "figures" show_figures
fi
step "models of the lock-free parts" run_models
printf '\ntest.sh: all passed in %s s\n' "$SECONDS"
