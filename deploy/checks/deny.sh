#!/usr/bin/env bash
# Holds licences, sources and the direction of dependencies against deny.toml. deploy/setup.sh --tests brings cargo-deny.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
deny="${TAILWATER_CACHE:-$HOME/.cache/tailwater}/bin/cargo-deny"
# A wrapper in deny.toml is a permission; that nobody uses one yet is no fault.
exec "$deny" --log-level error check --allow unused-wrapper bans licenses sources
