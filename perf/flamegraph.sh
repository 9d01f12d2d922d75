#!/usr/bin/env bash
# Where the server's processor time goes under a load: builds with frame pointers, starts a server, loads it, records it.
#
#   perf/flamegraph.sh private --seconds 15
#   perf/flamegraph.sh fanout --rate 250 --seconds 15
#
# Everything behind the script's name goes to `corehub bench`. Leaves perf.data, a text report and folded stacks in
# target/profile/, and a picture when `inferno-flamegraph` or `flamegraph.pl` is installed.
# Needs the right to profile: sysctl kernel.perf_event_paranoid=1 (2 suffices without kernel frames).
set -euo pipefail
cd "$(dirname "$0")/.."
scenario=${1:?which scenario: idle, fanout, private or stalled}
shift
out=target/profile
mkdir -p "$out"
RUSTFLAGS="-C force-frame-pointers=yes ${RUSTFLAGS:-}" cargo build --release --target-dir "$out/build"
program=$out/build/release/corehub

"$program" bench "$scenario" --spawn --rounds 1 --warmup 3 "$@" >"$out/bench.txt" &
bench=$!
trap 'kill $bench 2>/dev/null || true' EXIT
until server=$(pgrep -P "$bench" -f 'corehub serve'); do
    kill -0 "$bench" || { cat "$out/bench.txt"; exit 1; }
    sleep 0.1
done
sleep 5 # connections, groups and warm-up
perf record -F 999 --call-graph fp -p "$server" -o "$out/perf.data" -- sleep 8
wait "$bench" || true
trap - EXIT

perf report -i "$out/perf.data" --no-children --percent-limit 1 --stdio -g none >"$out/report.txt" 2>/dev/null
perf script -i "$out/perf.data" 2>/dev/null | awk '
    /^[^ \t]/ { name = $1; next }                      # thread of a sample
    NF == 0 { if (stack != "") count[name stack]++; stack = ""; next }
    { sub(/^[ \t]*[0-9a-f]+ /, ""); sub(/(\+0x[0-9a-f]+)? \([^()]*\)$/, ""); stack = ";" $0 stack }
    END { for (line in count) print line, count[line] }' >"$out/stacks.folded"
for painter in inferno-flamegraph flamegraph.pl; do
    if command -v "$painter" >/dev/null; then
        "$painter" "$out/stacks.folded" >"$out/flamegraph.svg" && echo "picture: $out/flamegraph.svg"
        break
    fi
done
echo "load: $out/bench.txt, report: $out/report.txt, folded stacks: $out/stacks.folded"
