# What GitHub shows of a job, for the scripts beside this one. Elsewhere both do nothing.
# shellcheck shell=bash

# Adds standard input to the job's summary page.
summary() {
    cat >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
}

# junit FILE: prints it as a part of a summary that is folded away. GitHub takes a MiB of a summary and refuses what is longer.
junit() {
    if [ "$(wc -c <"$1")" -gt 500000 ]; then
        printf '\n%s is too long for this page; it is among the artefacts.\n' "$1"
        return
    fi
    printf '\n<details><summary>JUnit</summary>\n\n~~~xml\n'
    cat "$1"
    printf '\n~~~\n\n</details>\n'
}

# annotate TITLE TEXT: puts an error beside the job. The text may have several lines.
annotate() {
    if [ "${GITHUB_ACTIONS:-}" = true ]; then
        local text=${2//%/%25}
        echo "::error title=$1::${text//$'\n'/%0A}"
    fi
}
