#!/usr/bin/env bash
# Makes sure that what a build needs is there; `make demo` and `make test` call it first.
#
#   deploy/setup.sh          what building and the demo need
#   deploy/setup.sh --tests  what the tests need besides
#
# System packages are installed through apt where that is allowed (as root, or by sudo without a password). Where it is not, it stops
# at once and prints the command to run. Nothing is installed outside of the system's packages and the cache folder, and
# with nothing missing it takes a fraction of a second.
set -euo pipefail

cache="${TAILWATER_CACHE:-$HOME/.cache/tailwater}"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

helm_version=3.19.0
deny_version=0.20.2
kubernetes_validate_version=1.37.0
java_min=17
go_min_for_helm=21 # 1.21 fetches the newer toolchain that helm asks for by itself

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# True if version $1 is $2 or later.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
  { have rustc && have cargo; } || die "Rust is missing. Run: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
  found=$(rustc --version | awk '{print $2}')
  at_least "${found%%-*}" "$wanted" || die "rustc is $found and $wanted or later is needed. Run: rustup update stable"
}

check_rust_components() {
  local missing=()
  cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
  cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
  [ ${#missing[@]} -gt 0 ] || return 0
  have rustup || die "${missing[*]} missing, and without rustup it comes from wherever rustc does"
  say "adding ${missing[*]} to the Rust toolchain"
  rustup component add "${missing[@]}" >&2
}

java_is_enough() {
  have java || return 1
  local major
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\)[^"]*".*/\1/p' | head -n 1)
  [ -n "$major" ] && [ "$major" -ge "$java_min" ]
}

# The packages, by apt's names, of what is missing.
missing_packages() {
  java_is_enough || printf '%s ' "$(java_package)"
  have mvn || printf 'maven '
  have cmake || printf 'cmake '
  have perl || printf 'perl '
  { have cc && have c++; } || printf 'build-essential '
  have make || printf 'make '
  have ps || printf 'procps '
  # The build script of the `v8` crate downloads with it, and the demo asks the simulator.
  have curl || printf 'curl '
  # librdkafka is compiled against the system's OpenSSL.
  have pkg-config || printf 'pkg-config '
  { have pkg-config && pkg-config --exists openssl; } || printf 'libssl-dev '
}

# The oldest supported Java that this distribution has: the names differ from release to release.
java_package() {
  local name
  if have apt-cache; then
    for name in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless; do
      if apt-cache show "$name" >/dev/null 2>&1; then
        echo "$name"
        return 0
      fi
    done
    # A fresh image has no package lists yet; they are fetched before this name is used.
  fi
  echo default-jre-headless
}

install_packages() {
  local packages
  packages=$(missing_packages)
  [ -n "$packages" ] || return 0
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then sudo=(sudo -n); fi
  if ! have apt-get; then
    die "missing: $(plain_names "$packages"). Install them with this system's package manager (Java $java_min or later) and run the same command again"
  fi
  if [ ${#sudo[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; then
    die "missing: $(plain_names "$packages"), and installing packages needs a password here. Run: sudo apt-get update && sudo apt-get install -y $packages"
  fi
  say "installing with apt: $packages"
  "${sudo[@]+"${sudo[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || die "apt-get update failed; its own words are above"
  packages=$(missing_packages) # the lists may know a better package now
  # shellcheck disable=SC2086 # the names are words
  "${sudo[@]+"${sudo[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2 ||
    die "apt-get could not install $packages; its own words are above"
  packages=$(missing_packages)
  [ -z "$packages" ] || die "still missing after the installation: $(plain_names "$packages")"
}

plain_names() {
  # shellcheck disable=SC2086 # the names are words
  printf '%s\n' $1 | sed -e "s/.*-jre-headless/Java $java_min/" -e 's/^build-essential$/a C and C++ compiler/' | paste -sd, - | sed 's/,/, /g'
}

# helm: the system's if it is there, else its own release built by Go into the cache.
setup_helm() {
  # A helm that Go built does not know its own patch version, so the folder's name tells it.
  local home="$cache/helm-$helm_version"
  if [ -x "$home/helm" ]; then return 0; fi
  mkdir -p "$cache/bin"
  if have helm && at_least "$(helm version --template '{{.Version}}' 2>/dev/null | sed 's/^v//')" 3.12; then
    ln -sf "$(command -v helm)" "$cache/bin/helm"
    return 0
  fi
  ln -sf "$home/helm" "$cache/bin/helm"
  if have go && [ "$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')" -ge "$go_min_for_helm" ]; then
    say "building helm $helm_version with go, once (about a minute) …"
    GOFLAGS='' GOBIN="$home" go install "helm.sh/helm/v3/cmd/helm@v$helm_version" >&2 || die "go could not build helm; its own words are above"
    return 0
  fi
  local system machine url
  system=$(uname -s | tr '[:upper:]' '[:lower:]')
  machine=$(uname -m | sed -e 's/x86_64/amd64/' -e 's/aarch64/arm64/')
  url="https://get.helm.sh/helm-v$helm_version-$system-$machine.tar.gz"
  if have curl && fetch_helm "$url"; then return 0; fi
  die "helm $helm_version is missing: neither Go 1.$go_min_for_helm (or later) nor $url is at hand. Run: curl -fsSL https://raw.githubusercontent.com/helm/helm/main/scripts/get-helm-3 | bash"
}

# The release's archive, held against the checksum that is published beside it.
fetch_helm() {
  local url=$1 staging
  say "fetching helm $helm_version, once …"
  staging=$(mktemp -d "$cache/.helm.XXXXXX")
  if curl -fsSL -o "$staging/helm.tar.gz" "$url" && curl -fsSL -o "$staging/sum" "$url.sha256sum" &&
    [ "$(sha256sum "$staging/helm.tar.gz" | cut -d' ' -f1)" = "$(cut -d' ' -f1 "$staging/sum")" ] &&
    tar -xzf "$staging/helm.tar.gz" -C "$staging" --strip-components=1; then
    mkdir -p "$home"
    mv "$staging/helm" "$home/helm"
    rm -rf "$staging"
    return 0
  fi
  rm -rf "$staging"
  return 1
}

# cargo-deny holds the dependencies against deny.toml.
setup_deny() {
  if [ "$("$cache/bin/cargo-deny" --version 2>/dev/null)" = "cargo-deny $deny_version" ]; then return 0; fi
  mkdir -p "$cache/bin"
  say "building cargo-deny $deny_version, once (about two minutes) …"
  # Without optimisation: it is built once and runs for a second.
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$cache/target-tools" cargo install cargo-deny --version "$deny_version" --locked --debug --root "$cache" >&2 ||
    die "cargo-deny could not be built; cargo's own words are above"
  rm -rf "$cache/target-tools"
}

# Holds the rendered chart against the schemas of Kubernetes. Optional: deploy/checks/chart.sh says so where it is not there.
setup_kubernetes_validate() {
  [ ! -x "$cache/kubernetes-validate/bin/kubernetes-validate" ] || return 0
  have python3 || return 0
  say "fetching kubernetes-validate $kubernetes_validate_version, once …"
  if ! { python3 -m venv "$cache/kubernetes-validate" &&
    "$cache/kubernetes-validate/bin/pip" install -q --disable-pip-version-check "kubernetes-validate==$kubernetes_validate_version"; } >/dev/null 2>&1; then
    rm -rf "$cache/kubernetes-validate"
    say "kubernetes-validate could not be installed (python3-venv may be missing); that check of the chart will be skipped"
  fi
}

case "${1:-}" in
  '' | --tests) ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

check_rust
install_packages
if [ "${1:-}" = --tests ]; then
  check_rust_components
  setup_helm
  setup_deny
  setup_kubernetes_validate
fi
"$root/deploy/kafka/kafka.sh" fetch
