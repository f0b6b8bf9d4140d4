// Package compose checks deploy/compose.yaml and what its services are configured with.
package compose

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"tandem/deploy/test/docs"
)

// Names of the services that run our two programs.
const (
	proxyService  = "llm-inference"
	engineService = "engine"
)

// Load reads a compose file as docker compose does: unknown keys and wrong types are errors.
func Load(ctx context.Context, text string) (*types.Project, error) {
	root, err := docs.Root()
	if err != nil {
		return nil, err
	}
	details := types.ConfigDetails{
		WorkingDir:  filepath.Join(root, "deploy"),
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(root, "deploy", "compose.yaml"), Content: []byte(text)}},
		Environment: types.Mapping{},
	}
	p, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) { o.SetProjectName("tandem", true) })
	if err != nil {
		return nil, fmt.Errorf("load deploy/compose.yaml: %w", err)
	}
	return p, nil
}

// findings collects what is wrong.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// Check returns everything that is wrong with a project.
func Check(p *types.Project) []string {
	var f findings
	for _, s := range p.Services {
		checkService(s, &f)
	}
	checkProxyAndEngine(p, &f)
	checkMonitoring(p, &f)
	return f
}

func checkService(s types.ServiceConfig, f *findings) {
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
		f.add("%s has more rights than it needs", s.Name)
	}
	if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 {
		f.add("%s has no health check", s.Name)
	}
	if _, tag, ok := strings.Cut(path.Base(s.Image), ":"); !ok || tag == "latest" {
		f.add("the image %s of %s isn't a version", s.Image, s.Name)
	}
	for _, port := range s.Ports {
		if port.HostIP != "127.0.0.1" {
			f.add("port %s of %s is open to others", port.Published, s.Name)
		}
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue // the loader checks that named volumes exist
		}
		if !v.ReadOnly {
			f.add("%s may write to %s", s.Name, v.Source)
		}
		if entries, err := os.ReadDir(v.Source); err != nil || len(entries) == 0 {
			f.add("%s mounts %s, where nothing is", s.Name, v.Source)
		}
	}
}

// checkProxyAndEngine checks the services of our two programs against settings, Dockerfiles and docs.
func checkProxyAndEngine(p *types.Project, f *findings) {
	settings, err := docs.Settings()
	if err != nil {
		f.add("%v", err)
		return
	}
	value := func(s types.ServiceConfig, name string) string {
		if v := s.Environment[name]; v != nil {
			return *v
		}
		return settings[name].Default
	}
	for name, command := range map[string]string{proxyService: "serve", engineService: "supervise"} {
		s, ok := p.Services[name]
		if !ok {
			f.add("there is no service %s", name)
			continue
		}
		for variable := range s.Environment {
			if u := settings[variable]; !(name == proxyService && u.Proxy || name == engineService && u.Engine) {
				f.add("%s is given %s, which it doesn't know", name, variable)
			}
		}
		if !slices.Equal(s.Command, []string{command}) {
			f.add("%s runs %s, not %s", name, s.Command, command)
		}
		checkImage(s, f)
		if v := mountAt(s, path.Dir(value(s, "ENGINE_SOCKET"))); v == nil || v.Source != "socket" || v.ReadOnly {
			f.add("the socket of %s isn't on the volume that both have", name)
		}
		if s.StopGracePeriod == nil || s.StopGracePeriod.String() != "2m30s" {
			f.add("%s has no time to drain", name)
		}
	}
	proxy, engine := p.Services[proxyService], p.Services[engineService]
	if value(proxy, "API_KEYS") == "" || value(proxy, "AUTH_DISABLED") != "false" {
		f.add("the proxy has no keys")
	}
	if got, want := containerPort(proxy), value(proxy, "PORT"); got != want {
		f.add("the published port of the proxy is %s, it listens on %s", got, want)
	}
	if v := mountAt(engine, value(engine, "MODELS_DIR")); v == nil || !v.ReadOnly {
		f.add("the engine's models aren't mounted, or writable")
	}
	if v := mountAt(engine, value(engine, "CACHE_DIR")); v == nil || v.ReadOnly {
		f.add("the engine can't write to its CACHE_DIR")
	}
	if engine.NetworkMode != "none" {
		f.add("the engine has a network")
	}
}

// checkImage checks that our image is built from a Dockerfile, under the name that docs/deploy.md gives it.
func checkImage(s types.ServiceConfig, f *findings) {
	page, err := docs.Read("docs/deploy.md")
	if err != nil {
		f.add("%v", err)
		return
	}
	if s.Build == nil || !exists(filepath.Join(s.Build.Context, "schema", "engine.capnp")) {
		f.add("%s isn't built from this project", s.Name)
		return
	}
	if !strings.Contains(page, fmt.Sprintf("docker build -f %s ", s.Build.Dockerfile)) || !strings.Contains(page, " -t "+s.Image+" ") {
		f.add("docs/deploy.md doesn't build the image %s from %s", s.Image, s.Build.Dockerfile)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// containerPort is the port in the container, if it has exactly one.
func containerPort(s types.ServiceConfig) string {
	if len(s.Ports) != 1 {
		return ""
	}
	return strconv.Itoa(int(s.Ports[0].Target))
}

// mountAt returns the innermost mount that contains a path.
func mountAt(s types.ServiceConfig, file string) *types.ServiceVolumeConfig {
	var best *types.ServiceVolumeConfig
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if inside := file == v.Target || strings.HasPrefix(file, v.Target+"/"); inside && (best == nil || len(v.Target) > len(best.Target)) {
			best = v
		}
	}
	return best
}
