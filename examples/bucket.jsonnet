// Batches of inputs of like length: less padding, and other last digits than `allennlp predict`.
{
  batching: { type: "bucket", batch_size: 32, window: 2048 },
}
