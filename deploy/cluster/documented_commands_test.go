package cluster

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dockerStandIn runs what docs/deploy.md has docker run, a command of the proxy's image, by containerd.
const dockerStandIn = `#!/bin/bash
set -eu
[ "$1 $2" = "run --rm" ] || { echo "docker $1 $2 isn't known here" >&2; exit 64; }
exec ctr run --rm --cgroup /tandem-cluster/documented "docker.io/library/$3" "documented-$$" /usr/local/bin/tandem-proxy "${@:4}"
`

// TestFromNothingToAnAnswer runs the first commands of docs/deploy.md, word by word, in a cluster whose namespaces all
// enforce the Pod Security Standard restricted. It stands in for the person who copies the key, and who doesn't ask
// before the port is forwarded.
func TestFromNothingToAnAnswer(t *testing.T) {
	onCluster(t)
	t.Cleanup(func() { mustKubectl(t, "delete", "namespace", "llm", "--wait=false") })
	commands := documentedCommands(t, "From nothing to an answer")
	commands = strings.ReplaceAll(commands, "'X-API-Key: tandem_…'", `"X-API-Key: $(grep -o 'tandem_[A-Za-z0-9_-]*' errors | head -n 1)"`)
	commands = strings.Replace(commands, "\ncurl ", "\nuntil (exec 3<>/dev/tcp/localhost/8000) 2>/dev/null; do sleep 0.1; done\ncurl -sS ", 1)
	folder := t.TempDir()
	script := "set -euo pipefail; trap 'kill $(jobs -p)' EXIT; exec 2> >(tee errors >&2)\n" + commands
	script = strings.ReplaceAll(script, " errors", " "+filepath.Join(folder, "errors"))
	if err := os.WriteFile(filepath.Join(folder, "docker"), []byte(dockerStandIn), 0o700); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script)
	shell.Dir = "../.." // where a reader of the page is
	shell.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
	shell.WaitDelay = 10 * time.Second
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
	if !strings.Contains(string(out), "The capital of France is Paris") {
		t.Errorf("the commands of docs/deploy.md don't get an answer:\n%s", out)
	}
	atMost(t, "`deploy.md`, from nothing to an answer", startTimeout, time.Since(began))
	restrictedIsEnforced(t, "llm")
}

// restrictedIsEnforced fails where a pod that the standard forbids is let in: then it wasn't enforced for ours either.
func restrictedIsEnforced(t *testing.T, namespace string) {
	t.Helper()
	forbidden, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "forbidden", "namespace": namespace},
		"spec": map[string]any{"hostNetwork": true, "containers": []any{map[string]any{"name": "pause", "image": "localhost/pause:1"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = kubectl(t.Context(), string(forbidden), "apply", "-f", "-")
	if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		t.Errorf("a pod in the node's network: %v, want a violation of the standard", err)
	}
}

// documentedCommands returns the first block of commands in docs/deploy.md after the words.
func documentedCommands(t *testing.T, words string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), words)
	_, after, foundBlock := strings.Cut(after, "```bash\n")
	commands, _, foundEnd := strings.Cut(after, "\n```")
	if !found || !foundBlock || !foundEnd {
		t.Fatalf("docs/deploy.md has no commands after %q", words)
	}
	return commands
}
