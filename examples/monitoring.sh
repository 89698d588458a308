#!/bin/bash
# A run that other programs follow, with the demo's model: bash examples/monitoring.sh FOLDER
set -e
examples=$(cd "$(dirname "$0")" && pwd)
cd "$1"

# Metrics for Prometheus on any free port, whose address is printed; progress on file descriptor 3.
allennlp-parallel-predict "$examples/g2p/model.tar.gz" "$examples/g2p/words.jsonl" --limit 40 --batch-size 8 \
    --output-file output.jsonl --silent --quiet --metrics 0 --progress json:3 --summary summary.json 3> progress.jsonl
grep -o '"lines": [0-9]*' summary.json
tail -n 1 progress.jsonl | grep -o '"done": [0-9]*'
