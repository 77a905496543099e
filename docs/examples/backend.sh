#!/bin/sh
# Allocates a room and mints a token, with curl alone: sh backend.sh ROOM IDENTITY. Prints what the browser needs, as JSON.
set -eu
: "${STUBE_URL:=http://127.0.0.1:7880}" "${STUBE_KEY:=devkey}" "${STUBE_SECRET:=devsecret-devsecret-devsecret-dev}"
[ $# -eq 2 ] || { echo "usage: sh backend.sh ROOM IDENTITY" >&2; exit 2; }
post() { # -K -: the secret is not in the list of processes.
  answer=$(printf 'user = "%s:%s"\n' "$STUBE_KEY" "$STUBE_SECRET" |
    curl --silent --show-error --fail-with-body -K - -H 'Content-Type: application/json' -d "$2" "$STUBE_URL$1") ||
    { printf '%s\n' "${answer:-no answer}" >&2; return 1; } # a refusal is JSON too, and says why
  printf '%s\n' "$answer"
}
encoded=$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g') # every byte as %XX: names may hold anything
room=$(post /v1/rooms "{\"name\":\"$1\"}")
token=$(post "/v1/rooms/$encoded/tokens" "{\"identity\":\"$2\"}")
printf '{"room":%s,"token":%s}\n' "$room" "$token"
