# kubeadm starts CoreDNS by arguments only.
ARG COMPONENT
FROM ${COMPONENT}
ENTRYPOINT ["/usr/local/bin/coredns"]
