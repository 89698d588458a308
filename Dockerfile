# Images that predict and that serve, not as root. docs/installation.md says how to build and use them.
#
#   docker build --target predict -t parallel-predict .
#   docker build --target serve -t parallel-predict-serve .
#
# torch comes from wherever pip is told to look: the package index's build brings CUDA (about 3 GB). For
# a small image, name an index with builds for CPUs only: --build-arg PIP_EXTRA_INDEX_URL=...

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG PIP_EXTRA_INDEX_URL
ARG TORCH=torch==2.13.0
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv && pip install "$TORCH"
WORKDIR /source
# Before the source, so that a change of it does not install everything again.
COPY setup.cfg pyproject.toml README.md LICENSE requirements-modern.lock ./
RUN grep -E '^[a-z]' requirements-modern.lock | sed 's/ \\$//' > constraints.txt \
    && mkdir allennlp_parallel_predict && touch allennlp_parallel_predict/__init__.py \
    && pip install --constraint constraints.txt ".[models,examples,metrics,parquet,zstd]" \
    && pip install --no-deps allennlp==2.10.1 allennlp-models==2.10.1
COPY allennlp_parallel_predict allennlp_parallel_predict
RUN pip install --no-deps --force-reinstall . && allennlp-parallel-predict doctor

FROM python:${PYTHON}-slim AS predict
COPY --from=build /opt/venv /opt/venv
# An empty folder for nltk's data: else allennlp_models tries to download it at each import.
RUN useradd --create-home predict && mkdir -p /opt/nltk_data/tokenizers/punkt /data && chown predict /data
ENV PATH=/opt/venv/bin:$PATH NLTK_DATA=/opt/nltk_data PYTHONUNBUFFERED=1
USER predict
WORKDIR /data
ENTRYPOINT ["allennlp-parallel-predict"]

FROM predict AS serve
COPY examples/serve.py /opt/serve.py
EXPOSE 8000
HEALTHCHECK --start-period=120s --interval=15s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "/opt/serve.py", "--host", "0.0.0.0", "--port", "8000"]
