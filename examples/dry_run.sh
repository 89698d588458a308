# What a long run would do, before it is started. It writes no file.
allennlp-parallel-predict examples/g2p/model.tar.gz examples/g2p/words.jsonl \
    --output-file output.jsonl --silent --batch-size 32 --dry-run
