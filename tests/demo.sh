#!/bin/bash
# `make demo`: three real control planes, one policy, one Deployment that comes, changes and goes.
# KEEP=1 leaves everything running to play with. DELAY=8 freezes the API servers of the targets for 8 s while lockstep
# starts, so that their agents connect late. BINARIES is the directory of lockstep and testbed. Exits with 1 if a target
# does not follow in time.
. "$(dirname "${BASH_SOURCE[0]}")/report-errors.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binaries=${BINARIES:-$PWD/target/debug}
lockstep=$binaries/lockstep
testbed=$binaries/testbed
policy=policies/examples/production-deployments.yaml
delay=${DELAY:-0}
targets=(cluster-b cluster-c)

work=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-demo.XXXXXX")
watchers=()
hub=
thaw=
finished=

if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' green='' dim='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
now_ms() { local now=${EPOCHREALTIME/[.,]/}; echo $((now / 1000)); }

# await SECONDS WHAT CONDITION...: repeats the condition until it succeeds, and says every few seconds what it waits for.
# The seconds are those of an idle machine. What the condition prints goes to a file, whose end is shown if time is up.
await() {
    local limit=$(($1 * patience * 10)) what=$2 began passed shown=0
    shift 2
    began=$(now_ms)
    until "$@" >"$work/condition" 2>&1; do
        [ -z "$hub" ] || kill -0 "$hub" 2>/dev/null || die "lockstep up has ended while the demo waited until $what"
        passed=$(($(now_ms) - began))
        if [ "$passed" -ge "$limit" ]; then
            cat "$work/condition" >&2
            die "waited $((passed / 1000)) s in vain until $what"
        fi
        if [ "$passed" -ge $(((shown + 3) * 1000)) ]; then
            shown=$((passed / 1000))
            note "waiting until $what, $shown s"
        fi
        sleep 0.05
    done
}

# Only what this script started, by id.
cleanup() {
    for pid in ${watchers[@]+"${watchers[@]}"}; do kill "$pid" 2>/dev/null || true; done
    if [ -n "$finished" ] && [ "${KEEP:-}" = 1 ]; then return; fi
    [ -z "$thaw" ] || kill "$thaw" 2>/dev/null || true
    if [ -n "$hub" ]; then
        kill "$hub" 2>/dev/null || true
        wait "$hub" 2>/dev/null || true
    fi
    if [ -d "$work/testbed" ]; then "$testbed" down --dir "$work/testbed" >/dev/null 2>&1 || true; fi
    rm -rf "$work"
}
ON_EXIT=cleanup
[[ $delay =~ ^[0-9]+$ ]] || die "DELAY is a number of seconds, not \"$delay\""

title "Starting three Kubernetes control planes"
"$testbed" up --dir "$work/testbed" >"$work/testbed.out"
export KUBECONFIG=$work/testbed/kubeconfig
# How much slower than an idle machine with two cores this one was when it started them, in percent.
patience=$(sed -n 's/.*"patience_percent": *\([0-9]*\).*/\1/p' "$work/testbed/state.json")
[ -n "$patience" ] || die "state.json of the test bed has no patience_percent"
kubectl=$("$testbed" binaries)/kubectl
k() { "$kubectl" --context "$@"; }

title "Starting lockstep: a hub, and an agent for each of the three contexts"
mkdir "$work/policies"
cp "$policy" "$work/policies/"
note "lockstep up --kubeconfig ... --policies ...   with $policy:"
sed 's/^/    /' "$policy"
if [ "$delay" -gt 0 ]; then
    note "the API servers of ${targets[*]} are frozen for $delay s"
    "$testbed" pause --dir "$work/testbed" "${targets[@]}"
    (sleep "$delay" && "$testbed" resume --dir "$work/testbed" "${targets[@]}" && note "the API servers answer again") &
    thaw=$!
fi
FAILURE_LOG=$work/lockstep.log
began=$(now_ms)
setsid "$lockstep" up --kubeconfig "$KUBECONFIG" --policies "$work/policies" --data-dir "$work/data" \
    --key-file "$work/hub-key" --listen-agents 127.0.0.1:0 --listen-api 127.0.0.1:0 --listen-metrics 127.0.0.1:0 \
    --ready-file "$work/ready.json" >"$work/lockstep.out" 2>"$work/lockstep.log" </dev/null &
hub=$!
await $((60 + delay)) "the hub listens" test -s "$work/ready.json"
api=$(tr -d ' \n' <"$work/ready.json" | sed -n 's/.*"api":"\([^"]*\)".*/\1/p')
[ -n "$api" ] || die "the ready file names no API: $(cat "$work/ready.json")"
export LOCKSTEP_SERVER=http://${api#http://}
ls_() { "$lockstep" "$@" --data-dir "$work/data"; }

# The agents connect one after the other.
all_connected() {
    ls_ clusters -o json >"$work/clusters.json" || return
    awk '{ n += gsub(/"connected": *true/, "") } END { print n + 0 " of 3 are connected"; exit n != 3 }' "$work/clusters.json"
}
await $((60 + delay)) "the agents of all three clusters are connected" all_connected
connected_after=$(($(now_ms) - began))
[ "$connected_after" -ge $((delay * 1000)) ] || die "the agents did not wait for their API servers: DELAY has delayed nothing"
note "ready after $connected_after ms"

# Watches the Deployment web of a cluster; each event becomes a line: milliseconds, type, replicas, label env.
watch_cluster() {
    local path="/apis/apps/v1/namespaces/shop/deployments?watch=true&fieldSelector=metadata.name%3Dweb"
    mkfifo "$work/$1.fifo"
    : >"$work/$1.events"
    "$kubectl" --context "$1" get --raw "$path" -v=6 >"$work/$1.fifo" 2>"$work/$1.watch" &
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
first() {
    awk -v skip="$(<"$work/$1.mark")" -v wanted="^[0-9]+ $2" 'NR > skip && !found && $0 ~ wanted { print $1; found = 1 }' \
        "$work/$1.events"
}

has_event() {
    local seen
    seen=$(first "$1" "$2")
    [ -n "$seen" ] && return
    echo "the events of the Deployment in $1: milliseconds, type, replicas, label env"
    cat "$work/$1.events"
    return 1
}

# follow SOURCE-REGEX TARGET-REGEX: waits until every target had its event. Times count from the command, kubectl's
# own start included; the source's is told beside them, as the watchers' own delays are of the size of the difference.
follow() {
    local c source seen
    await 20 "cluster-a has changed" has_event cluster-a "$1"
    for c in "${targets[@]}"; do await 20 "$c has followed" has_event "$c" "$2"; done
    source=$(first cluster-a "$1")
    note "  cluster-a changed $((source - given)) ms after the command was given"
    for c in "${targets[@]}"; do
        seen=$(first "$c" "$2")
        printf '  %s%s followed %s ms after the command was given%s\n' "$green" "$c" "$((seen - given))" "$plain"
        k "$c" -n shop get deployments -o 'custom-columns=NAME:.metadata.name,REPLICAS:.spec.replicas,IMAGE:.spec.template.spec.containers[0].image,POLICY:.metadata.annotations.lockstep\.dev/policy' 2>&1 | sed 's/^/    /'
    done
}

k cluster-a create namespace shop >/dev/null
for c in cluster-a "${targets[@]}"; do watch_cluster "$c"; done
# kubectl logs the status of the answer, which comes once the API server has registered the watch.
for c in cluster-a "${targets[@]}"; do await 20 "the watch of $c stands" grep -q '200 OK' "$work/$c.watch"; done

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
await 20 "the policy is in step" ls_ wait production-deployments --timeout 2s
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
id=$(ls_ tombstones list --cluster cluster-b --limit 1 -o name | sed -n '1s/.*[^0-9]//p')
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
