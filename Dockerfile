# The `ide3d` command on a CPU, as a user without rights: `docker build -t ide3d .`; see docs/serve.md.
FROM python:3.11-slim AS build
RUN python -m venv /opt/ide3d
ENV PATH=/opt/ide3d/bin:$PATH
# Where pip finds PyTorch. Left empty, it is pip's own index, whose wheels for x86-64 bring CUDA along.
ARG TORCH_INDEX_URL=""
# Any version will do that setup.cfg allows.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch torchvision
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
ARG EXTRAS=app,serve
RUN pip install --no-cache-dir "$(echo /wheels/ide3d-*.whl)[$EXTRAS]"

FROM python:3.11-slim
COPY --from=build /opt/ide3d /opt/ide3d
RUN useradd --create-home --uid 1000 ide3d
ENV PATH=/opt/ide3d/bin:$PATH
USER 1000:1000
WORKDIR /home/ide3d
EXPOSE 7860 8000
ENTRYPOINT ["ide3d"]
CMD ["--help"]
