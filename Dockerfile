# A container image of the server alone: no shell, no package manager, no root. See docs/operations.md.
#
#   docker build -t stube .
#   docker run --network host --read-only --cap-drop ALL --security-opt no-new-privileges \
#       -v /etc/stube/config.toml:/etc/stube/config.toml:ro -v stube:/var/lib/stube stube

# The same Debian as the image below, so that the C library is the one that was linked with.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin stube \
    && strip -o /stube target/release/stube \
    && mkdir /state

# The C library, libgcc, certificate authorities (webhooks are posted by HTTPS) and a user called nonroot; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /stube /usr/bin/stube
COPY --from=build --chown=65532:65532 /state /var/lib/stube
COPY config.toml /etc/stube/config.toml
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/stube/
# The shipped key is for loopback, which in a container nobody reaches. Without it the server may listen for all, and lets
# nobody in until a configuration with a key is mounted, or STUBE__KEYS__NAME is set. Rooms and open records belong to a
# node, and a container's host name is another one each time. These win over a mounted file.
ENV STUBE_CONFIG=/etc/stube/config.toml \
    STATE_DIRECTORY=/var/lib/stube \
    STUBE__KEYS__devkey= \
    STUBE__LEDGER__NODE=stube \
    STUBE__HTTP__LISTEN=0.0.0.0:7880
USER 65532:65532
WORKDIR /var/lib/stube
VOLUME /var/lib/stube
EXPOSE 7880/tcp 7881/tcp 7882/udp
# There is no HEALTHCHECK: it would need a program to ask /healthz, and there is none in here but the server. Let the
# orchestrator ask the admin listener (STUBE__ADMIN__LISTEN=0.0.0.0:6789, on a network of the operator's own).
ENTRYPOINT ["/usr/bin/stube"]
CMD ["serve"]
