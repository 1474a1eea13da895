#!/bin/sh
# Prints a kubeconfig with the identity of the ServiceAccount image-cri-shim, made from the current
# context of kubectl and the token Secret of token.yaml:
#
#   sh kubeconfig.sh > image-cri-shim.kubeconfig
set -eu

secret=image-cri-shim-token
value() {
    kubectl -n kube-system get secret "$secret" -o "jsonpath={.data['$1']}"
}

server=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
ca=$(value 'ca\.crt')
token=$(value token | base64 -d)
if [ -z "$server" ] || [ -z "$ca" ] || [ -z "$token" ]; then
    echo "kubeconfig.sh: no token in the Secret $secret yet; apply token.yaml and try again" >&2
    exit 1
fi

cat <<EOF
apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster:
    server: $server
    certificate-authority-data: $ca
users:
- name: image-cri-shim
  user:
    token: $token
contexts:
- name: image-cri-shim
  context:
    cluster: cluster
    user: image-cri-shim
current-context: image-cri-shim
EOF
