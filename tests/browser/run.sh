#!/bin/sh
# Runs the tests in real browsers against the real binary ($STUBE_BIN, by default target/debug/stube).
set -eu
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --loglevel=error
exec node --test --test-concurrency=1 "$@" *.test.js
