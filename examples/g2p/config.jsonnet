// Grapheme-to-phoneme conversion: reads a word as characters, writes its phonemes.
// `python examples/g2p/train.py` prepares the data named here and trains this model.
local char_dim = 48;
local phoneme_dim = 32;
local hidden = 144;  // both directions of the encoder together; the decoder has as many
local batch_size = 160;

{
  numpy_seed: 1337,
  pytorch_seed: 133,
  random_seed: 13370,
  dataset_reader: {
    type: "seq2seq",
    source_tokenizer: { type: "character" },
    target_tokenizer: { type: "just_spaces" },
    source_token_indexers: { tokens: { type: "single_id", namespace: "characters" } },
    target_token_indexers: { tokens: { type: "single_id", namespace: "phonemes" } },
    // The reader's "@start@" and "@end@" would themselves be split into characters.
    source_add_start_token: false,
    source_add_end_token: false,
  },
  train_data_path: "build/g2p/train.tsv",
  validation_data_path: "build/g2p/validation.tsv",
  model: {
    type: "simple_seq2seq",
    source_embedder: {
      token_embedders: {
        tokens: { type: "embedding", vocab_namespace: "characters", embedding_dim: char_dim },
      },
    },
    encoder: {
      type: "lstm",
      input_size: char_dim,
      hidden_size: hidden / 2,
      num_layers: 2,
      dropout: 0.1,
      bidirectional: true,
    },
    attention: { type: "dot_product" },
    target_namespace: "phonemes",
    target_embedding_dim: phoneme_dim,
    beam_search: { beam_size: 5, max_steps: 30 },
    use_bleu: false,
  },
  data_loader: {
    batch_sampler: { type: "bucket", batch_size: batch_size, sorting_keys: ["source_tokens"] },
  },
  validation_data_loader: { batch_size: batch_size },
  trainer: {
    optimizer: { type: "adam", lr: 0.003 },
    learning_rate_scheduler: { type: "linear_with_warmup", warmup_steps: 200 },
    grad_norm: 2.0,
    num_epochs: 6,
    validation_metric: "-loss",
    cuda_device: -1,
  },
}
