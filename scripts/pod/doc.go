// Package pod tests what an operator deploys: the images run as a pod of two containers, made from the Kubernetes
// overlay for that, and are tested from outside. Podman runs the manifest but ignores probes, preStop hooks and
// fsGroup, so the tests call the probes, run the hooks and send the signals in the kubelet's order. The manifests
// themselves are tested in deploy/test.
//
// scripts/test-pod.sh builds the images and runs it; without POD_MANIFEST in the environment the tests are skipped.
package pod
