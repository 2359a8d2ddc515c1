# crossvox in a container; docs/guides/docker.md has the commands.
#   docker build --tag crossvox .
#   docker build --build-arg DEVICE=cu128 --tag crossvox:cuda .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# cpu, or a CUDA build of torch, as on https://download.pytorch.org/whl
ARG DEVICE=cpu
# extras of crossvox; `dicom` reads and writes DICOM
ARG EXTRAS=dicom
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /opt/crossvox
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN pip install --constraint constraints.txt \
    --extra-index-url "https://download.pytorch.org/whl/${DEVICE}" ".[${EXTRAS}]"

# Any user may run it: `docker run --user` gives results the owner that they should have.
RUN useradd --create-home crossvox && mkdir /work && chown crossvox /work
ENV MPLCONFIGDIR=/tmp/matplotlib
USER crossvox
WORKDIR /work

ENTRYPOINT ["crossvox"]
CMD ["--help"]
