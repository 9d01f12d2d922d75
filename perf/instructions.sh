#!/usr/bin/env bash
# Instructions per operation of the cases of a micro-benchmark: the one figure that hardly depends on the machine's load.
#
#   perf/instructions.sh codec 'json/decode'      # cases whose name contains the text, each on its own
#
# Counts with `perf stat` where the machine has counters, else with valgrind (slower, the same figures but for vector units).
set -euo pipefail
cd "$(dirname "$0")/.."
bench=${1:?which bench: codec or engine}
filter=${2:-}
program=$(cargo bench --no-run --bench "$bench" 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')

count() { # calls, case
    if perf stat -x, -e instructions:u true 2>&1 | grep -q '^[0-9]'; then
        perf stat -x, -e instructions:u "$program" "--calls=$1" "--case=$2" 2>&1 >/dev/null | cut -d, -f1
    else
        valgrind --tool=none "$program" --calls=0 none >/dev/null 2>&1 || { echo "neither perf counters nor valgrind" >&2; exit 1; }
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "--calls=$1" "--case=$2" 2>&1 >/dev/null |
            sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
    fi
}

"$program" --calls=0 "$filter" | while IFS= read -r line; do
    case=${line%%: *}
    operations=$(sed -n 's/.* calls of \([0-9]*\) operations/\1/p' <<<"$line")
    # Two counts, so that starting the program and preparing the case cancel out.
    few=$(count 10 "$case") many=$(count 110 "$case")
    awk -v name="$case" -v instructions="$((many - few))" -v operations="$((100 * operations))" \
        'BEGIN { printf "%-46s %10.0f instructions/op\n", name, instructions / operations }'
done
