"""The names of what a process can be at, in the order in which reports show them."""

WAITING = "waiting for work"
RECEIVING = "receiving"
LOAD_LINE = "load_line"
TO_INSTANCE = "JSON to instance"
INDEXING = "indexing, tensorising"
TO_DEVICE = "moving to device"
FORWARD = "forward"
READABLE = "make_output_human_readable"
SPLITTING = "splitting the outputs"
SANITIZE = "sanitize"
PREDICTOR = "predictor's own code"
DUMP_LINE = "dump_line"
SENDING = "sending"
STARTING = "starting"
OTHER = "other"
"""Everything that has no name of its own."""

WORKER_STAGES = [
    LOAD_LINE,
    TO_INSTANCE,
    INDEXING,
    TO_DEVICE,
    FORWARD,
    READABLE,
    SPLITTING,
    SANITIZE,
    PREDICTOR,
    DUMP_LINE,
    SENDING,
    RECEIVING,
    STARTING,
    WAITING,
    OTHER,
]

IMPORTS = "imports"
EXTRACTING = "extracting the archive"
LOADING = "loading the model"
COMPARING = "comparing precisions"
STARTING_WORKERS = "starting workers"
READING = "reading"
WAITING_FOR_INPUT = "waiting for input"
WAITING_FOR_WORKERS = "waiting for workers"
ORDERING = "ordering"
WRITING = "writing"
ENDING = "ending workers"

PARENT_STAGES = [
    IMPORTS,
    EXTRACTING,
    LOADING,
    COMPARING,
    STARTING_WORKERS,
    READING,
    SENDING,
    RECEIVING,
    ORDERING,
    WRITING,
    WAITING_FOR_INPUT,
    WAITING_FOR_WORKERS,
    ENDING,
    OTHER,
]
