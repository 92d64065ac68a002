# docket as an image: one program, no shell, not root. What it runs on is given by the environment; see the README.
#
#   docker build -t docket .
#
# The bases are arguments, for machines that take their images from elsewhere. The one of the build needs cargo and a C
# compiler, the other one the same C library and the certificates of the authorities (for TLS to servers).
ARG BUILD_BASE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_BASE} AS build
ARG PROFILE=release
WORKDIR /src

# The dependencies, in a layer that stays as long as the manifests do: of our own code only empty files are here.
COPY Cargo.toml Cargo.lock ./
COPY actors/Cargo.toml actors/
COPY tests/servers/Cargo.toml tests/servers/
COPY xtask/Cargo.toml xtask/
RUN mkdir -p src actors/src tests/servers/src xtask/src \
    && touch src/lib.rs actors/src/lib.rs tests/servers/src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs > xtask/src/main.rs \
    && cargo build --locked --profile "$PROFILE" --package docket --bin docket

# docket itself. Files that are older than those empty ones would not be compiled.
COPY config.toml ./
COPY actors actors
COPY src src
RUN find src actors -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile "$PROFILE" --package docket --bin docket \
    && mkdir -p /image/usr/local/bin /image/data \
    && cp "target/$(echo "$PROFILE" | sed 's/^dev$/debug/')/docket" /image/usr/local/bin/docket

FROM ${RUNTIME_BASE}
COPY --from=build /image/usr/local/bin/docket /usr/local/bin/docket
# Owned by the user below, and so is a new volume in its place.
COPY --from=build --chown=65532:65532 /image/data /data
USER 65532:65532
WORKDIR /data
# Reachable from outside the container. docket refuses to be, until it has auth.keys or auth.open = true.
ENV DOCKET__HTTP__BIND=0.0.0.0:8080 DOCKET__OPS__BIND=0.0.0.0:8081 DOCKET__DATA__DIRECTORY=/data
EXPOSE 8080 8081
VOLUME /data
# The first one ends it in order, within shutdown.deadline_ms and some seconds: docker stop --time 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["docket", "healthy"]
ENTRYPOINT ["docket"]
