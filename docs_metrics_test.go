// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
)

// fullExposition has a sample of every metric there is.
func fullExposition(t *testing.T) string {
	t.Helper()
	now, entities := time.Now(), 2
	text, err := newMetrics(BuildInfo{}).Text(metrics.State{Configs: 1, PerConfig: []metrics.Config{{
		Name: "us-south", TokenExpiresAt: now, LastSuccess: now, KeySetAt: now, NextRotation: now, KeyExpiresAt: now, CanBeAwayUntil: now,
		EntityTokens: &entities,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documented is a metric as its row in docs/metrics.md has it.
type documented struct {
	kind   string
	labels []string
}

var (
	typeLine  = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	labelName = regexp.MustCompile(`([a-z_]+)="`)
	tableRow  = regexp.MustCompile("(?m)^\\| `(vault_apic_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| [^|]+ \\|$")
	codeSpan  = regexp.MustCompile("`([^`]+)`")
)

// toldMetrics are the exposition's metrics by name.
func toldMetrics(t *testing.T) map[string]documented {
	t.Helper()
	text := fullExposition(t)
	told := make(map[string]documented)
	for _, match := range typeLine.FindAllStringSubmatch(text, -1) {
		name, kind := match[1], match[2]
		sample := regexp.MustCompile(`(?m)^` + name + `(?:_sum)?(?:\{.*\})? `).FindString(text)
		if sample == "" {
			t.Fatalf("%s has no sample", name)
		}
		var labels []string
		for _, label := range labelName.FindAllStringSubmatch(sample, -1) {
			labels = append(labels, label[1])
		}
		slices.Sort(labels)
		told[name] = documented{kind, labels}
	}
	return told
}

func readDoc(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestDocumentedMetrics_areThoseExposed(t *testing.T) {
	written := make(map[string]documented)
	for _, row := range tableRow.FindAllStringSubmatch(readDoc(t, "metrics.md"), -1) {
		var labels []string
		for _, label := range codeSpan.FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, label[1])
		}
		slices.Sort(labels)
		written[row[1]] = documented{row[2], labels}
	}
	told := toldMetrics(t)
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if got, want := fmt.Sprint(written[name]), fmt.Sprint(told[name]); got != want {
			t.Errorf("%s is documented as %s and told as %s", name, got, want)
		}
	}
	for name := range written {
		if _, exists := told[name]; !exists {
			t.Errorf("%s is documented and not told", name)
		}
	}
}

func TestDocumentedOutcomes_areThoseExposed(t *testing.T) {
	page := readDoc(t, "metrics.md")
	var outcomes []string
	for _, outcome := range metrics.ExchangeOutcomes() {
		outcomes = append(outcomes, string(outcome))
	}
	for _, outcome := range metrics.ReadOutcomes() {
		outcomes = append(outcomes, string(outcome))
	}
	for _, outcome := range metrics.RotationOutcomes() {
		outcomes = append(outcomes, string(outcome))
	}
	for _, outcome := range outcomes {
		if !strings.Contains(page, "`"+outcome+"`") {
			t.Errorf("the outcome %s is not documented", outcome)
		}
	}
}

var metricName = regexp.MustCompile(`vault_apic_[a-z_]+`)

// requireTold fails for a metric in text that no exposition has.
func requireTold(t *testing.T, told map[string]documented, text string) {
	t.Helper()
	names := metricName.FindAllString(text, -1)
	if len(names) == 0 {
		t.Errorf("%q names no metric", text)
	}
	for _, name := range names {
		family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		_, plain := told[name]
		if !plain && told[family].kind != "histogram" {
			t.Errorf("%s is not told", name)
		}
	}
}

// dashboard is as much of Grafana's format as says what is queried.
type dashboard struct {
	Panels []struct {
		ID          int    `json:"id"`
		Title       string `json:"title"`
		Description string `json:"description"`
		Datasource  struct {
			UID string `json:"uid"`
		} `json:"datasource"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(readDoc(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return d
}

// The dashboard queries metrics that exist, from a data source that its user chooses.
func TestDashboard_queriesMetricsThatExist(t *testing.T) {
	d, told := readDashboard(t), toldMetrics(t)
	ids := make(map[int]bool)
	for _, panel := range d.Panels {
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 || ids[panel.ID] {
			t.Errorf("panel %d has no title, no description, no query or another panel's id", panel.ID)
		}
		ids[panel.ID] = true
		if panel.Datasource.UID != "${datasource}" {
			t.Errorf("%s asks the datasource %q", panel.Title, panel.Datasource.UID)
		}
		for _, target := range panel.Targets {
			requireTold(t, told, target.Expr)
		}
	}
	variables := make(map[string]string)
	for _, variable := range d.Templating.List {
		variables[variable.Name] = variable.Type
		if variable.Type == "query" {
			requireTold(t, told, variable.Definition)
		}
	}
	if variables["datasource"] != "datasource" {
		t.Errorf("the variables are %v", variables)
	}
	for _, used := range regexp.MustCompile(`\$\{?([a-z]+)\b`).FindAllStringSubmatch(readDoc(t, "dashboard.json"), -1) {
		if variables[used[1]] == "" {
			t.Errorf("there is no variable %s", used[1])
		}
	}
}

func TestDashboard_showsEveryMetric(t *testing.T) {
	content := readDoc(t, "dashboard.json")
	for name := range toldMetrics(t) {
		if !strings.Contains(content, name) {
			t.Errorf("%s is not shown", name)
		}
	}
}

// So do the tests of the alerts.
func TestAlerts_watchMetricsThatExist(t *testing.T) {
	told := toldMetrics(t)
	requireTold(t, told, readDoc(t, "alerts.yml"))
	requireTold(t, told, readDoc(t, "alerts_test.yml"))
}

// Every alert is documented, and has a test where it fires and one where it does not.
func TestAlerts_areDocumentedAndTested(t *testing.T) {
	page, tests := readDoc(t, "metrics.md"), readDoc(t, "alerts_test.yml")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readDoc(t, "alerts.yml"), -1)
	if len(alerts) == 0 {
		t.Fatal("there are no alerts")
	}
	for _, alert := range alerts {
		if !strings.Contains(page, "| `"+alert[1]+"` |") {
			t.Errorf("%s is not documented", alert[1])
		}
		if !strings.Contains(tests, "- alertname: "+alert[1]+"\n") {
			t.Errorf("no test shows %s to fire", alert[1])
		}
		if !regexp.MustCompile(`\{alertname: ` + alert[1] + `, .*exp_alerts: \[\]\}`).MatchString(tests) {
			t.Errorf("no test shows %s not to fire", alert[1])
		}
	}
}

// promtool runs Prometheus' own judge on what is given to it on standard input. In
// CI it must be there.
func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("promtool is not installed; it comes with Prometheus")
	}
	if err != nil {
		t.Skip("promtool is not installed; it comes with Prometheus")
	}
	command := exec.Command(path, args...)
	command.Stdin = strings.NewReader(input)
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

func TestExposition_passesPromtool(t *testing.T) {
	promtool(t, fullExposition(t), "check", "metrics")
}

func TestAlerts_fireWhenTheyShould(t *testing.T) {
	t.Parallel()
	promtool(t, "", "test", "rules", "docs/alerts_test.yml")
}

// TestDashboard_queriesParse has promtool parse each query as if it were a rule.
func TestDashboard_queriesParse(t *testing.T) {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, panel := range readDashboard(t).Panels {
		for _, target := range panel.Targets {
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			rules = append(rules, rule{fmt.Sprintf("query:%d", len(rules)), expr})
		}
	}
	// JSON is YAML.
	content, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", file)
}
