#!/bin/bash
# `make demo`: three real control planes, one policy, one Deployment that comes, changes and goes.
# KEEP=1 leaves everything running to play with. Exits with 1 if a target does not follow in time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lockstep=$PWD/target/debug/lockstep
testbed=$PWD/target/debug/testbed
policy=policies/examples/production-deployments.yaml
# A target that has not followed by then, in milliseconds, has failed.
patience=10000
targets=(cluster-b cluster-c)

work=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-demo.XXXXXX")
watchers=()
hub=
finished=

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' green='' red='' dim='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
die() {
    printf '%sdemo failed: %s%s\n' "$red" "$*" "$plain" >&2
    [ ! -s "$work/lockstep.log" ] || { echo "the end of lockstep's log:" >&2; tail -n 20 "$work/lockstep.log" >&2; }
    exit 1
}
now_ms() { local now=${EPOCHREALTIME/[.,]/}; echo $((now / 1000)); }

# Only what this script started, by id.
cleanup() {
    local code=$?
    trap - EXIT INT TERM
    for pid in ${watchers[@]+"${watchers[@]}"}; do kill "$pid" 2>/dev/null || true; done
    if [ -n "$finished" ] && [ "${KEEP:-}" = 1 ]; then exit "$code"; fi
    if [ -n "$hub" ]; then
        kill "$hub" 2>/dev/null || true
        wait "$hub" 2>/dev/null || true
    fi
    if [ -d "$work/testbed" ]; then "$testbed" down --dir "$work/testbed" >/dev/null 2>&1 || true; fi
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

title "Starting three Kubernetes control planes"
"$testbed" up --dir "$work/testbed" >"$work/testbed.out"
export KUBECONFIG=$work/testbed/kubeconfig
kubectl=$("$testbed" binaries)/kubectl
k() { "$kubectl" --context "$@"; }

title "Starting lockstep: a hub, and an agent for each of the three contexts"
mkdir "$work/policies"
cp "$policy" "$work/policies/"
note "lockstep up --kubeconfig ... --policies ...   with $policy:"
sed 's/^/    /' "$policy"
setsid "$lockstep" up --kubeconfig "$KUBECONFIG" --policies "$work/policies" --data-dir "$work/data" \
    --key-file "$work/hub-key" --listen-agents 127.0.0.1:0 --listen-api 127.0.0.1:0 --listen-metrics 127.0.0.1:0 \
    --ready-file "$work/ready.json" >"$work/lockstep.out" 2>"$work/lockstep.log" </dev/null &
hub=$!
began=$(now_ms)
shown=0
while [ ! -s "$work/ready.json" ]; do
    kill -0 "$hub" 2>/dev/null || die "lockstep up has ended"
    waited=$((($(now_ms) - began) / 1000))
    if [ "$waited" -ge $((shown + 2)) ]; then shown=$waited; note "waiting for the hub, $waited s"; fi
    [ "$waited" -lt 60 ] || die "the hub does not answer after $waited s"
    sleep 0.05
done
api=$(tr -d ' \n' <"$work/ready.json" | sed -n 's/.*"api":"\([^"]*\)".*/\1/p')
[ -n "$api" ] || die "the ready file names no API: $(cat "$work/ready.json")"
export LOCKSTEP_SERVER=http://${api#http://}
ls_() { "$lockstep" "$@" --data-dir "$work/data"; }

# The agents connect one after the other.
while true; do
    connected=0
    ls_ clusters -o json >"$work/clusters.json" 2>/dev/null && connected=$(grep -o '"connected": *true' "$work/clusters.json" | wc -l)
    [ "$connected" -lt 3 ] || break
    kill -0 "$hub" 2>/dev/null || die "lockstep up has ended"
    [ $(($(now_ms) - began)) -lt 60000 ] || die "only $connected of 3 agents are connected"
    sleep 0.1
done
note "ready after $(($(now_ms) - began)) ms"

# Watches the Deployment web of a cluster; each event becomes a line: milliseconds, type, replicas, label env.
watch_cluster() {
    local path="/apis/apps/v1/namespaces/shop/deployments?watch=true&fieldSelector=metadata.name%3Dweb"
    mkfifo "$work/$1.fifo"
    : >"$work/$1.events"
    "$kubectl" --context "$1" get --raw "$path" >"$work/$1.fifo" 2>/dev/null &
    watchers+=($!)
    while IFS= read -r line; do
        now=$(now_ms)
        type=- replicas=- env=-
        if [[ $line =~ ^\{\"type\":\"([A-Z]+)\" ]]; then type=${BASH_REMATCH[1]}; fi
        if [[ $line =~ \"spec\":\{\"replicas\":([0-9]+) ]]; then replicas=${BASH_REMATCH[1]}; fi
        if [[ $line =~ \"labels\":\{[^}]*\"env\":\"([^\"]*)\" ]]; then env=${BASH_REMATCH[1]}; fi
        echo "$now $type $replicas $env" >>"$work/$1.events"
    done <"$work/$1.fifo" &
    watchers+=($!)
}

# mark: now a command is given, and from here on events count. first CLUSTER REGEX: milliseconds of the first event since that fits.
mark() { given=$(now_ms); for c in cluster-a "${targets[@]}"; do wc -l <"$work/$c.events" >"$work/$c.mark"; done; }
first() { tail -n "+$(($(cat "$work/$1.mark") + 1))" "$work/$1.events" | grep -m 1 -E "^[0-9]+ $2" | cut -d ' ' -f 1; }

# follow SOURCE-REGEX TARGET-REGEX: waits until every target had its event. Times count from the command, kubectl's
# own start included; the source's is told beside them, as the watchers' own delays are of the size of the difference.
follow() {
    local start source seen waiting shown=0
    start=$(now_ms)
    source=
    waiting=("${targets[@]}")
    local -A times=()
    while [ ${#waiting[@]} -gt 0 ]; do
        [ -n "$source" ] || source=$(first cluster-a "$1" || true)
        local left=()
        for c in "${waiting[@]}"; do
            seen=$(first "$c" "$2" || true)
            if [ -n "$seen" ] && [ -n "$source" ]; then times[$c]=$((seen - given)); else left+=("$c"); fi
        done
        waiting=(${left[@]+"${left[@]}"})
        local passed=$(($(now_ms) - start))
        if [ ${#waiting[@]} -gt 0 ]; then
            [ "$passed" -lt "$patience" ] || die "${waiting[*]} did not follow within $((patience / 1000)) s"
            if [ "$passed" -ge $(((shown + 2) * 1000)) ]; then shown=$((passed / 1000)); note "waiting for ${waiting[*]}, $shown s"; fi
            sleep 0.01
        fi
    done
    note "  cluster-a changed $((source - given)) ms after the command was given"
    for c in "${targets[@]}"; do
        printf '  %s%s followed %s ms after the command was given%s\n' "$green" "$c" "${times[$c]}" "$plain"
        k "$c" -n shop get deployments -o 'custom-columns=NAME:.metadata.name,REPLICAS:.spec.replicas,IMAGE:.spec.template.spec.containers[0].image,POLICY:.metadata.annotations.lockstep\.dev/policy' 2>&1 | sed 's/^/    /'
    done
}

k cluster-a create namespace shop >/dev/null
for c in cluster-a "${targets[@]}"; do watch_cluster "$c"; done
sleep 1 # until the watches stand: their first events are the ones that are measured

title "1. Create: Deployment shop/web with env=production, in cluster-a"
mark
k cluster-a apply -f - >/dev/null <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  labels: { env: production }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
      - { name: web, image: "example.invalid/web:1" }
YAML
follow "ADDED 2 production" "ADDED 2 "

title "2. Scale it to 5"
mark
k cluster-a -n shop scale deployment web --replicas=5 >/dev/null
follow "MODIFIED 5 production" "MODIFIED 5 "

title "3. Relabel it to env=staging: the policy no longer selects it"
mark
k cluster-a -n shop label --overwrite deployment web env=staging >/dev/null
follow "MODIFIED 5 staging" "DELETED "

title "4. Relabel it back to env=production"
mark
k cluster-a -n shop label --overwrite deployment web env=production >/dev/null
follow "MODIFIED 5 production" "ADDED 5 "

title "lockstep status"
ls_ wait production-deployments --timeout 10s >/dev/null || die "the policy is not in step"
ls_ status
title "lockstep clusters"
ls_ clusters
title "lockstep explain deployment/web -n shop"
ls_ explain deployment/web -n shop

title "5. Delete it in cluster-a"
mark
k cluster-a -n shop delete deployment web >/dev/null
follow "DELETED " "DELETED "

title "lockstep tombstones list: what was deleted, and is kept"
ls_ tombstones list
id=$(ls_ tombstones list --cluster cluster-b --limit 1 -o name 2>/dev/null | sed 's/.*[^0-9]//' | head -n 1)
[ -n "$id" ] || die "there is no tombstone of cluster-b"
title "lockstep tombstones show $id"
ls_ tombstones show "$id"

finished=1
printf '\n%sdemo succeeded: both targets followed every act%s\n' "$green" "$plain"
if [ "${KEEP:-}" = 1 ]; then
    dir=$work
    cat <<END

Everything still runs. Use it:
  export KUBECONFIG=$dir/testbed/kubeconfig LOCKSTEP_SERVER=$LOCKSTEP_SERVER
  $lockstep status --watch
  $kubectl --context cluster-a -n shop create deployment other --image=example.invalid/other:1
  $kubectl --context cluster-a -n shop label deployment other env=production
  policies: $dir/policies    log: $dir/lockstep.log    token: $dir/data/api-token
Stop it:
  kill $hub; $testbed down --dir $dir/testbed; rm -r $dir
END
fi
