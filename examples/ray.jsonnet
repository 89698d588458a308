// Workers on a Ray cluster (pip install 'allennlp-parallel-predict[ray]'); see docs/cluster.md.
{
  executor: {
    type: "ray",
    address: "auto",               // the cluster that this machine is part of; "host:port"; "local"
    num_workers: null,             // as many as the cluster's CPUs, or GPUs, suffice for
    num_cpus_per_worker: 1,        // and as many threads of torch
    num_gpus_per_worker: 0,
    share_model: true,             // one copy of the parameters on each node
    batch_timeout: null,           // seconds
    start_timeout: 600,            // seconds without any worker; null: wait
    max_retries: 1,
    allow_stateful_model: false,
    runtime_env: null,             // null: imported code that is not installed travels
  },
  // What a batch costs beside the model is the same for 1 input and for 64.
  batching: { type: "in_order", batch_size: 32 },
}
