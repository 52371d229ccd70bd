// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package metrics

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func newMetrics() *Metrics {
	return New(Build{Version: "v1.2.3", Commit: "abc", GoVersion: "go1"}, []string{"login", "iam"})
}

// told is the exposition's samples by name and labels.
func told(t *testing.T, m *Metrics, s State) map[string]string {
	t.Helper()
	text, err := m.Text(s)
	if err != nil {
		t.Fatal(err)
	}
	samples := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		samples[line[:at]] = strings.TrimSpace(line[at:])
	}
	return samples
}

func requireSamples(t *testing.T, got, want map[string]string) {
	t.Helper()
	for sample, value := range want {
		if got[sample] != value {
			t.Errorf("%s is %q, want %q", sample, got[sample], value)
		}
	}
}

func TestMetrics_everyCounterStartsAtZero(t *testing.T) {
	got := told(t, newMetrics(), State{})
	want := map[string]string{
		`vault_apic_build_info{commit="abc",go_version="go1",version="v1.2.3"}`: "1",
		`vault_apic_configs`:            "0",
		`vault_apic_configs_unreadable`: "0",
		`vault_apic_configs_omitted`:    "0",
	}
	for _, service := range []string{"login", "iam"} {
		want[`vault_apic_exchange_duration_seconds_count{service="`+service+`"}`] = "0"
		for _, outcome := range ExchangeOutcomes() {
			want[`vault_apic_exchanges_total{outcome="`+string(outcome)+`",service="`+service+`"}`] = "0"
		}
	}
	for _, outcome := range ReadOutcomes() {
		want[`vault_apic_reads_total{outcome="`+string(outcome)+`"}`] = "0"
	}
	for _, outcome := range RotationOutcomes() {
		want[`vault_apic_rotations_total{outcome="`+string(outcome)+`"}`] = "0"
	}
	requireSamples(t, got, want)
}

func TestMetrics_nothingOfTheProcess(t *testing.T) {
	for sample := range told(t, newMetrics(), State{PerConfig: []Config{{Name: "us-south"}}}) {
		if !strings.HasPrefix(sample, "vault_apic_") {
			t.Errorf("%s is told", sample)
		}
	}
}

func TestMetrics_countByLabel(t *testing.T) {
	m, other := newMetrics(), newMetrics()
	m.Exchanged("login", ExchangeSuccess, 300*time.Millisecond)
	m.Exchanged("login", ExchangeSuccess, time.Second)
	m.Exchanged("login", ExchangeRefused, 2*time.Minute)
	m.Exchanged("iam", ExchangeUnavailable, 80*time.Second)
	m.Read(ReadShared)
	m.Read(ReadShared)
	m.Read(ReadError)
	m.Rotated(RotationFailure)
	requireSamples(t, told(t, m, State{}), map[string]string{
		`vault_apic_exchanges_total{outcome="success",service="login"}`:          "2",
		`vault_apic_exchanges_total{outcome="refused",service="login"}`:          "1",
		`vault_apic_exchanges_total{outcome="unavailable",service="login"}`:      "0",
		`vault_apic_exchanges_total{outcome="unavailable",service="iam"}`:        "1",
		`vault_apic_exchange_duration_seconds_bucket{service="login",le="0.25"}`: "0",
		`vault_apic_exchange_duration_seconds_bucket{service="login",le="0.5"}`:  "1",
		`vault_apic_exchange_duration_seconds_bucket{service="login",le="1"}`:    "2",
		`vault_apic_exchange_duration_seconds_bucket{service="login",le="80"}`:   "2",
		`vault_apic_exchange_duration_seconds_bucket{service="login",le="+Inf"}`: "3",
		`vault_apic_exchange_duration_seconds_sum{service="login"}`:              "121.3",
		`vault_apic_exchange_duration_seconds_bucket{service="iam",le="80"}`:     "1",
		`vault_apic_reads_total{outcome="shared"}`:                               "2",
		`vault_apic_reads_total{outcome="stale"}`:                                "0",
		`vault_apic_reads_total{outcome="error"}`:                                "1",
		`vault_apic_rotations_total{outcome="failure"}`:                          "1",
		`vault_apic_rotations_total{outcome="success"}`:                          "0",
	})
	requireSamples(t, told(t, other, State{}), map[string]string{
		`vault_apic_exchanges_total{outcome="success",service="login"}`: "0",
		`vault_apic_reads_total{outcome="shared"}`:                      "0",
	})
}

func TestMetrics_concurrentCountsAddUp(t *testing.T) {
	m := newMetrics()
	var counters sync.WaitGroup
	for range 20 {
		counters.Go(func() {
			for range 500 {
				m.Read(ReadShared)
				m.Exchanged("iam", ExchangeSuccess, time.Second)
			}
			if _, err := m.Text(State{Configs: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	counters.Wait()
	requireSamples(t, told(t, m, State{}), map[string]string{
		`vault_apic_reads_total{outcome="shared"}`:                    "10000",
		`vault_apic_exchanges_total{outcome="success",service="iam"}`: "10000",
		`vault_apic_exchange_duration_seconds_count{service="iam"}`:   "10000",
	})
}

func TestMetrics_readAllocatesNothing(t *testing.T) {
	m := newMetrics()
	for _, outcome := range ReadOutcomes() {
		if got := testing.AllocsPerRun(1000, func() { m.Read(outcome) }); got != 0 {
			t.Errorf("counting %s makes %v allocations", outcome, got)
		}
	}
}

func TestText_configStateWithoutZeroTimes(t *testing.T) {
	m := newMetrics()
	at := time.UnixMilli(1_700_000_000_250)
	got := told(t, m, State{Configs: 5, Unreadable: 1, PerConfig: []Config{
		{
			Name: "us-south", TokenExpiresAt: at, LastSuccess: at.Add(time.Second), KeySetAt: at.Add(2 * time.Second),
			NextRotation: at.Add(3 * time.Second), CanBeAwayUntil: at.Add(4 * time.Second), KeyExpiresAt: at.Add(5 * time.Second), ExchangeFailures: 4, RotationFailures: 5,
		},
		{Name: "eu-gb"},
	}})
	requireSamples(t, got, map[string]string{
		`vault_apic_configs`:                                                    "5",
		`vault_apic_configs_omitted`:                                            "2",
		`vault_apic_configs_unreadable`:                                         "1",
		`vault_apic_token_expiry_timestamp_seconds{config="us-south"}`:          "1.70000000025e+09",
		`vault_apic_exchange_last_success_timestamp_seconds{config="us-south"}`: "1.70000000125e+09",
		`vault_apic_api_key_set_timestamp_seconds{config="us-south"}`:           "1.70000000225e+09",
		`vault_apic_api_key_next_rotation_timestamp_seconds{config="us-south"}`: "1.70000000325e+09",
		`vault_apic_can_be_away_until_timestamp_seconds{config="us-south"}`:     "1.70000000425e+09",
		`vault_apic_api_key_expiry_timestamp_seconds{config="us-south"}`:        "1.70000000525e+09",
		`vault_apic_exchange_consecutive_failures{config="us-south"}`:           "4",
		`vault_apic_api_key_rotation_consecutive_failures{config="us-south"}`:   "5",
		`vault_apic_exchange_consecutive_failures{config="eu-gb"}`:              "0",
	})
	for sample := range got {
		if strings.Contains(sample, "eu-gb") && strings.Contains(sample, "timestamp") {
			t.Errorf("%s is told", sample)
		}
	}
	for sample := range told(t, m, State{Configs: 3}) {
		if strings.Contains(sample, "config=") {
			t.Errorf("%s is left of an earlier exposition", sample)
		}
	}
}

func TestText_invalidLabelIsAnError(t *testing.T) {
	if _, err := newMetrics().Text(State{PerConfig: []Config{{Name: "\xff"}}}); err == nil {
		t.Fatal("it was told")
	}
}

func TestText_isDeterministic(t *testing.T) {
	m := newMetrics()
	at := time.Unix(1_700_000_000, 0)
	s := State{Configs: 2, PerConfig: []Config{{Name: "b", KeySetAt: at, LastSuccess: at}, {Name: "a", TokenExpiresAt: at}}}
	first, err := m.Text(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := m.Text(s)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(first) {
			t.Fatal("two expositions differ")
		}
	}
}

func TestText_formatThatEveryScraperReads(t *testing.T) {
	if got := ContentType(); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("content type is %q", got)
	}
}
