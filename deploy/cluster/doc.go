// Package cluster tests the manifests on a real Kubernetes of one node: what docs/deploy.md says of a pod's end, of a
// roll-out, of deaths and hangs. The node is made by deploy/cluster/node, its programs by deploy/cluster/kubernetes and
// deploy/cluster/kube-router. The tests run on the node, in its namespaces, where they reach Services and pods as pods
// do and see every process.
//
// scripts/test-cluster.sh builds all of it and runs them; without CLUSTER in the environment they are skipped.
package cluster
