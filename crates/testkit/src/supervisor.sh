# Runs the processes of one control plane in the current folder, and ends them, with the folder, when its standard input
# closes. The kernel closes that pipe however the parent ends, so nothing outlives even a SIGKILL of the parent.
#
# Requests are lines on standard input; each is answered at once by one line on standard output, so that no test waits for
# the program of another:
#   start NAME          runs ./NAME.sh                              -> started NAME
#   signal NAME SIGNAL  sends it                                    -> signalled NAME
#   status NAME                                                     -> running NAME | exited NAME
#
# Each NAME.sh writes NAME.pid and replaces itself by its program. NAME.exit appears when the program has ended, so a
# process id is never used after that.
set -u
dir=$(pwd) || exit 1
names=

is_running() { [ -s "$1.pid" ] && [ ! -e "$1.exit" ]; }

send() { is_running "$2" && kill -s "$1" "$(cat "$2.pid")" 2>/dev/null; }

end_all() {
    trap '' INT TERM HUP
    # The data goes too, so there is nothing to save: SIGKILL also ends what is stopped or hangs.
    for name in $names; do send KILL "$name"; done
    wait
    cd / && rm -rf "$dir"
}

trap 'exit 143' INT TERM HUP
trap end_all EXIT

while read -r verb name argument; do
    case $verb in
    start)
        rm -f "$name.pid" "$name.exit"
        case " $names " in *" $name "*) ;; *) names="$names $name" ;; esac
        {
            sh "./$name.sh" </dev/null >>"$name.log" 2>&1
            echo $? >"$name.exit"
        } >/dev/null &
        until [ -s "$name.pid" ] || [ -e "$name.exit" ]; do sleep 0.01; done
        echo "started $name"
        ;;
    signal)
        send "$argument" "$name"
        echo "signalled $name"
        ;;
    status)
        if is_running "$name"; then echo "running $name"; else echo "exited $name"; fi
        ;;
    esac
done
