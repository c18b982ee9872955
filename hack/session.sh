#!/usr/bin/env bash
# Records docs/session.md: a person at a terminal, typing, with the real kubectl and the plugin. Runs inside `controlplane
# run`, as hack/demo.sh does; needs tmux. What stands in the page is what the terminal showed, colours aside.
set -euo pipefail

command -v tmux >/dev/null || { echo "session: tmux is missing: install it (Debian: apt-get install tmux)" >&2; exit 1; }
page=$PWD/docs/session.md
cd "${DEMO_FOLDER:?run this by: make session}"
mkdir -p home
# A server of its own, so that nobody's tmux is met; 400 lines are kept.
socket=$PWD/tmux.socket
tm() { tmux -S "$socket" -f /dev/null "$@"; }
trap 'tm kill-server 2>/dev/null || true' EXIT

# Each prompt notes that the command before it has ended.
: >prompts
cat >rc <<RC
PS1='$ '
PROMPT_COMMAND='echo >>"$PWD/prompts"'
RC
tm new-session -d -x 150 -y 400 -e HOME="$PWD/home" -e TERM=screen-256color "exec bash --noprofile --rcfile rc -i"
# Waits until every command that was typed has ended.
commands=0
prompt() {
    local end=$((SECONDS + 120))
    commands=$((commands + 1))
    until (($(wc -l <prompts) >= commands)); do
        ((SECONDS < end)) || { tm capture-pane -p >&2; exit 1; }
        sleep 0.05
    done
}
prompt

typed() { tm send-keys -l "$1"; tm send-keys Enter; }
run() { typed "$1"; prompt; }
# Waits until the screen has asked for something, for the n-th time.
asked() { # TEXT [N]
    local end=$((SECONDS + 60))
    until (($(tm capture-pane -p | grep -cF -- "$1") >= ${2:-1})); do
        ((SECONDS < end)) || { tm capture-pane -p >&2; exit 1; }
        sleep 0.1
    done
}

run 'kubectl config set-context --current --namespace shop >/dev/null'
run 'clear'
typed 'kubectl msec create WEATHER_API_KEY --description OpenWeather'
asked 'Value (not shown):'
typed only-an-example
prompt
run 'kubectl msec create DB_PASSWORD --generate 40 --target-key password'
run 'kubectl msec create WEATHER_API_KEY --generate'
run 'kubectl msec list'
run 'kubectl msec value WEATHER_API_KEY; echo'
typed 'kubectl msec update WEATHER_API_KEY --name OPENWEATHER_KEY --value-stdin'
asked 'Value (not shown):' 2
typed another-example
prompt
run 'kubectl msec describe OPENWEATHER_KEY'
run 'kubectl msec export OPENWEATHER_KEY > openweather.yaml'
run 'kubectl msec validate openweather.yaml && kubectl msec diff -f openweather.yaml'
run 'kubectl msec delete DB_PASSWORD --yes'
run 'kubectl msec explain NameInUse'

tm capture-pane -p -S - >screen
{
    printf '# A session\n\nRecorded from a terminal by `make session`: what a person typed at a new cluster, and what was answered. The\n'
    printf 'values were typed at prompts that do not show them. [kubectl-msec.md](kubectl-msec.md) explains the commands.\n\n'
    printf '```text\n'
    sed -e 's/[[:space:]]*$//' screen | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' | sed -e '${/^\$$/d}'
    printf '```\n'
} >"$page"
echo "wrote docs/session.md"
