#!/usr/bin/env bash
# A Kubernetes cluster of two nodes on one machine. Process 1 of namespaces that hack/e2e.sh creates: what it starts ends
# with it, and network, mounts and processes of the machine stay as they are.
#
#   RUN=FOLDER CGROUP=/NAME PROXY=nftables|iptables|none hack/e2e/cluster.sh            the control plane and both nodes
#   …                                                    hack/e2e/cluster.sh node NUMBER   one node, in its own namespaces
#
# PATH must contain the programs of the sets "control-plane" and "node" of hack/tools.sh. All files are in RUN: keys,
# configurations, state, logs, and images/*.tar, which the nodes import. When the nodes are ready, the file RUN/ready
# appears.
#
# Node 1 is the network of the control plane, at the bridge "cluster". Node 2 has a network of its own, with one end of
# a cable in that bridge.
set -euo pipefail
self=$(realpath "${BASH_SOURCE[0]}")
cd "$RUN"
server=10.88.0.1        # the API server, and node 1
service_range=10.96.0.0/24
kubernetes=10.96.0.1    # the Service "kubernetes": the first address of the range
address() { printf '10.88.0.%d' "$1"; }      # of a node
pods() { printf '10.77.%d.0/24' "$1"; }      # the range of a node's pods

start() { # NAME COMMAND…: in the background, with its output in a file
    local name=$1
    shift
    "$@" >"log/$name.log" 2>&1 </dev/null &
}

await() { # WHAT COMMAND…: until the command succeeds
    local what=$1 deadline=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "waited 120 s: $what" >&2; return 1; }
        sleep 0.2
    done
}

authority() { # NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -days 2 -keyout "$1.key" -out "$1.crt" 2>/dev/null
}

certificate() { # NAME SUBJECT EXTENSIONS [AUTHORITY]
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -subj "$2" |
        openssl x509 -req -CA "${4:-ca}.crt" -CAkey "${4:-ca}.key" -CAcreateserial -days 2 -extfile <(printf '%b' "$3") -out "$1.crt" 2>/dev/null
}

kubeconfig() { # NAME SUBJECT
    certificate "$1" "$2" "extendedKeyUsage=clientAuth"
    cat >"$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "https://$server", certificate-authority: $PWD/ca.crt}}]
users: [{name: e2e, user: {client-certificate: $PWD/$1.crt, client-key: $PWD/$1.key}}]
contexts: [{name: e2e, context: {cluster: e2e, user: e2e}}]
current-context: e2e
YAML
}

keys() {
    mkdir -p keys
    cd keys
    authority ca
    authority front-proxy-ca
    openssl genrsa -out accounts.key 2048 2>/dev/null
    openssl rsa -in accounts.key -pubout -out accounts.pub 2>/dev/null
    local names="DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
    certificate apiserver /CN=kube-apiserver "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,IP:$server,IP:$kubernetes,$names"
    certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet "extendedKeyUsage=clientAuth"
    certificate front-proxy-client /CN=front-proxy-client "extendedKeyUsage=clientAuth" front-proxy-ca
    kubeconfig admin /O=system:masters/CN=admin
    kubeconfig controller-manager /CN=system:kube-controller-manager
    kubeconfig scheduler /CN=system:kube-scheduler
    kubeconfig proxy /CN=system:kube-proxy
    kubeconfig node1 /O=system:nodes/CN=system:node:node1
    kubeconfig node2 /O=system:nodes/CN=system:node:node2
    cd ..
}

network() {
    ip link set lo up
    ip link add cluster type bridge
    ip address add "$server/24" dev cluster
    ip link set cluster up
    # A packet to a Service needs a route before kube-proxy's rules see it.
    ip route add default dev cluster src "$server"
    ip route add "$(pods 2)" via "$(address 2)"
    sysctl -qw net.ipv4.ip_forward=1
    # Without kube-proxy, the API server has the address of its own Service, and calls the webhooks' endpoints itself.
    if [[ $PROXY == none ]]; then ip address add "$kubernetes/32" dev cluster; fi
}

control_plane() {
    local client=http://127.0.0.1:2379 peer=http://127.0.0.1:2380 routing=()
    [[ $PROXY != none ]] || routing=(--enable-aggregator-routing=true)
    start etcd etcd --data-dir "$RUN/etcd" --unsafe-no-fsync --listen-client-urls $client --advertise-client-urls $client \
        --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster default=$peer
    start apiserver kube-apiserver --etcd-servers=$client --secure-port=443 --bind-address=0.0.0.0 --advertise-address="$server" \
        --client-ca-file=keys/ca.crt --tls-cert-file=keys/apiserver.crt --tls-private-key-file=keys/apiserver.key \
        --kubelet-client-certificate=keys/apiserver-kubelet.crt --kubelet-client-key=keys/apiserver-kubelet.key \
        --kubelet-preferred-address-types=InternalIP --service-cluster-ip-range=$service_range \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=keys/accounts.pub \
        --service-account-signing-key-file=keys/accounts.key --authorization-mode=Node,RBAC \
        --requestheader-client-ca-file=keys/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file=keys/front-proxy-client.crt --proxy-client-key-file=keys/front-proxy-client.key \
        --enable-admission-plugins=NodeRestriction --allow-privileged "${routing[@]}"
    await "the API server" kubectl get --raw /readyz
    start controller-manager kube-controller-manager --kubeconfig=keys/controller-manager.kubeconfig --leader-elect=false \
        --root-ca-file=keys/ca.crt --service-account-private-key-file=keys/accounts.key --use-service-account-credentials \
        --bind-address=127.0.0.1
    start scheduler kube-scheduler --kubeconfig=keys/scheduler.kubeconfig --leader-elect=false --bind-address=127.0.0.1
}

node() { # NUMBER
    local number=$1 name=node$1
    mkdir -p "$name"/{cni,plugins}
    cat >"$name/cni/net.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local",
  "subnet": "$(pods "$number")", "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$RUN/$name/addresses"}}]}
JSON
    cat >"$name/containerd.toml" <<TOML
version = 2
root = "$RUN/$name/containerd"
state = "$RUN/$name/containerd-state"
[grpc]
address = "$RUN/$name/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "docker.io/library/pause:e2e"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "$SNAPSHOTTER"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$CNI"
conf_dir = "$RUN/$name/cni"
TOML
    start "$name-containerd" containerd --config "$name/containerd.toml"
    local ctr=(ctr --address "$RUN/$name/containerd.sock" --namespace k8s.io)
    await "containerd of $name" "${ctr[@]}" version
    local image
    for image in images/*.tar; do "${ctr[@]}" images import --snapshotter "$SNAPSHOTTER" "$image" >>"log/$name-images.log"; done

    # Mounted Secrets follow within some seconds, not within the minute that is the default of syncFrequency. An image that no
    # pod uses stays, also on a disk that is nearly full: no registry has it.
    cat >"$name/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $RUN/keys/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: $CGROUP/$name
cgroupsPerQOS: false
containerRuntimeEndpoint: unix://$RUN/$name/containerd.sock
enforceNodeAllocatable: []
evictionHard: {imagefs.available: "1%", memory.available: 100Mi, nodefs.available: "1%", nodefs.inodesFree: "1%"}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
podLogsDir: $RUN/$name/pods
resolvConf: ""
syncFrequency: 5s
volumePluginDir: $RUN/$name/plugins
YAML
    start "$name-kubelet" kubelet --config "$name/kubelet.yaml" --kubeconfig "keys/$name.kubeconfig" --hostname-override "$name" \
        --node-ip "$(address "$number")" --root-dir "$RUN/$name/kubelet" --cert-dir "$RUN/$name/kubelet-keys"
    await "$name" kubectl get node "$name"
    if [[ $PROXY == none ]]; then return; fi
    # The limits of connection tracking belong to the machine: 0 leaves them as they are.
    cat >"$name/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $RUN/keys/proxy.kubeconfig}
clusterCIDR: 10.77.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
hostnameOverride: $name
mode: $PROXY
YAML
    start "$name-proxy" kube-proxy --config "$name/proxy.yaml"
}

export KUBECONFIG=$RUN/keys/admin.kubeconfig
if [[ ${1:-} == node ]]; then
    await "the cable" ip link show eth0
    ip link set lo up
    ip address add "$(address "$2")/24" dev eth0
    ip link set eth0 up
    ip route add default via $server
    sysctl -qw net.ipv4.ip_forward=1
    node "$2"
    wait
    exit
fi
mkdir -p log
keys
network
control_plane
node 1
start node2 unshare --net --mount --propagation private bash "$self" node 2
node2=$!
is_apart() { [[ -e /proc/$node2 && $(readlink /proc/$node2/ns/net) != "$(readlink /proc/self/ns/net)" ]]; }
await "the network of node 2" is_apart
ip link add port2 type veth peer name eth0 netns $node2
ip link set port2 master cluster up
await "node 2" kubectl get node node2
kubectl wait --for=condition=Ready node/node1 node/node2 --timeout=120s
touch ready
wait
