# One static binary, nothing else: the webhook and the cache run from it; the node shim is installed on nodes as a file.
#   docker build -t image-cri-shim .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static against glibc, not musl: its allocator is what was measured. Since 2.34 it looks names up in /etc/hosts and
# by DNS without loading libraries, and a Pod gets both files from its kubelet. The target is named so that the flag
# doesn't reach macros and build scripts, which must stay dynamic.
RUN target="$(rustc --print host-tuple)" \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --package image-cri-shim --target "$target" \
 && mkdir /out \
 && cp "target/$target/release/image-cri-shim" /out/ \
 && if readelf --program-headers /out/image-cri-shim | grep -w INTERP; then echo "not static" >&2; exit 1; fi

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/image-cri-shim /image-cri-shim
USER 65532:65532
ENTRYPOINT ["/image-cri-shim"]
