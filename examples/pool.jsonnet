// The settings and their defaults; `allennlp parallel-predict ... --parallel-config pool.jsonnet`.
{
  executor: {
    type: "process_pool",
    num_workers: null,             // the CPUs this process may use
    threads_per_worker: null,      // OMP_NUM_THREADS, or CPUs / workers
    start_method: null,            // "fork" on Linux without a GPU, else "spawn"
    share_model: true,
    cuda_devices: null,            // [0, 1] deals the workers out over two GPUs
    batch_timeout: null,           // seconds
    max_retries: 1,
    max_deaths: 3,
    max_batches_per_worker: null,
    allow_stateful_model: false,
    pin_cpus: true,
    operation_batching: null,      // if predictor, reader and model are AllenNLP's
  },
  batching: { type: "in_order", batch_size: 1 },
  exact: true,
  on_error: "raise",
  max_errors: null,
  progress: "auto",
  checkpoint_interval: 5.0,
  precision: "fp32",               // "bf16", or on GPUs "tf32", "fp16", "bf16"
  precision_sample: 256,           // inputs that are predicted in fp32 too, to see whether they agree
  precision_min_agreement: 0.995,
}
