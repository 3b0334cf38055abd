# A Debian that boots as a kind node. files/ is the folder images/base/files of kind's own source module: its
# entrypoint, its systemd units, its settings for containerd. Where kind fetches binaries, Debian's packages serve.
ARG BASE
FROM ${BASE}
COPY files/ /
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold \
      systemd containerd runc containernetworking-plugins iptables nftables conntrack iproute2 ethtool socat \
      bash ca-certificates jq kmod libseccomp2 mount pigz procps util-linux \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/locale
# Where the entrypoint and kubeadm look for things.
RUN ln -sf /lib/systemd/systemd /sbin/init \
 && ln -sf /usr/bin/containerd /usr/local/bin/containerd \
 && mkdir -p /opt/cni/bin /etc/kubernetes/manifests && ln -sf /usr/lib/cni/* /opt/cni/bin/ \
 && chmod 755 /usr/local/bin/* /kind /kind/bin /kind/bin/*
# systemd starts nothing that belongs to a machine with hardware, only what a node needs.
RUN for target in basic local-fs multi-user; do \
      find /etc/systemd/system /lib/systemd/system -path "*/$target.target.wants/*" -delete; \
    done \
 && systemctl mask systemd-binfmt.service systemd-tmpfiles-setup.service systemd-udevd.service \
      systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-initctl.socket \
 && mkdir -p /etc/systemd/journald.conf.d \
 && printf '[Journal]\nReadKMsg=no\n' > /etc/systemd/journald.conf.d/node.conf \
 && systemctl enable containerd.service kubelet.service undo-mount-hacks.service
# kind's hook in every container. Without restrict_oom_score_adj every pod fails with "can't get final child's PID from
# pipe": containerd would ask for a score below its own, which needs CAP_SYS_RESOURCE.
RUN ctr oci spec \
      | jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
      > /etc/containerd/cri-base.json \
 && sed -i 's/\(restrict_oom_score_adj =\).*/\1 true/' /etc/containerd/config.toml
