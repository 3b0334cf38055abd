# Everything that a node and its control plane run. The images that kubeadm asks for are this one under other names, so
# one copy of the layers serves them all.
ARG BASE
FROM ${BASE}
COPY kubernetes /usr/bin/kubernetes
COPY etcd coredns /usr/local/bin/
COPY pod-network.sh /usr/local/bin/pod-network
COPY kind/ /kind/
RUN for name in kubeadm kubelet kubectl crictl; do ln -s kubernetes /usr/bin/$name; done \
 && for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do \
      ln -s /usr/bin/kubernetes /usr/local/bin/$name; \
    done
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
