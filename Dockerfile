# One image for the agent, the cleaner and the command line.
#
#   docker build -t sharedcache .

FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/sharedcache
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY sharedcache sharedcache
COPY agents agents
RUN /opt/sharedcache/bin/pip install --no-cache-dir '.[sasl,yaml]'

FROM python:3.11-slim-bookworm
# The number is fixed: on a shared directory it must be the same on every host,
# and the one that owns the cache there (Nova's user).
ARG UID=42436
ARG GID=42436
RUN groupadd --gid "$GID" sharedcache \
    && useradd --uid "$UID" --gid "$GID" --no-create-home --home-dir /cache sharedcache \
    && mkdir -p /cache/_base /cache/locks \
    && chown -R sharedcache:sharedcache /cache
COPY --from=build /opt/sharedcache /opt/sharedcache
ENV PATH=/opt/sharedcache/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SHAREDCACHE_BASE=/cache/_base
USER sharedcache
VOLUME /cache
CMD ["sharedcache", "--help"]
