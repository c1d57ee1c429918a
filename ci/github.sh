# What GitHub shows of a job, for the scripts beside this one. Elsewhere both do nothing.
# shellcheck shell=bash

# Adds standard input to the job's summary page.
summary() {
    cat >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
}

# annotate TITLE TEXT: puts an error beside the job. The text may have several lines.
annotate() {
    if [ "${GITHUB_ACTIONS:-}" = true ]; then
        local text=${2//%/%25}
        echo "::error title=$1::${text//$'\n'/%0A}"
    fi
}
