// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// exposition is the body that a scraper gets.
func (m *mount) exposition() string {
	m.Helper()
	data := m.must(logical.ReadOperation, "metrics", nil).Data
	if data[logical.HTTPContentType] != "text/plain; version=0.0.4; charset=utf-8" || data[logical.HTTPStatusCode] != 200 {
		m.Fatalf("the answer is %v %v", data[logical.HTTPStatusCode], data[logical.HTTPContentType])
	}
	return string(data[logical.HTTPRawBody].([]byte))
}

// sample is the value of a sample, which is written as in the exposition.
func (m *mount) sample(sample string) float64 {
	m.Helper()
	for line := range strings.Lines(m.exposition()) {
		if value, ok := strings.CutPrefix(line, sample+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				m.Fatal(err)
			}
			return number
		}
	}
	m.Fatalf("%s is not told", sample)
	return 0
}

func (m *mount) requireSample(sample string, want float64) {
	m.Helper()
	if got := m.sample(sample); got != want {
		m.Errorf("%s is %v, want %v", sample, got, want)
	}
}

func TestMetrics_countReadsByTheirOutcome(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.writeConfig("eu-gb", map[string]any{"cache": false, "verify": false})
	for range 3 {
		m.readToken("us-south")
	}
	m.must(logical.UpdateOperation, "token/us-south", nil)
	m.readToken("eu-gb")
	m.failure(logical.ReadOperation, "token/nowhere", nil)
	m.failure(logical.ReadOperation, "token/us-south", map[string]any{"min_ttl": "10000h"})
	for outcome, want := range map[string]float64{"shared": 3, "dedicated": 2, "stale": 0, "error": 2} {
		m.requireSample(fmt.Sprintf("vault_apic_reads_total{outcome=%q}", outcome), want)
	}
}

func TestMetrics_readOfAnOldTokenIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		m := newPipedMount(t, sim, sim)
		sim.SetTokenTTL(time.Minute)
		m.writeConfig("us-south", nil)
		sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
		time.Sleep(48 * time.Second) // It is due for replacement, and lives on.
		resp, err := m.do(logical.ReadOperation, "token/us-south", nil)
		if err != nil || resp.IsError() || len(resp.Warnings) == 0 {
			t.Fatalf("the read was not answered with the old token: %v", err)
		}
		m.requireSample(`vault_apic_reads_total{outcome="stale"}`, 1)
	})
}

func TestMetrics_forwardedReadIsNotCounted(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", map[string]any{"lease": true, "verify": false})
	view := *logical.TestSystemView()
	view.ReplicationStateVal = consts.ReplicationPerformanceStandby
	if err := m.backend.Setup(context.Background(), &logical.BackendConfig{System: view}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.do(logical.ReadOperation, "token/us-south", nil); err != logical.ErrReadOnly {
		t.Fatalf("error is %v", err)
	}
	for _, outcome := range metrics.ReadOutcomes() {
		m.requireSample(fmt.Sprintf("vault_apic_reads_total{outcome=%q}", outcome), 0)
	}
}

func TestMetrics_countExchangesByServiceAndOutcome(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.writeConfig("reserved", map[string]any{"token_service": "iam", "token_url": m.server.URL() + "/identity/token"})
	m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 401})
	m.failure(logical.UpdateOperation, "token/us-south", nil)
	m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 503})
	m.failure(logical.CreateOperation, "config/eu-gb", m.configData(map[string]any{"api_key": "another-key"}))
	for sample, want := range map[string]float64{
		`vault_apic_exchanges_total{outcome="success",service="login"}`:       1,
		`vault_apic_exchanges_total{outcome="refused",service="login"}`:       1,
		`vault_apic_exchanges_total{outcome="unavailable",service="login"}`:   1,
		`vault_apic_exchanges_total{outcome="success",service="iam"}`:         1,
		`vault_apic_exchanges_total{outcome="success",service="platform"}`:    0,
		`vault_apic_exchange_duration_seconds_count{service="login"}`:         3,
		`vault_apic_exchange_consecutive_failures{config="us-south"}`:         1,
		`vault_apic_exchange_consecutive_failures{config="reserved"}`:         0,
		`vault_apic_api_key_rotation_consecutive_failures{config="us-south"}`: 0,
	} {
		m.requireSample(sample, want)
	}
}

func TestMetrics_exchangeErrors(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, stop := context.WithTimeout(context.Background(), 0)
	defer stop()
	refused, unavailable := &upstream.Error{Outcome: upstream.Refused}, &upstream.Error{Outcome: upstream.Unavailable}
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		want metrics.ExchangeOutcome
	}{
		"no error":                              {context.Background(), nil, metrics.ExchangeSuccess},
		"a token that comes at the last moment": {cancelled, nil, metrics.ExchangeSuccess},
		"a refusal":                             {context.Background(), refused, metrics.ExchangeRefused},
		"a refusal that is wrapped":             {context.Background(), fmt.Errorf("exchange: %w", refused), metrics.ExchangeRefused},
		"a service that is down":                {context.Background(), unavailable, metrics.ExchangeUnavailable},
		"a request that was cancelled":          {cancelled, unavailable, metrics.ExchangeCancelled},
		"a context's error":                     {cancelled, context.Canceled, metrics.ExchangeCancelled},
		"a service that is too slow":            {late, context.DeadlineExceeded, metrics.ExchangeUnavailable},
		"an error of no known kind":             {context.Background(), errors.New("odd"), metrics.ExchangeError},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exchangeOutcome(c.ctx, c.err); got != c.want {
				t.Fatalf("counted as %s, want %s", got, c.want)
			}
		})
	}
}

func TestMetrics_panicInAnExchangeIsAnError(t *testing.T) {
	m := newMount(t)
	func() {
		defer func() { _ = recover() }()
		_, _ = counted(context.Background(), m.backend.metrics, tokenservice.IAM, func() (*tokenservice.Token, error) { panic("odd") })
	}()
	m.requireSample(`vault_apic_exchanges_total{outcome="error",service="iam"}`, 1)
}

// A config is in the metrics from the start until it is deleted.
func TestMetrics_ofAConfigEndWithIt(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	m.requireSample("vault_apic_configs", 1)
	expiry := m.sample(`vault_apic_token_expiry_timestamp_seconds{config="us-south"}`)
	if want := m.sim.Issued()[0].ExpiresAt.Unix(); int64(expiry) != want {
		t.Errorf("the token's end is %v, want %d", expiry, want)
	}
	now := float64(time.Now().Unix())
	if at := m.sample(`vault_apic_exchange_last_success_timestamp_seconds{config="us-south"}`); at < now-60 || at > now+1 {
		t.Errorf("the last success was at %v", at)
	}
	m.restart()
	m.requireSample("vault_apic_configs", 1)
	if at := m.sample(`vault_apic_api_key_set_timestamp_seconds{config="us-south"}`); at < now-60 || at > now+1 {
		t.Errorf("the key was set at %v", at)
	}
	if text := m.exposition(); strings.Contains(text, "token_expiry") || strings.Contains(text, "last_success") || strings.Contains(text, "next_rotation") {
		t.Errorf("after a restart it is told:\n%s", text)
	}
	m.must(logical.DeleteOperation, "config/us-south", nil)
	m.requireSample("vault_apic_configs", 0)
	if strings.Contains(m.exposition(), "us-south") {
		t.Error("a deleted config is told of")
	}
}

// TestMetrics_canBeAwayUntil is what the status says, of configs that renew alone.
func TestMetrics_canBeAwayUntil(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		platform apicsim.PlatformKeys
		atLeast  time.Duration
	}{
		"the token's end, with keys of five minutes":         {apicsim.PlatformKeys{}, 7 * time.Hour},
		"the reserve's end, with keys of a month":            {apicsim.PlatformKeys{MaxTTL: 30 * day}, 29 * day},
		"the token's end, with a month that nobody tells of": {apicsim.PlatformKeys{MaxTTL: 30 * day, TokenTimes: true}, 7 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			renewalTest(t, c.platform, func(m *mount) {
				time.Sleep(time.Minute)
				until := m.sample(`vault_apic_can_be_away_until_timestamp_seconds{config="saas"}`)
				at := time.UnixMilli(int64(until * 1000)).UTC()
				if told := m.must(logical.ReadOperation, "status/saas", nil).Data["can_be_away_until"]; told != at.Format(time.RFC3339) {
					t.Errorf("the metric says %s, and the status %v", at, told)
				}
				if left := time.Until(at); left < c.atLeast || left > c.atLeast+day {
					t.Errorf("Vault can be away for %s", left)
				}
				m.must(logical.PatchOperation, "config/saas", map[string]any{"renew": false})
				if strings.Contains(m.exposition(), "vault_apic_can_be_away_until") {
					t.Error("it is told of a config that does not renew")
				}
			})
		})
	}
}

func TestMetrics_unreadableConfigHidesNoOther(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	if err := m.storage.Put(context.Background(), &logical.StorageEntry{Key: "config/broken", Value: []byte(`{"schema":99}`)}); err != nil {
		t.Fatal(err)
	}
	m.requireSample("vault_apic_configs", 2)
	m.requireSample("vault_apic_configs_unreadable", 1)
	m.sample(`vault_apic_token_expiry_timestamp_seconds{config="us-south"}`)
}

// The operator of the mount can keep the names of configs out of the metrics.
func TestMetrics_withoutConfigNames(t *testing.T) {
	for value, named := range map[string]bool{"": true, "true": true, "1": true, "false": false, "0": false, "off": false} {
		t.Run("per_config_metrics="+value, func(t *testing.T) {
			m := newMount(t)
			if value != "" {
				m.options = map[string]string{"per_config_metrics": value}
				m.restart()
			}
			m.writeConfig("us-south", nil)
			m.requireSample("vault_apic_configs", 1)
			if got := strings.Contains(m.exposition(), "us-south"); got != named {
				t.Errorf("that configs are named is %v", got)
			}
		})
	}
}

func TestMetrics_holdNoSecret(t *testing.T) {
	m := newMount(t)
	m.writeConfig("us-south", nil)
	token := m.readToken("us-south")
	m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: 401})
	m.failure(logical.UpdateOperation, "token/us-south", nil)
	text := m.exposition()
	requireNoKey(t, text)
	if strings.Contains(text, token["token"].(string)) {
		t.Error("the metrics hold the token")
	}
}

func TestMetrics_storageFailureIs500(t *testing.T) {
	m := newMount(t)
	m.storage.failNth(1)
	if status, text := m.failure(logical.ReadOperation, "metrics", nil); status != 500 || !strings.Contains(text, "listing configs") {
		t.Errorf("answered %d %s", status, text)
	}
}

// TestMetrics_manyConfigs are told of as far as they are in memory, unless the mount's operator
// wants all.
func TestMetrics_manyConfigs(t *testing.T) {
	for option, want := range map[string]int{"": 1, "auto": 1, "true": maxLoadedForMetrics + 1, "false": 0} {
		t.Run("per_config_metrics="+option, func(t *testing.T) {
			m := newMount(t)
			names := m.putConfigs(maxLoadedForMetrics+1, func(*config) {})
			if option != "" {
				m.options = map[string]string{"per_config_metrics": option}
			}
			m.restart()
			m.must(logical.ReadOperation, "status/"+names[0], nil)
			text := m.exposition()
			if got := strings.Count(text, "vault_apic_exchange_consecutive_failures{"); got != want {
				t.Errorf("%d configs are told of", got)
			}
			m.requireSample("vault_apic_configs", maxLoadedForMetrics+1)
			m.requireSample("vault_apic_configs_omitted", float64(maxLoadedForMetrics+1-want))
		})
	}
}

func TestMetrics_coverage(t *testing.T) {
	const many = maxInMemoryForMetrics + 1
	for _, c := range []struct {
		mode    perConfigMode
		configs int
		want    coverage
	}{
		{perConfigAuto, maxLoadedForMetrics, coverage{most: maxLoadedForMetrics, load: true}},
		{perConfigAuto, maxLoadedForMetrics + 1, coverage{most: maxInMemoryForMetrics}},
		{perConfigAll, many, coverage{most: many, load: true}},
		{perConfigNone, 1, coverage{}},
	} {
		if got := c.mode.coverage(c.configs); got != c.want {
			t.Errorf("%s covers %+v of %d configs, want %+v", c.mode, got, c.configs, c.want)
		}
	}
}

// TestMetrics_moreInMemoryThanCovered has the first ones by name, and no other is loaded.
func TestMetrics_moreInMemoryThanCovered(t *testing.T) {
	m := newMount(t)
	names := m.putConfigs(4, func(*config) {})
	for _, name := range names[1:] {
		m.must(logical.ReadOperation, "status/"+name, nil)
	}
	state, err := m.backend.metricsOf(t.Context(), names, coverage{most: 2})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, c := range state.PerConfig {
		told = append(told, c.Name)
	}
	if !slices.Equal(told, names[1:3]) {
		t.Errorf("%q are told of, of %q", told, names)
	}
}
