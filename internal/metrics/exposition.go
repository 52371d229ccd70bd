// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package metrics

import (
	"bytes"
	"io"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// State is what a mount holds at the moment it is asked.
type State struct {
	// Configs is how many configs are stored, and Unreadable how many of them could not
	// be loaded.
	Configs, Unreadable int
	// PerConfig are the configs that have metrics of their own, if any.
	PerConfig []Config
}

// omitted is how many configs nobody tried to load, or wants to know of.
func (s State) omitted() int { return s.Configs - s.Unreadable - len(s.PerConfig) }

// Config is the state of one config. A time that is zero has no metric.
type Config struct {
	Name string
	// TokenExpiresAt is the end of the shared token or, where each entity has a token, of
	// the one that was issued last. It is zero if no token is valid.
	TokenExpiresAt time.Time
	// EntityTokens is how many Vault entities have a token of their own; nil for a config
	// without tokens for entities.
	EntityTokens *int
	// ClockSkew is how far the host's clock is ahead of the token service's, negative
	// if it is behind; 0 while they agree.
	ClockSkew time.Duration
	// LastSuccess is when an exchange last succeeded.
	LastSuccess time.Time
	// ExchangeFailures and RotationFailures count failures since the last success.
	ExchangeFailures, RotationFailures int
	// KeySetAt is when the present API key came, by a write or a rotation.
	KeySetAt time.Time
	// NextRotation is when the API key is due to be replaced. A rotation that fails or
	// misses its window does not move it.
	NextRotation time.Time
	// KeyExpiresAt is when the API key ends, as far as its issuer has said.
	KeyExpiresAt time.Time
	// CanBeAwayUntil is until when Vault may be down and still get tokens afterwards;
	// zero for a config whose keys do not renew themselves.
	CanBeAwayUntil time.Time
}

// ContentType is the media type of what Text returns.
func ContentType() string { return string(textFormat()) }

// textFormat is version 0.0.4 of Prometheus' text format, which every scraper reads.
func textFormat() expfmt.Format { return expfmt.NewFormat(expfmt.TypeTextPlain) }

// Text is the mount's exposition.
func (m *Metrics) Text(s State) ([]byte, error) {
	present := prometheus.NewRegistry()
	if err := present.Register(stateCollector{m.state, s}); err != nil {
		return nil, err
	}
	families, err := prometheus.Gatherers{m.registry, present}.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(yieldingWriter{&text}, textFormat())
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// yieldingWriter lets others run before each write. The text of ten thousand configs takes a quarter of a
// second of a processor, for which those who read tokens would have to wait where there is one.
type yieldingWriter struct{ io.Writer }

func (w yieldingWriter) Write(p []byte) (int, error) {
	runtime.Gosched()
	return w.Writer.Write(p)
}

// configsAtOnce is how many configs are collected before others may run.
const configsAtOnce = 32

// stateDescs describe the gauges whose values are read at each scrape.
type stateDescs struct {
	configs, unreadable, omitted                   *prometheus.Desc
	tokenExpiry, lastSuccess, keySet, nextRotation *prometheus.Desc
	exchangeFailures, rotationFailures, clockSkew  *prometheus.Desc
	keyExpiry, canBeAwayUntil, entityTokens        *prometheus.Desc
}

func newStateDescs() stateDescs {
	ofMount := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, nil, nil)
	}
	ofConfig := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, []string{"config"}, nil)
	}
	return stateDescs{
		configs:          ofMount("configs", "Configs that are stored."),
		unreadable:       ofMount("configs_unreadable", "Configs that could not be loaded for this exposition; the per-config metrics lack them. 0 if it loads none."),
		omitted:          ofMount("configs_omitted", "Configs that are stored and left out of the per-config metrics: too many, not in memory, or not wanted."),
		tokenExpiry:      ofConfig("token_expiry_timestamp_seconds", "End of the shared token, in Unix seconds; with cache=entity, of the one that was issued last. Absent while there is none that lives."),
		entityTokens:     ofConfig("entity_tokens", "Vault entities that have a token of their own in memory, at most 1,000. Only for configs with cache=entity."),
		lastSuccess:      ofConfig("exchange_last_success_timestamp_seconds", "When an exchange last succeeded, in Unix seconds. Absent until one did."),
		clockSkew:        ofConfig("clock_skew_seconds", "How far the node's clock is ahead of the token service's, negative if it is behind; 0 while they agree."),
		exchangeFailures: ofConfig("exchange_consecutive_failures", "Failed exchanges of the config's key since its last success."),
		keySet:           ofConfig("api_key_set_timestamp_seconds", "When the present API key came, by a write or a rotation, in Unix seconds."),
		nextRotation:     ofConfig("api_key_next_rotation_timestamp_seconds", "When the API key is due to be rotated, in Unix seconds. Absent if nothing rotates it automatically. A rotation that fails or misses its window does not move it."),
		keyExpiry:        ofConfig("api_key_expiry_timestamp_seconds", "When the API key ends, as its issuer says, in Unix seconds. Absent if it does not, if Vault has not asked, and for keys that renew themselves."),
		rotationFailures: ofConfig("api_key_rotation_consecutive_failures", "Failed rotations since the last success."),
		canBeAwayUntil:   ofConfig("can_be_away_until_timestamp_seconds", "Until when Vault may be down and still get tokens afterwards, in Unix seconds: the end of the token, or of the API key in reserve. Only for configs whose keys renew themselves."),
	}
}

// stateCollector collects the metrics of one State; each exposition makes a new one.
type stateCollector struct {
	descs stateDescs
	state State
}

func (c stateCollector) Describe(descs chan<- *prometheus.Desc) {
	d := c.descs
	for _, desc := range []*prometheus.Desc{
		d.configs, d.unreadable, d.omitted, d.tokenExpiry, d.lastSuccess, d.exchangeFailures, d.keySet, d.nextRotation, d.rotationFailures, d.clockSkew,
		d.keyExpiry, d.canBeAwayUntil, d.entityTokens,
	} {
		descs <- desc
	}
}

func (c stateCollector) Collect(metrics chan<- prometheus.Metric) {
	d := c.descs
	metrics <- gauge(d.configs, float64(c.state.Configs))
	metrics <- gauge(d.unreadable, float64(c.state.Unreadable))
	metrics <- gauge(d.omitted, float64(c.state.omitted()))
	for i, config := range c.state.PerConfig {
		if i%configsAtOnce == 0 {
			runtime.Gosched()
		}
		metrics <- gauge(d.exchangeFailures, float64(config.ExchangeFailures), config.Name)
		metrics <- gauge(d.rotationFailures, float64(config.RotationFailures), config.Name)
		metrics <- gauge(d.clockSkew, config.ClockSkew.Seconds(), config.Name)
		if config.EntityTokens != nil {
			metrics <- gauge(d.entityTokens, float64(*config.EntityTokens), config.Name)
		}
		for desc, at := range map[*prometheus.Desc]time.Time{
			d.tokenExpiry: config.TokenExpiresAt, d.lastSuccess: config.LastSuccess,
			d.keySet: config.KeySetAt, d.nextRotation: config.NextRotation, d.keyExpiry: config.KeyExpiresAt, d.canBeAwayUntil: config.CanBeAwayUntil,
		} {
			if !at.IsZero() {
				metrics <- gauge(desc, float64(at.UnixMilli())/1000, config.Name)
			}
		}
	}
}

// gauge makes one sample. A label value that is not UTF-8 becomes an invalid metric, which
// the registry reports.
func gauge(desc *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	made, err := prometheus.NewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return made
}
