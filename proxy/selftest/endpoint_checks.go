package selftest

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"tandem/proxy/api"
)

func (p *probe) livez() error {
	got, err := p.get("/livez")
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("status %d", got.status)
	}
	return err
}

func (p *probe) health() error {
	var health struct {
		Status    string
		Timestamp *float64
	}
	if err := p.decode("/health", &health); err != nil {
		return err
	}
	statuses := []api.HealthStatus{api.HealthOK, api.HealthLoading, api.HealthDegraded, api.HealthDraining}
	if !slices.Contains(statuses, api.HealthStatus(health.Status)) {
		return fmt.Errorf("status %q is none of %v", health.Status, statuses)
	}
	return checkTimestamp(health.Timestamp)
}

func checkTimestamp(seconds *float64) error {
	if seconds == nil {
		return errors.New("there is no timestamp")
	}
	if off := math.Abs(*seconds - float64(time.Now().UnixMilli())/1e3); off > 60 {
		return fmt.Errorf("timestamp is %.0f s off", off)
	}
	return nil
}

func (p *probe) status() error {
	var status struct {
		Service, Version, Status, Device string
		Timestamp                        *float64
		Prometheus                       *bool `json:"prometheus_available"`
		CachedModels                     *int  `json:"cached_models"`
		Cached                           []struct {
			Model   string `json:"base_model"`
			Version string
			Loaded  *bool
		} `json:"cached_model_info"`
	}
	if err := p.decode("/status", &status); err != nil {
		return err
	}
	switch {
	case status.Service != api.ServiceName || status.Version == "" || status.Status == "" || status.Device == "":
		return fmt.Errorf("service %q, version %q, status %q, device %q", status.Service, status.Version, status.Status, status.Device)
	case status.Prometheus == nil || status.CachedModels == nil || status.Cached == nil:
		return errors.New("prometheus_available, cached_models or cached_model_info is missing")
	case *status.CachedModels != len(status.Cached):
		return fmt.Errorf("cached_models is %d, but the list has %d", *status.CachedModels, len(status.Cached))
	}
	p.metricsOff = !*status.Prometheus
	for _, c := range status.Cached {
		if c.Model == "" || c.Version == "" || c.Loaded == nil {
			return fmt.Errorf("an entry of cached_model_info lacks something: %+v", c)
		}
	}
	return checkTimestamp(status.Timestamp)
}

func (p *probe) models() error {
	var list struct {
		Models []struct {
			Model       string `json:"base_model"`
			Versions    []string
			Description *string
		}
	}
	if err := p.decode("/models", &list); err != nil {
		return err
	}
	if list.Models == nil {
		return errors.New("there is no list of models")
	}
	for _, m := range list.Models {
		if m.Model == "" || len(m.Versions) == 0 || m.Description == nil {
			return fmt.Errorf("an entry lacks something: %+v", m)
		}
	}
	return nil
}

func (p *probe) readyz() error {
	got, err := p.get("/readyz")
	if err != nil {
		return err
	}
	var ready struct{ Status, Reason string }
	if err := unmarshal(got.body, &ready); err != nil {
		return err
	}
	switch {
	case got.status == http.StatusOK && ready.Status == "ok":
		return nil
	case got.status == http.StatusServiceUnavailable && ready.Reason != "":
		return nil
	}
	return fmt.Errorf("status %d, %s", got.status, got.body)
}

func (p *probe) errors() error {
	for _, c := range []struct {
		method, path string
		status       int
		typ          api.Type
	}{
		{"GET", "/no/such/page", http.StatusNotFound, api.TypeNotFound},
		{"DELETE", "/status", http.StatusMethodNotAllowed, api.TypeMethodNotAllowed},
	} {
		got, err := p.send(c.method, c.path, "")
		if err != nil {
			return err
		}
		var reply struct {
			Error struct {
				Type, Message string
				RequestID     string `json:"request_id"`
			}
		}
		if err := unmarshal(got.body, &reply); err != nil {
			return err
		}
		e := reply.Error
		if got.status != c.status || e.Type != string(c.typ) || e.Message == "" || e.RequestID != got.header.Get("X-Request-Id") {
			return fmt.Errorf("%s %s: status %d, %s", c.method, c.path, got.status, got.body)
		}
	}
	return nil
}
