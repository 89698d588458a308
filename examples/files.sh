#!/bin/bash
# Input and output files of several kinds, with the demo's model: bash examples/files.sh FOLDER
set -e
examples=$(cd "$(dirname "$0")" && pwd)
cd "$1"
predict() {
    allennlp-parallel-predict "$examples/g2p/model.tar.gz" "$@" --silent --batch-size 32
}
head -n 40 "$examples/g2p/words.jsonl" > words.jsonl

# Compressed output, by the suffix of its name.
predict words.jsonl --output-file compressed.jsonl.gz --output-format auto
gzip -dc compressed.jsonl.gz | wc -l

# What failed is predicted again. Here it fails again, as it is no JSON: exit status 3.
sed '3s/.*/{"source/' words.jsonl > broken.jsonl
predict broken.jsonl --output-file retried.jsonl --on-error skip --errors-file errors.jsonl || test $? = 3
wc -l < retried.jsonl
predict broken.jsonl --output-file retried.jsonl --on-error skip --retry errors.jsonl || test $? = 3

# Repeated lines are predicted once.
cat words.jsonl words.jsonl | predict - --deduplicate --output-file repeated.jsonl
wc -l < repeated.jsonl

# Parquet input: its columns, by the keys that the predictor reads.
python -c 'import pyarrow.json; from pyarrow import parquet
parquet.write_table(pyarrow.json.read_json("words.jsonl").rename_columns(["word"]), "words.parquet")'
predict words.parquet --map source=word --output-file from_parquet.jsonl
wc -l < from_parquet.jsonl

# Parquet output, by the suffix of its name: a table with a column for each field.
predict words.jsonl --output-file table.parquet --output-format auto
python -c 'from pyarrow import parquet
print(parquet.read_metadata("table.parquet").num_rows)'

# Several inputs: an output for each, which are together what one output for all is.
split -l 20 words.jsonl part-
predict 'part-*' --output-dir parts
predict 'part-*' --output-file whole.jsonl
cat parts/part-aa.jsonl parts/part-ab.jsonl | cmp - whole.jsonl
wc -l < whole.jsonl
