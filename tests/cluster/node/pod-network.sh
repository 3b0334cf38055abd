#!/bin/bash
# The pod network of a node: a CNI configuration for its own pod range, routes to the other nodes' ranges, masquerading
# for what leaves the pods' network. It does not enforce NetworkPolicy.
set -u
account=/var/run/secrets/kubernetes.io/serviceaccount
configured=''

masquerade() {
  iptables -w -t nat "$1" POSTROUTING -s "$POD_SUBNET" ! -d "$POD_SUBNET" \
    -m comment --comment pod-network -j MASQUERADE
}

configure() {
  cat > /etc/cni/net.d/.pod-network <<JSON
{"cniVersion": "0.3.1", "name": "pod-network", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {
    "type": "host-local", "dataDir": "/run/cni-ipam-state",
    "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "$1"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  mv /etc/cni/net.d/.pod-network /etc/cni/net.d/10-pod-network.conflist
}

nodes() {  # one line per node and change: name, pod range, address
  kubectl --server="https://$CONTROL_PLANE_ENDPOINT" --certificate-authority=$account/ca.crt \
    --token="$(cat $account/token)" get nodes --watch --output \
    'jsonpath={.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}'
}

masquerade --check 2>/dev/null || masquerade --append
while true; do
  while read -r name range address; do
    [ -n "${address:-}" ] || continue  # no range yet, or a simulated node
    if [ "$name" != "$NODE_NAME" ]; then
      ip route replace "$range" via "$address" 2>/dev/null || true  # a simulated node's address is not on our network
    elif [ "$range" != "$configured" ]; then
      configure "$range" && configured=$range
    fi
  done < <(nodes)
  sleep 0.5
done
