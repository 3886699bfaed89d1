# Shared by the host-side scripts of the test site; sourced, never run.
# shellcheck shell=bash disable=SC2034 # those who source it use these

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CHECKOUT=$(cd "$HERE/../.." && pwd)
SITE=${HPC_BRIDGE_SITE:-$CHECKOUT/build/site}
CACHE=${HPC_BRIDGE_SITE_CACHE:-$CHECKOUT/build/cache}
NODES=(c1 c2 g1)

# A folder is only ever emptied or deleted when this file in it says that it is a site.
MARKER=.hpc-bridge-site

die() { # die CODE MESSAGE: the message is one line, the last on stdout
    printf '%s\n' "$2"
    exit "$1"
}

usage() { # prints the comment block at the top of the calling script
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
    exit "$1"
}

# When a process started; with its pid this names one process for good, since pids are reused.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# Pid of the one process that holds the site (it is outside the site); fails when there is none.
holder_pid() {
    local pid started
    read -r pid started 2>/dev/null <"$SITE/pid" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] || return 1
    echo "$pid"
}

# Pid, seen from the host, of the site's own pid 1.
init_pid() {
    local holder child
    holder=$(holder_pid) || return 1
    child=$(cat "/proc/$holder/task/$holder/children" 2>/dev/null)
    child=${child%% *}
    # Between fork and unshare the child is still in the host's network.
    [ -n "$child" ] && [ "$(readlink "/proc/$child/ns/net")" != "$(readlink /proc/self/ns/net)" ] || return 1
    echo "$child"
}

wait_until() { # wait_until SECONDS COMMAND...
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        [ "${EPOCHREALTIME/./}" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

process_gone() { ! kill -0 "$1" 2>/dev/null; }

setting() { # setting NAME: what `up` recorded
    sed -n "s/^$1=//p" "$SITE/settings" 2>/dev/null
}

remove_cgroups() {
    local group
    while read -r group; do
        # The kernel keeps a group busy for a moment after its last process is gone.
        wait_until 5 cgroup_removed "$group" || echo "cannot remove $group" >&2
    done < <(cat "$SITE/cgroups" 2>/dev/null)
}

cgroup_removed() {
    [ -d "$1" ] || return 0
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
    [ ! -d "$1" ]
}

# Ends every process of the site; mounts and network go with them. Files stay.
stop_site() {
    local holder init
    if holder=$(holder_pid); then
        init=$(init_pid || :)
        kill -9 "$holder"
        # The kernel kills the site's pid 1 with its holder, and with pid 1 everything else.
        wait_until 10 process_gone "$holder" || echo "process $holder does not end" >&2
        [ -z "$init" ] || wait_until 10 process_gone "$init" || echo "process $init does not end" >&2
    fi
    # The host's end of the cable goes with the site's network, but not at once.
    wait_until 5 uplink_gone || echo "network link $(cat "$SITE/uplink") stays" >&2
    remove_cgroups
    rm -f "$SITE/pid" "$SITE/cgroups" "$SITE/uplink"
}

# SITE/uplink holds name and index: another site may have the name by now, but never the index.
uplink_gone() {
    local name index
    read -r name index 2>/dev/null <"$SITE/uplink" || return 0
    [ "$(cat "/sys/class/net/$name/ifindex" 2>/dev/null)" != "$index" ]
}
