package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// The parts of Grafana's dashboard JSON that are used here, in the order in which they are written.
type (
	gDashboard struct {
		UID           string       `json:"uid"`
		Title         string       `json:"title"`
		Description   string       `json:"description"`
		Tags          []string     `json:"tags"`
		Editable      bool         `json:"editable"`
		GraphTooltip  int          `json:"graphTooltip"`
		Refresh       string       `json:"refresh"`
		SchemaVersion int          `json:"schemaVersion"`
		Time          gTime        `json:"time"`
		Links         []gLink      `json:"links"`
		Templating    gList        `json:"templating"`
		Annotations   gAnnotations `json:"annotations"`
		Panels        []gPanel     `json:"panels"`
	}
	gTime struct {
		From string `json:"from"`
		To   string `json:"to"`
	}
	gLink struct {
		Title       string   `json:"title"`
		Type        string   `json:"type"`
		Tags        []string `json:"tags"`
		AsDropdown  bool     `json:"asDropdown"`
		IncludeVars bool     `json:"includeVars"`
		KeepTime    bool     `json:"keepTime"`
	}
	gList struct {
		List []gVariable `json:"list"`
	}
	gVariable struct {
		Name       string       `json:"name"`
		Label      string       `json:"label"`
		Type       string       `json:"type"`
		Query      string       `json:"query"`
		Regex      string       `json:"regex,omitempty"`
		Datasource *gDatasource `json:"datasource,omitempty"`
		Refresh    int          `json:"refresh,omitempty"`
		IncludeAll bool         `json:"includeAll,omitempty"`
		Multi      bool         `json:"multi,omitempty"`
		AllValue   string       `json:"allValue,omitempty"`
		Current    *gCurrent    `json:"current,omitempty"`
		Sort       int          `json:"sort,omitempty"`
	}
	gCurrent struct {
		Text  string `json:"text"`
		Value string `json:"value"`
	}
	gDatasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	gAnnotations struct {
		List []gAnnotation `json:"list"`
	}
	gAnnotation struct {
		Name        string      `json:"name"`
		Datasource  gDatasource `json:"datasource"`
		Enable      bool        `json:"enable"`
		IconColor   string      `json:"iconColor"`
		Expr        string      `json:"expr"`
		Step        string      `json:"step"`
		TitleFormat string      `json:"titleFormat"`
	}
	gPanel struct {
		ID          int           `json:"id"`
		Type        string        `json:"type"`
		Title       string        `json:"title"`
		Description string        `json:"description,omitempty"`
		GridPos     gPosition     `json:"gridPos"`
		Datasource  *gDatasource  `json:"datasource,omitempty"`
		Targets     []gTarget     `json:"targets,omitempty"`
		FieldConfig *gFieldConfig `json:"fieldConfig,omitempty"`
		Options     *gOptions     `json:"options,omitempty"`
		Panels      []gPanel      `json:"panels,omitempty"`
		Collapsed   *bool         `json:"collapsed,omitempty"`
	}
	gPosition struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	gTarget struct {
		RefID        string      `json:"refId"`
		Datasource   gDatasource `json:"datasource"`
		Expr         string      `json:"expr"`
		LegendFormat string      `json:"legendFormat"`
		Range        bool        `json:"range"`
		Instant      bool        `json:"instant"`
		Exemplar     bool        `json:"exemplar"`
		Format       string      `json:"format"`
	}
	gFieldConfig struct {
		Defaults  gDefaults `json:"defaults"`
		Overrides []string  `json:"overrides"`
	}
	gDefaults struct {
		Unit       string       `json:"unit"`
		Min        *float64     `json:"min,omitempty"`
		Thresholds *gThresholds `json:"thresholds,omitempty"`
		Custom     *gCustom     `json:"custom,omitempty"`
	}
	gThresholds struct {
		Mode  string  `json:"mode"`
		Steps []gStep `json:"steps"`
	}
	gStep struct {
		Value *float64 `json:"value"`
		Color string   `json:"color"`
	}
	gCustom struct {
		LineWidth       int       `json:"lineWidth"`
		FillOpacity     int       `json:"fillOpacity"`
		ShowPoints      string    `json:"showPoints"`
		Stacking        gStacking `json:"stacking"`
		ThresholdsStyle gMode     `json:"thresholdsStyle"`
	}
	gStacking struct {
		Mode  string `json:"mode"`
		Group string `json:"group"`
	}
	gMode struct {
		Mode string `json:"mode"`
	}
	gOptions struct {
		Legend        *gLegend  `json:"legend,omitempty"`
		Tooltip       *gTooltip `json:"tooltip,omitempty"`
		ReduceOptions *gReduce  `json:"reduceOptions,omitempty"`
		ColorMode     string    `json:"colorMode,omitempty"`
		GraphMode     string    `json:"graphMode,omitempty"`
		Calculate     *bool     `json:"calculate,omitempty"`
		YAxis         *gYAxis   `json:"yAxis,omitempty"`
	}
	gLegend struct {
		DisplayMode string   `json:"displayMode"`
		Placement   string   `json:"placement"`
		Calcs       []string `json:"calcs"`
		ShowLegend  bool     `json:"showLegend"`
	}
	gTooltip struct {
		Mode string `json:"mode"`
		Sort string `json:"sort"`
	}
	gReduce struct {
		Calcs  []string `json:"calcs"`
		Fields string   `json:"fields"`
		Values bool     `json:"values"`
	}
	gYAxis struct {
		Unit string `json:"unit"`
	}
)

var prometheus = gDatasource{Type: "prometheus", UID: "${datasource}"}

const dashboardTag = "llm-inference"

// json returns the file that Grafana loads.
func (d *dashboard) json() ([]byte, error) {
	g := gDashboard{
		UID: "llm-" + d.name, Title: "LLM inference / " + d.title, Description: d.description, Tags: []string{dashboardTag}, Editable: true, GraphTooltip: 1,
		Refresh: "30s", SchemaVersion: 39, Time: gTime{"now-3h", "now"},
		Links:       []gLink{{Title: "LLM inference", Type: "dashboards", Tags: []string{dashboardTag}, AsDropdown: true, IncludeVars: true, KeepTime: true}},
		Templating:  gList{variables()},
		Annotations: gAnnotations{annotations()},
		Panels:      d.layout(),
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(g); err != nil {
		return nil, fmt.Errorf("write dashboard %s: %w", d.name, err)
	}
	return b.Bytes(), nil
}

func variables() []gVariable {
	list := func(name, label, query, regex string) gVariable {
		return gVariable{Name: name, Label: label, Type: "query", Query: query, Regex: regex, Datasource: &prometheus, Refresh: 2, IncludeAll: true,
			Multi: true, AllValue: ".*", Current: &gCurrent{"All", "$__all"}, Sort: 1}
	}
	return []gVariable{
		{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus"},
		list("job", "Job", "label_values(llm_engine_up, job)", ""),
		list("instance", "Instance", `label_values(llm_engine_up{job=~"$job"}, instance)`, ""),
		list("model", "Model", `label_values(tokens_generated_total{job=~"$job"}, model)`, "/^(?!none$|unknown$).*/"),
	}
}

// Queries of the annotations, which every graph shows.
const (
	restartAnnotations = `sum by (instance, reason) (increase(llm_engine_restarts_total{job=~"$job"}[1m])) > 0`
	alertAnnotations   = `ALERTS{alertstate="firing",alertname=~"LLM.+|HighResponseTime|HighErrorRate|ModelLoadingFailures"}`
)

func annotations() []gAnnotation {
	return []gAnnotation{
		{"Engine restarts", prometheus, true, "orange", restartAnnotations, "60s", "engine restart on {{instance}}: {{reason}}"},
		{"Firing alerts", prometheus, true, "red", alertAnnotations, "60s", "{{alertname}}"},
	}
}

// size returns the size of a panel, by default that of its kind.
func (p *panel) size() (width, height int) {
	width, height = 12, 8
	switch p.kind {
	case statPanel:
		width, height = 4, 4
	case tablePanel:
		width, height = 24, 6
	}
	if p.width > 0 {
		width = p.width
	}
	return width, height
}

// layout places panels side by side as long as they fit.
func (d *dashboard) layout() []gPanel {
	var all []gPanel
	y := 0
	for _, r := range d.rows {
		open := false
		all = append(all, gPanel{ID: len(all) + 1, Type: "row", Title: r.title, GridPos: gPosition{1, 24, 0, y}, Collapsed: &open})
		y++
		x, tallest := 0, 0
		for i := range r.panels {
			w, h := r.panels[i].size()
			if x+w > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			all = append(all, r.panels[i].render(len(all)+1, gPosition{h, w, x, y}))
			x, tallest = x+w, max(tallest, h)
		}
		y += tallest
	}
	return all
}

func (p *panel) render(id int, at gPosition) gPanel {
	return gPanel{ID: id, Type: string(p.kind), Title: p.title, Description: p.description, GridPos: at, Datasource: &prometheus,
		Targets: p.targets(), FieldConfig: &gFieldConfig{Defaults: p.defaults(), Overrides: []string{}}, Options: p.options()}
}

func (p *panel) targets() []gTarget {
	var targets []gTarget
	for i, q := range p.queries {
		t := gTarget{RefID: string(rune('A' + i)), Datasource: prometheus, Expr: q.expr, LegendFormat: q.legend, Range: true, Format: "time_series"}
		switch p.kind {
		case heatmapPanel:
			t.Format, t.Exemplar = "heatmap", true
		case tablePanel:
			t.Range, t.Instant, t.Format = false, true, "table"
		}
		targets = append(targets, t)
	}
	return targets
}

func (p *panel) defaults() gDefaults {
	zero := 0.0
	g := gDefaults{Unit: p.unit, Min: &zero}
	if len(p.thresholds) > 0 {
		g.Thresholds = &gThresholds{Mode: "absolute"}
		for i, l := range p.thresholds {
			step := gStep{Color: l.colour}
			if i > 0 { // the first begins at minus infinity
				step.Value = &l.from
			}
			g.Thresholds.Steps = append(g.Thresholds.Steps, step)
		}
	}
	if slices.ContainsFunc(p.queries, func(q query) bool { return q.needs == needsTraffic }) {
		g.Min = nil // a budget can be overdrawn
	}
	if p.kind != timeSeriesPanel {
		return g
	}
	g.Custom = &gCustom{LineWidth: 1, FillOpacity: 10, ShowPoints: "never", Stacking: gStacking{"none", "A"}, ThresholdsStyle: gMode{"off"}}
	if p.stacked {
		g.Custom.Stacking.Mode, g.Custom.FillOpacity = "normal", 40
	}
	if len(p.thresholds) > 0 {
		g.Custom.ThresholdsStyle.Mode = "dashed"
	}
	return g
}

func (p *panel) options() *gOptions {
	switch p.kind {
	case statPanel:
		return &gOptions{ReduceOptions: &gReduce{Calcs: []string{"lastNotNull"}}, ColorMode: "value", GraphMode: "area"}
	case heatmapPanel:
		no := false
		return &gOptions{Calculate: &no, YAxis: &gYAxis{p.unit}, Tooltip: &gTooltip{"single", "none"}}
	case tablePanel:
		return &gOptions{}
	}
	return &gOptions{Legend: &gLegend{"table", "bottom", []string{"lastNotNull", "max"}, true}, Tooltip: &gTooltip{"multi", "desc"}}
}
