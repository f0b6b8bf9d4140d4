//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	serviceRange      = "10.96.0.0/16"
	firstService      = "10.96.0.1" // of the apiserver itself
	containerdAddress = "/run/containerd/containerd.sock"
)

// users of the apiserver and their groups. Each has a kubeconfig under its name.
var users = []struct{ file, name, group string }{
	{"admin", "admin", "system:masters"},
	{"controllers", "system:kube-controller-manager", ""},
	{"scheduler", "system:kube-scheduler", ""},
	{"proxy", "system:kube-proxy", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
}

// layout is where the files of a node lie in its state folder.
type layout string

func (l layout) configuration(name string) string {
	return filepath.Join(string(l), "configuration", name)
}
func (l layout) kubeconfig(user string) string { return l.configuration(user + ".kubeconfig") }
func (l layout) log(component string) string {
	return filepath.Join(string(l), "log", component+".log")
}
func (l layout) folder(name string) string { return filepath.Join(string(l), name) }

func writeConfiguration(s settings) error {
	l := layout(s.state)
	files := map[string]string{
		l.configuration("containerd.toml"): containerdConfiguration(l, s.components),
		l.configuration("kubelet.yaml"):    kubeletConfiguration(l),
		l.configuration("admission.yaml"):  admissionConfiguration,
		l.configuration("resolv.conf"):     "nameserver 10.96.0.10\n",
		l.folder("cni/10-pods.conflist"):   podNetwork,
	}
	for name, value := range wantedSysctls {
		files[filepath.Join(s.state, "sysctl", name)] = value + "\n"
	}
	if err := addCredentials(l, files); err != nil {
		return err
	}
	for _, folder := range []string{l.folder("kubelet"), l.folder("log")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for file, text := range files {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// addCredentials adds a certificate of the apiserver, the key that signs tokens of service accounts, and for each user
// a token and the kubeconfig with it. They are good for this node and a month.
func addCredentials(l layout, files map[string]string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	certificate := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 1, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		DNSNames:              []string{"kubernetes.default.svc"},
		IPAddresses:           []net.IP{net.ParseIP(nodeAddress), net.ParseIP("127.0.0.1"), net.ParseIP(firstService)},
	}
	raw, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		return err
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	encode := func(kind string, raw []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
	}
	files[l.configuration("apiserver.crt")] = encode("CERTIFICATE", raw)
	files[l.configuration("apiserver.key")] = encode("PRIVATE KEY", rawKey)
	files[l.configuration("service-accounts.key")] = encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(signer))
	var tokens strings.Builder
	for i, user := range users {
		token := rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,%d,%s\n", token, user.name, i+1, user.group)
		files[l.kubeconfig(user.file)] = kubeconfig(l, token)
	}
	files[l.configuration("tokens.csv")] = tokens.String()
	return nil
}

func kubeconfig(l layout, token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: node
clusters:
  - {name: node, cluster: {server: "https://%s:6443", certificate-authority: %s}}
users:
  - {name: node, user: {token: %s}}
contexts:
  - {name: node, context: {cluster: node, user: node}}
`, nodeAddress, l.configuration("apiserver.crt"), token)
}

// containerdConfiguration: without CAP_SYS_RESOURCE no process may be made less likely to be killed for memory than
// its parent, which runc would fail at; restrict_oom_score_adj leaves those as they are.
func containerdConfiguration(l layout, components string) string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`, l.folder("containerd"), containerdAddress, l.folder("containerd-plugins"),
		filepath.Join(components, "debian/usr/lib/cni"), l.folder("cni"))
}

const podNetwork = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "` + podRange + `"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`

func kubeletConfiguration(l layout) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}} # nobody else is in its network
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%s
failSwapOn: false
containerRuntimeEndpoint: unix://%s
podLogsDir: %s
resolvConf: %s
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
imageGCHighThresholdPercent: 100
`, cgroupName, containerdAddress, l.folder("pod-logs"), l.configuration("resolv.conf"))
}

// admissionConfiguration has every namespace enforce the Pod Security Standard restricted.
const admissionConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: PodSecurity
    configuration:
      apiVersion: pod-security.admission.config.k8s.io/v1
      kind: PodSecurityConfiguration
      defaults: {enforce: restricted, enforce-version: latest, warn: restricted, warn-version: latest}
`
