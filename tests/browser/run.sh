#!/bin/sh
# Runs the tests in real browsers against the real binary ($STUBE_BIN, by default target/debug/stube).
set -eu
cd "$(dirname "$0")"
[ -d node_modules ] || { echo "no node_modules: run scripts/install-test-tools first" >&2; exit 1; }
exec node --test --test-concurrency=1 "$@" *.test.js
