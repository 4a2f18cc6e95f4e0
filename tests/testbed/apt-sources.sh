#!/bin/bash
# Derives an apt configuration of our own, with sources enabled, from the machine's Debian entries, so that
# the machine's configuration is neither changed nor required to have deb-src, and no host is named here.
#
#   apt-sources.sh DIR    writes DIR/sources.list.d, and DIR/apt.conf for use as APT_CONFIG
#
# An entry counts as Debian's when its suite is the release's code name (alone, -updates or -security).
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

dir=${1:?usage: apt-sources.sh DIR}
etc=${LOCKSTEP_APT_ETC:-/etc/apt}
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$codename" ] || die "/etc/os-release names no VERSION_CODENAME"
parts=$dir/sources.list.d
rm -rf "$parts"
mkdir -p "$parts" "$dir/lists/partial" "$dir/archives/partial"

shopt -s nullglob

# One-line format: deb [options] URI SUITE COMPONENTS...
for file in "$etc/sources.list" "$etc/sources.list.d"/*.list; do
    [ -f "$file" ] || continue
    awk -v codename="$codename" '
        $1 == "deb" {
            i = 2
            if ($2 ~ /^\[/) { while (i <= NF && $i !~ /\]$/) i++; i++ }
            suite = $(i + 1)
            if (suite == codename || suite == codename "-updates" || suite == codename "-security") {
                print; sub(/deb/, "deb-src"); print
            }
        }' "$file" >>"$parts/one-line.list"
done

# deb822 format: stanzas of fields; only Types and Suites are rewritten, everything else (keys, components) stays.
for file in "$etc/sources.list.d"/*.sources; do
    awk -v codename="$codename" '
        function flush(   i, n, words, suites, line) {
            if (stanza == "") return
            n = split(field["suites"], words, /[ \t]+/)
            suites = ""
            for (i = 1; i <= n; i++)
                if (words[i] == codename || words[i] == codename "-updates" || words[i] == codename "-security")
                    suites = suites " " words[i]
            if (suites != "" && (" " field["types"] " ") ~ / deb / && tolower(field["enabled"]) != "no")
                printf "Types: deb deb-src\nSuites:%s\n%s\n", suites, rest
            stanza = ""; rest = ""; split("", field)
        }
        /^#/ { next }
        /^[ \t]*$/ { flush(); next }
        /^[ \t]/ { if (name == "suites" || name == "types") field[name] = field[name] " " $0; else rest = rest $0 "\n"; next }
        {
            stanza = "yes"
            name = tolower(substr($0, 1, index($0, ":") - 1))
            value = substr($0, index($0, ":") + 1)
            sub(/^[ \t]+/, "", value)
            field[name] = value
            if (name != "types" && name != "suites") rest = rest $0 "\n"
        }
        END { flush() }' "$file" >>"$parts/deb822.sources"
done

if ! [ -s "$parts/one-line.list" ] && ! [ -s "$parts/deb822.sources" ]; then
    die "$etc has no entry for Debian \"$codename\": Kubernetes cannot be built here; set KUBEBUILDER_ASSETS or LOCKSTEP_TESTBED_URL"
fi

cat >"$dir/apt.conf" <<END
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$parts";
Dir::State::lists "$dir/lists";
Dir::Cache::archives "$dir/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
END
