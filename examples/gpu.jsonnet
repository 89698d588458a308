// One GPU with two workers, batches of like size in memory, half precision: see docs/gpu.md.
{
  executor: { type: "process_pool", cuda_devices: [0], num_workers: 2 },
  batching: { type: "bucket", max_tokens: 32000, window: 4096 },  // characters
  precision: "bf16",
  precision_min_agreement: 0.995,
}
