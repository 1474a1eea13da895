# One static binary, nothing else: the webhook and the cache run from it; the node shim is installed on nodes as a file.
#   docker build -t image-cri-shim .
FROM rust:1.95-alpine AS build
# Alpine's Rust links statically against musl; ring compiles some C.
RUN apk add --no-cache musl-dev gcc make
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package image-cri-shim \
 && mkdir /out \
 && cp target/release/image-cri-shim /out/

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/image-cri-shim /image-cri-shim
USER 65532:65532
ENTRYPOINT ["/image-cri-shim"]
