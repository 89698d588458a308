"""
Where the time goes. Nothing here is imported into a worker's work unless `--profile` is given.

    stages.py      the names of what a process can be at
    stopwatch.py   one process's time, split into stages that add up
    hooks.py       stages set on a predictor, its reader and its model, and taken off again
    worker.py      what a worker notes of each batch
    run.py         what the parent notes of a run; it collects everything
    memory.py      memory and swap, as the system counts them
    report.py      all of it as a dictionary; text.py: as a text
    diagnosis.py   what the figures mean
    trace.py       a timeline for Perfetto; plot.py: as a picture
    compare.py     two reports side by side
"""
