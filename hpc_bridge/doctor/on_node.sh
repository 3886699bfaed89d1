#!/bin/sh
# `hpc-bridge doctor` gives a job this in the place of Python. So it starts where the flow's process
# would: with the job script's own directives, after modules, prologue and setup lines.
#
# Beside it: questions (shell variables), on_node.py, env. It leaves: started, pong, answers (last).
[ "$2" = -m ] || exit 0 # the job script has more to ask of a Python that failed
umask 077
here=$(dirname -- "$0")
# shellcheck disable=SC1091
. "$here/questions"

say() { printf '%s=%s\n' "$1" "$2" >> "$here/answers.new"; }
whole() { mv -- "$1.new" "$1"; }
seen() { # within ten seconds; listing asks the file server, which opening a file may not
    tries=0
    until ls -- "$here" 2> /dev/null | grep -qx "$1"; do
        tries=$((tries + 1))
        [ "$tries" -le 50 ] || return 1
        sleep 0.2
    done
}

say node "$(uname -n)"
uname -n > "$here/started.new" && whole "$here/started"
if seen ping; then
    cat "$here/ping" > "$here/pong.new" && whole "$here/pong"
else
    say ping missed
fi

# shellcheck disable=SC2154  # of questions
[ -d "$python" ] && python=$python/bin/python
if command -v -- "$python" > /dev/null; then
    say python "$(command -v -- "$python")"
    say python_version "$("$python" --version 2>&1 | head -n 1)"
    "$python" "$here/on_node.py" "$here" python > "$here/python.json.new" 2> "$here/python.err" &&
        whole "$here/python.json"
fi
# shellcheck disable=SC2154
[ -x "$own_python" ] && say own_python "$own_python"
# A wrong Python need not hide whether the network is right.
for any in "$python" python3 /usr/bin/python3; do
    if "$any" "$here/on_node.py" "$here" server > "$here/server.json.new" 2> /dev/null; then
        whole "$here/server.json"
        break
    fi
done

# shellcheck disable=SC2154
if [ -n "$runtime" ] && command -v -- "$runtime" > /dev/null; then
    say runtime "$("$runtime" --version 2>&1 | head -n 1)"
    while read -r image; do
        [ -r "$image" ] || say missing_image "$image"
    done < "$here/images"
fi
whole "$here/answers"
