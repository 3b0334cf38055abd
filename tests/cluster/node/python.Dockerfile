# Stands in for the published Python image. The machine's CA bundle replaces the distribution's, so that a build behind
# a TLS proxy trusts what the machine trusts.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
