# The operator's image for those who build with a container builder: one static program on an empty base. `make image`
# builds it without one, reproducibly, and adds a bill of materials: docs/image.md.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN program=$(hack/image/program.sh) && install "$program" /managed-secrets \
    && target=${program%/release/*} && hack/image/licenses.sh "${target##*/}" >/THIRD-PARTY-LICENSES

FROM scratch
ARG VERSION=0.1.0
ARG REVISION
LABEL org.opencontainers.image.title="managed-secrets" \
      org.opencontainers.image.description="Kubernetes operator that turns a ManagedSecret into an encrypted record and a Secret that pods mount" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /managed-secrets /managed-secrets
COPY --from=build /THIRD-PARTY-LICENSES /THIRD-PARTY-LICENSES
COPY LICENSE /LICENSE
USER 65532:65532
ENTRYPOINT ["/managed-secrets"]
