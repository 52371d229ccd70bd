// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// requireProgram finds a program that a developer may lack and CI may not.
func requireProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", name)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func TestMetrics_passPromtool(t *testing.T) {
	t.Parallel()
	promtool := requireProgram(t, "promtool")
	s := newStack(t)
	s.writeConfig("us-south", nil)
	s.readToken("us-south")
	status, contentType, body := s.scrape("apic/metrics", s.client.Token())
	if status != http.StatusOK || contentType != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("answered %d %s", status, contentType)
	}
	for _, sample := range []string{`vault_apic_reads_total{outcome="shared"} 1`, `vault_apic_exchanges_total{outcome="success",service="login"} 1`} {
		if !strings.Contains(body, sample+"\n") {
			t.Errorf("there is no %s in\n%s", sample, body)
		}
	}
	if strings.Contains(body, s.key) {
		t.Error("the metrics hold the key")
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(body)
	if said, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, said)
	}
	s.expectCLI("# TYPE vault_apic_reads_total counter", "read", "-format=raw", "apic/metrics")
}

// The operator of the mount turns the metrics of single configs off and on.
func TestMetrics_perConfigOffAndOn(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	requireNamed := func(wanted bool, when string) {
		t.Helper()
		_, _, body := s.scrape("apic/metrics", s.client.Token())
		if !strings.Contains(body, "vault_apic_configs 1\n") {
			t.Fatalf("%s the configs are not counted in\n%s", when, body)
		}
		if named := strings.Contains(body, "us-south"); named != wanted {
			t.Errorf("%s it is %v that the config is named", when, named)
		}
	}
	s.writeConfig("us-south", nil)
	requireNamed(true, "at first")
	s.runDocumented("metrics.md", "### On a live mount")
	requireNamed(false, "turned off on a live mount")
	s.mustCLI("secrets", "tune", "-options=per_config_metrics=true", "apic/")
	s.mustCLI("write", "sys/plugins/reload/backend", "mounts=apic/")
	requireNamed(true, "turned on again")

	s.mustCLI("secrets", "disable", "apic/")
	s.runDocumented("metrics.md", "### When the mount is made")
	s.writeConfig("us-south", nil)
	requireNamed(false, "turned off when the mount is made")
}

// prometheus is a server that scrapes the stack's Vault.
type prometheus struct {
	*stack
	address string
}

// startPrometheus follows docs/metrics.md: its commands make the Vault token, and
// its scrape configuration is the server's but for the target's port.
func (s *stack) startPrometheus() *prometheus {
	s.Helper()
	server := requireProgram(s.T, "prometheus")
	s.runDocumented("metrics.md", "## Have them scraped")
	_, rest, _ := strings.Cut(document(s.T, "metrics.md"), "```yaml\n")
	scrape, _, found := strings.Cut(rest, "```")
	if !found {
		s.Fatal("docs/metrics.md has no scrape configuration")
	}
	scrape = strings.ReplaceAll(scrape, "127.0.0.1:8200", strings.TrimPrefix(s.client.Address(), "http://"))
	rules, err := filepath.Abs("../../docs/alerts.yml")
	s.check(err)
	s.check(os.WriteFile(s.path("prometheus.yml"), fmt.Appendf(nil, `
global:
  scrape_interval: 250ms
  scrape_timeout: 250ms
  evaluation_interval: 250ms
rule_files: [%q]
%s`, rules, scrape), 0o600))
	for range 10 {
		if p := s.tryPrometheus(server, freePort(s.T)); p != nil {
			return p
		}
	}
	log, _ := os.ReadFile(s.path("prometheus.log"))
	s.Fatalf("prometheus did not start\n%s", log)
	return nil
}

func (s *stack) tryPrometheus(server string, port int) *prometheus {
	s.Helper()
	log, err := os.Create(s.path("prometheus.log"))
	s.check(err)
	defer log.Close()
	p := &prometheus{stack: s, address: fmt.Sprintf("127.0.0.1:%d", port)}
	command := exec.Command(server, "--config.file="+s.path("prometheus.yml"),
		"--storage.tsdb.path="+s.path("prometheus"), "--web.listen-address="+p.address)
	command.Stdout, command.Stderr = log, log
	s.check(command.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	s.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = command.Process.Kill()
			<-ended
		}
	})
	ready := func() bool {
		resp, err := http.Get("http://" + p.address + "/-/ready")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	if !until(30*time.Second, ended, ready) {
		return nil
	}
	return p
}

// ask calls Prometheus' API, whose answers have a status beside their data.
func (p *prometheus) ask(path string, query url.Values, data any) {
	p.Helper()
	resp, err := http.Get("http://" + p.address + "/api/v1/" + path + "?" + query.Encode())
	p.check(err)
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	p.check(json.NewDecoder(resp.Body).Decode(&answer))
	if answer.Status != "success" {
		p.Fatalf("%s %v: %s", path, query, answer.Error)
	}
}

// query returns the values of an instant query.
func (p *prometheus) query(expr string) []float64 {
	p.Helper()
	var data struct {
		Result []struct {
			Value [2]any
		}
	}
	p.ask("query", url.Values{"query": {expr}}, &data)
	var values []float64
	for _, result := range data.Result {
		value, err := strconv.ParseFloat(result.Value[1].(string), 64)
		p.check(err)
		values = append(values, value)
	}
	return values
}

// eventuallyBetween waits until a query has one value and that lies above low and
// not above high, and has something happen before each look.
func (p *prometheus) eventuallyBetween(low, high float64, expr string, happen func()) {
	p.Helper()
	var values []float64
	holds := until(30*time.Second, nil, func() bool {
		happen()
		values = p.query(expr)
		return len(values) == 1 && values[0] > low && values[0] <= high
	})
	if !holds {
		log, _ := os.ReadFile(p.path("prometheus.log"))
		p.Fatalf("%s is %v, want one value above %v and not above %v\n%s", expr, values, low, high, log)
	}
}

// TestPrometheus_answersWhatAnOperatorAsks has a real server scrape a real Vault with a
// token that may read the metrics and nothing else.
func TestPrometheus_answersWhatAnOperatorAsks(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", nil)
	s.writeConfig("eu-gb", nil)
	p := s.startPrometheus()
	nothing := func() {}
	exchange := func() { _, _ = s.client.Logical().Write("apic/token/us-south", nil) }

	p.eventuallyBetween(0, 1, `up{job="vault-apic"}`, nothing)
	p.eventuallyBetween(0, 1000, `sum(rate(vault_apic_exchanges_total{service="login", outcome="success"}[1m]))`, exchange)
	s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
	p.eventuallyBetween(0, 0.999, `sum(rate(vault_apic_exchanges_total{outcome!="success"}[1m])) / sum(rate(vault_apic_exchanges_total[1m]))`, exchange)
	p.eventuallyBetween(0, 100, `vault_apic_exchange_consecutive_failures{config="us-south"}`, nothing)
	p.eventuallyBetween(3000, 3600, `min(vault_apic_token_expiry_timestamp_seconds - time())`, nothing)
	p.eventuallyBetween(0, 600, `max(time() - vault_apic_api_key_set_timestamp_seconds)`, nothing)
	p.eventuallyBetween(1, 2, `count(vault_apic_api_key_set_timestamp_seconds)`, nothing)

	exchanges := float64(s.sim.Counts().Exchanges)
	p.eventuallyBetween(exchanges-1, exchanges, `sum(vault_apic_exchanges_total)`, nothing)
	s.sim.ClearFault()
	s.check(s.writeService("platform", nil))
	p.eventuallyBetween(0, 9, `min(vault_apic_can_be_away_until_timestamp_seconds{config="platform"} - time()) / 3600`, nothing)
	s.writeConfig("eu-de", map[string]any{"cache": "entity", "verify": false}) // A success would end the failures.
	p.eventuallyBetween(-1, 0, `vault_apic_entity_tokens{config="eu-de"}`, nothing)
	p.requireHealthyAlerts()
	p.requireAnsweredDashboard()
	p.requireTokenForMetricsAlone()
}

// requireHealthyAlerts waits until each rule was evaluated once, without an error.
func (p *prometheus) requireHealthyAlerts() {
	p.Helper()
	rules := 0
	p.eventually("all alert rules are evaluated", func() bool {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		p.ask("rules", nil, &data)
		rules = 0
		for _, group := range data.Groups {
			for _, rule := range group.Rules {
				if rule.Health == "err" {
					p.Fatalf("%s: %s", rule.Name, rule.LastError)
				}
				if rule.Health != "ok" {
					return false
				}
				rules++
			}
		}
		return true
	})
	if rules == 0 {
		p.Error("no alert rules are loaded")
	}
}

// requireAnsweredDashboard asks what the dashboard's panels ask. Of two things there
// is nothing to show: no key is rotated here, or ends.
func (p *prometheus) requireAnsweredDashboard() {
	p.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	p.check(json.Unmarshal([]byte(document(p.T, "dashboard.json")), &dashboard))
	fill := strings.NewReplacer("$__rate_interval", "1m", "$job", "vault-apic", "$instance", ".*", "$config", ".*")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			values := p.query(fill.Replace(target.Expr))
			if len(values) == 0 && !strings.Contains(target.Expr, "next_rotation") && !strings.Contains(target.Expr, "api_key_expiry") {
				p.Errorf("the panel %q shows nothing for %s", panel.Title, target.Expr)
			}
		}
	}
}

func (p *prometheus) requireTokenForMetricsAlone() {
	p.Helper()
	for _, path := range []string{"apic/token/us-south", "apic/config/us-south", "apic/status/us-south", "apic/info"} {
		if got, _, _ := p.scrape(path, strings.TrimSpace(p.fileContent("vault-token"))); got != http.StatusForbidden {
			p.Errorf("with Prometheus' token %s is answered %d", path, got)
		}
	}
}
