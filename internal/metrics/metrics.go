// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Package metrics counts what one mount does and writes it in Prometheus' text
// format. It knows nothing of Vault, and nothing of another mount of the same
// process: each has a registry of its own.
//
// No label holds free text. The values of every label but config are fixed here or
// where the Metrics are made, and config is a label of gauges alone, which are made
// anew for each exposition, so that a deleted config leaves nothing behind.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace = "vault_apic"

// ExchangeOutcome is how an exchange ended, its retries included.
type ExchangeOutcome string

const (
	// ExchangeSuccess issued a token.
	ExchangeSuccess ExchangeOutcome = "success"
	// ExchangeRefused is a service's refusal, which stays one until somebody acts.
	ExchangeRefused ExchangeOutcome = "refused"
	// ExchangeUnavailable is a service that could not be reached, was slow, failed or
	// sent an invalid response.
	ExchangeUnavailable ExchangeOutcome = "unavailable"
	// ExchangeCancelled says nothing about the service: the mount was unloaded
	// meanwhile.
	ExchangeCancelled ExchangeOutcome = "cancelled"
	// ExchangeError is a defect of the engine's own.
	ExchangeError ExchangeOutcome = "error"
)

// ExchangeOutcomes returns every outcome there is.
func ExchangeOutcomes() []ExchangeOutcome {
	return []ExchangeOutcome{ExchangeSuccess, ExchangeRefused, ExchangeUnavailable, ExchangeCancelled, ExchangeError}
}

// ReadOutcome is what a reader of a token got.
type ReadOutcome string

const (
	// ReadShared is the token that all readers of a config share, or those of one entity.
	ReadShared ReadOutcome = "shared"
	// ReadDedicated is a dedicated token: no other caller gets it.
	ReadDedicated ReadOutcome = "dedicated"
	// ReadStale is a shared token that is due for replacement, because no newer one was
	// available.
	ReadStale ReadOutcome = "stale"
	// ReadError is an error instead of a token.
	ReadError ReadOutcome = "error"
)

// ReadOutcomes returns every outcome there is.
func ReadOutcomes() []ReadOutcome {
	return []ReadOutcome{ReadShared, ReadDedicated, ReadStale, ReadError}
}

// RotationOutcome is how the replacement of an API key ended.
type RotationOutcome string

const (
	// RotationSuccess stored a new key.
	RotationSuccess RotationOutcome = "success"
	// RotationFailure left the key as it was.
	RotationFailure RotationOutcome = "failure"
)

// RotationOutcomes returns every outcome there is.
func RotationOutcomes() []RotationOutcome {
	return []RotationOutcome{RotationSuccess, RotationFailure}
}

// Metrics are those of one mount. Its methods may be called from many goroutines.
type Metrics struct {
	registry  *prometheus.Registry
	exchanges *prometheus.CounterVec
	durations *prometheus.HistogramVec
	// reads and rotations are looked up beforehand: a read of a shared token must
	// not allocate, nor wait for a lock.
	reads     map[ReadOutcome]prometheus.Counter
	rotations map[RotationOutcome]prometheus.Counter
	state     stateDescs
}

// Build is what the vault_apic_build_info metric says of the running plugin.
type Build struct {
	Version, Commit, GoVersion string
}

// New returns the metrics of a mount that exchanges keys at services. All counters are
// exposed from the start, as 0: a rate needs a value to start from.
func New(build Build, services []string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "exchanges_total",
			Help: "Exchanges of an API key for a token, each with its retries, by token service and outcome.",
		}, []string{"service", "outcome"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "exchange_duration_seconds",
			Help:    "Time that exchanges took, retries and the waits between them included, by token service.",
			Buckets: durationBuckets(),
		}, []string{"service"}),
		state: newStateDescs(),
	}
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "reads_total",
		Help: "Requests for a token, by what was returned.",
	}, []string{"outcome"})
	rotations := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "rotations_total",
		Help: "Rotations of an API key, by outcome.",
	}, []string{"outcome"})
	m.registry.MustRegister(m.exchanges, m.durations, reads, rotations, buildInfo(build))
	for _, service := range services {
		m.durations.WithLabelValues(service)
		for _, outcome := range ExchangeOutcomes() {
			m.exchanges.WithLabelValues(service, string(outcome))
		}
	}
	m.reads = byOutcome(reads, ReadOutcomes())
	m.rotations = byOutcome(rotations, RotationOutcomes())
	return m
}

// durationBuckets, in seconds, reach from a service nearby to the 80 s at which a shared
// exchange times out.
func durationBuckets() []float64 {
	return []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80}
}

func byOutcome[O ~string](vec *prometheus.CounterVec, outcomes []O) map[O]prometheus.Counter {
	counters := make(map[O]prometheus.Counter, len(outcomes))
	for _, outcome := range outcomes {
		counters[outcome] = vec.WithLabelValues(string(outcome))
	}
	return counters
}

func buildInfo(build Build) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help:        "Always 1. The labels say which build of the plugin the mount runs.",
		ConstLabels: prometheus.Labels{"version": build.Version, "commit": build.Commit, "go_version": build.GoVersion},
	}, func() float64 { return 1 })
}

// Exchanged counts an exchange at one of the services that New got, and how long it took.
func (m *Metrics) Exchanged(service string, outcome ExchangeOutcome, took time.Duration) {
	m.exchanges.WithLabelValues(service, string(outcome)).Inc()
	m.durations.WithLabelValues(service).Observe(took.Seconds())
}

// Read counts a request for a token. It allocates nothing and takes no lock.
func (m *Metrics) Read(outcome ReadOutcome) { m.reads[outcome].Inc() }

// Rotated counts a rotation of an API key.
func (m *Metrics) Rotated(outcome RotationOutcome) { m.rotations[outcome].Inc() }
