//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runNode starts the components in their order, imports the images, and runs the command. The end of the PID namespace
// ends whatever still runs.
func runNode(ctx context.Context, s settings) (int, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	n := &node{settings: s, layout: layout(s.state), fail: fail}
	n.setEnvironment()
	if err := ownNetwork(); err != nil {
		return 1, err
	}
	if err := n.start(ctx); err != nil {
		return 1, err
	}
	command := exec.CommandContext(ctx, s.command[0], s.command[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	code, err := exitCode(command.Run())
	if cause := context.Cause(ctx); cause != nil {
		return 1, cause
	}
	return code, err
}

type node struct {
	settings
	layout
	fail context.CancelCauseFunc // when a component ends
}

// setEnvironment is for the components and the command alike.
func (n *node) setEnvironment() {
	debian := filepath.Join(n.components, "debian")
	path := strings.Join([]string{filepath.Join(n.components, "bin"), filepath.Join(debian, "usr/bin"), filepath.Join(debian, "usr/sbin"),
		os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":")
	libraries, _ := filepath.Glob(filepath.Join(debian, "usr/lib/*-linux-gnu*")) // the pattern is a constant
	for name, value := range map[string]string{
		"PATH":                 path,
		"LD_LIBRARY_PATH":      strings.Join(libraries, ":"),
		"KUBECONFIG":           n.kubeconfig("admin"),
		"CONTAINERD_ADDRESS":   containerdAddress,
		"CONTAINERD_NAMESPACE": "k8s.io",
	} {
		_ = os.Setenv(name, value) // fails for a name that can't be one
	}
}

func (n *node) start(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, n.startup, fmt.Errorf("the node took longer than %v to start", n.startup))
	defer cancel()
	api, err := newAPIClient(n.layout)
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error { return n.run("etcd", etcdArguments) },
		func() error { return n.run("containerd", []string{"--config", n.configuration("containerd.toml")}) },
		func() error { return n.run("kube-apiserver", n.apiserverArguments()) },
		func() error { return waitFor(ctx, "containerd", func() error { return ctr(ctx, "version") }) },
		func() error { return n.importImages(ctx) },
		func() error {
			return waitFor(ctx, "the apiserver", func() error { return api.get(ctx, "/readyz", nil) })
		},
		func() error { return n.run("kube-controller-manager", n.controllersArguments()) },
		func() error { return n.run("kube-scheduler", n.schedulerArguments()) },
		func() error { return n.run("kube-proxy", n.proxyArguments()) },
		func() error { return n.run("kubelet", n.kubeletArguments()) },
		func() error {
			return waitFor(ctx, "the node", func() error { return api.get(ctx, "/api/v1/nodes/"+nodeName, nil) })
		},
		func() error { return n.run("kube-router", n.routerArguments()) }, // which ends when there is no node
		func() error { return waitFor(ctx, "a ready node", func() error { return api.nodeIsReady(ctx) }) },
		func() error { // without it no pod is admitted
			const path = "/api/v1/namespaces/default/serviceaccounts/default"
			return waitFor(ctx, "the first service account", func() error { return api.get(ctx, path, nil) })
		},
	} {
		if err := do(); err != nil {
			return err
		}
	}
	say("the node is ready after %.1f s", time.Since(began).Seconds())
	return nil
}

// run starts a component, which must not end before the node does.
func (n *node) run(name string, arguments []string) error {
	log, err := os.Create(n.log(name))
	if err != nil {
		return err
	}
	component := exec.Command(name, arguments...)
	component.Stdout, component.Stderr = log, log
	if err := component.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process, at the latest with the PID namespace
		err := component.Wait()
		n.fail(fmt.Errorf("%s has ended: %v; the end of its log %s:\n%s", name, err, log.Name(), lastLines(log.Name(), 10)))
	}()
	return nil
}

func (n *node) importImages(ctx context.Context) error {
	for _, file := range n.images {
		began := time.Now()
		if err := ctr(ctx, "images", "import", file); err != nil {
			return err
		}
		say("imported %s in %.1f s", filepath.Base(file), time.Since(began).Seconds())
	}
	return nil
}

func ctr(ctx context.Context, arguments ...string) error {
	if out, err := exec.CommandContext(ctx, "ctr", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return nil
}

// waitFor tries until it works, or until the context ends: a component has ended, or the time is over.
func waitFor(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; waited for %s: %w", context.Cause(ctx), what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var etcdArguments = []string{
	"--data-dir", "/run/etcd", // memory: what it has ends with the node
	"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
	"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
	"--initial-cluster", "default=http://127.0.0.1:2380",
}

func (n *node) apiserverArguments() []string {
	return []string{
		"--etcd-servers", "http://127.0.0.1:2379",
		"--advertise-address", nodeAddress, "--secure-port", "6443",
		"--tls-cert-file", n.configuration("apiserver.crt"), "--tls-private-key-file", n.configuration("apiserver.key"),
		"--token-auth-file", n.configuration("tokens.csv"), "--authorization-mode", "Node,RBAC",
		"--enable-admission-plugins", "NodeRestriction", "--admission-control-config-file", n.configuration("admission.yaml"),
		"--service-cluster-ip-range", serviceRange,
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", n.configuration("service-accounts.key"),
		"--service-account-signing-key-file", n.configuration("service-accounts.key"),
		"--kubelet-preferred-address-types", "InternalIP",
		"--enable-aggregator-routing", // to a metrics server that is no pod
	}
}

func (n *node) controllersArguments() []string {
	return []string{
		"--kubeconfig", n.kubeconfig("controllers"), "--leader-elect=false", "--bind-address", "127.0.0.1",
		"--use-service-account-credentials", "--service-account-private-key-file", n.configuration("service-accounts.key"),
		"--root-ca-file", n.configuration("apiserver.crt"),
	}
}

func (n *node) schedulerArguments() []string {
	return []string{"--kubeconfig", n.kubeconfig("scheduler"), "--leader-elect=false", "--bind-address", "127.0.0.1"}
}

func (n *node) proxyArguments() []string {
	return []string{
		"--kubeconfig", n.kubeconfig("proxy"), "--hostname-override", nodeName, "--proxy-mode", "iptables", "--cluster-cidr", podRange,
		// The machine's table of connections stays as large as it is.
		"--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0", "--conntrack-tcp-timeout-close-wait", "0",
	}
}

func (n *node) kubeletArguments() []string {
	return []string{
		"--kubeconfig", n.kubeconfig("kubelet"), "--config", n.configuration("kubelet.yaml"), "--root-dir", n.folder("kubelet"),
		"--hostname-override", nodeName, "--node-ip", nodeAddress, "--v", "2",
	}
}

// routerArguments have kube-router enforce network policies, and nothing else.
func (n *node) routerArguments() []string {
	return []string{
		"--kubeconfig", n.kubeconfig("admin"), "--hostname-override", nodeName, "--service-cluster-ip-range", serviceRange,
		"--run-router=false", "--run-service-proxy=false", "--run-firewall=true",
	}
}

// apiClient asks the apiserver as the administrator. Starting kubectl for it would take more than the answer.
type apiClient struct {
	client *http.Client
	token  string
}

func newAPIClient(l layout) (apiClient, error) {
	certificate, err := os.ReadFile(l.configuration("apiserver.crt"))
	if err != nil {
		return apiClient{}, err
	}
	tokens, err := os.ReadFile(l.configuration("tokens.csv"))
	if err != nil {
		return apiClient{}, err
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(certificate)
	token, _, _ := strings.Cut(string(tokens), ",")
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}
	return apiClient{client: &http.Client{Transport: transport, Timeout: 10 * time.Second}, token: token}, nil
}

// get decodes what a path has into answer, unless that is nil.
func (a apiClient) get(ctx context.Context, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+nodeAddress+":6443"+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %s", path, response.StatusCode, raw)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(raw, answer)
}

func (a apiClient) nodeIsReady(ctx context.Context) error {
	var n struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := a.get(ctx, "/api/v1/nodes/"+nodeName, &n); err != nil {
		return err
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		} else if condition.Type == "Ready" {
			return errors.New(condition.Message)
		}
	}
	return errors.New("the node says nothing of its state")
}
