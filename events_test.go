// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// testLog keeps what a backend logs.
type testLog struct {
	mu      sync.Mutex
	content bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.content.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.content.String()
}

// take returns the lines since the last time.
func (l *testLog) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.content.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	l.content.Reset()
	return lines
}

// testEvents keeps what a backend sends, and fails each time if it is told to.
type testEvents struct {
	mu   sync.Mutex
	sent []sentEvent
	fail error
}

type sentEvent struct {
	kind     string
	metadata map[string]any
}

func (e *testEvents) SendEvent(_ context.Context, kind logical.EventType, event *logical.EventData) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent = append(e.sent, sentEvent{string(kind), event.Metadata.AsMap()})
	return e.fail
}

// take returns the kinds of the events since the last time.
func (e *testEvents) take() (kinds []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.sent {
		kinds = append(kinds, event.kind)
	}
	e.sent = nil
	return kinds
}

// Each change of state is one event and one log line, and nothing else is either.
func TestEvents_oneForEachChangeOfState(t *testing.T) {
	quietly := func(m *mount) {
		for range 5 {
			m.readToken("us-south")
			m.must(logical.ReadOperation, "config/us-south", nil)
			m.ticks(time.Minute)
		}
	}
	exchangesFail := func(m *mount) {
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
		for range 10 {
			_, _ = m.do(logical.UpdateOperation, "token/us-south", nil)
			time.Sleep(30 * time.Second)
		}
		m.sim.ClearFault()
		m.must(logical.UpdateOperation, "token/us-south", nil)
	}
	tests := map[string]struct {
		happens func(m *mount)
		events  []string
		lines   []string
	}{
		"reads":                       {quietly, nil, nil},
		"a write":                     {func(m *mount) { m.writeConfig("us-south", nil) }, []string{"apic/config-write"}, []string{"[INFO]  config written: config=us-south"}},
		"a deletion":                  {func(m *mount) { m.must(logical.DeleteOperation, "config/us-south", nil) }, []string{"apic/config-delete"}, []string{"[INFO]  config deleted: config=us-south"}},
		"a rotation":                  {func(m *mount) { m.rotate("us-south") }, []string{"apic/config-rotate"}, []string{"[INFO]  api key rotated: config=us-south key_id=", "[INFO]  replaced api key deleted at its issuer: config=us-south key_id="}},
		"exchanges that fail a while": {exchangesFail, []string{"apic/exchange-fail"}, []string{"[WARN]  exchanges fail", "[INFO]  exchanges work again: config=us-south"}},
		"a rotation that fails": {
			func(m *mount) {
				m.sim.LockKey(testKey)
				m.failure(logical.UpdateOperation, "config/us-south/rotate", nil)
			},
			[]string{"apic/config-rotate-fail"}, []string{"[WARN]  rotating the api key failed"},
		},
		"a write with a key that is refused": {
			func(m *mount) {
				m.failure(logical.UpdateOperation, "config/us-south", map[string]any{"api_key": "unknown-key"})
			}, nil, nil,
		},
		"a rotation of no config": {
			func(m *mount) { m.failure(logical.UpdateOperation, "config/nowhere/rotate", nil) }, nil, nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rotationTest(t, func(m *mount) {
				m.log.take()
				m.events.take()
				test.happens(m)
				if sent := m.events.take(); !slices.Equal(sent, test.events) {
					t.Errorf("events are %q", sent)
				}
				lines := m.log.take()
				if !slices.EqualFunc(lines, test.lines, strings.HasPrefix) {
					t.Errorf("lines are %q", lines)
				}
			})
		})
	}
}

func TestEvents_sayWhatHappenedToWhichConfig(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.events.take()
		m.writeConfig("us-south", nil)
		if len(m.events.sent) != 1 {
			t.Fatalf("%d events", len(m.events.sent))
		}
		want := map[string]string{
			"path": "config/us-south", "data_path": "config/us-south", "operation": "config-write", "modified": "true", "name": "us-south",
		}
		for field, value := range want {
			if got := m.events.sent[0].metadata[field]; got != value {
				t.Errorf("%s is %v", field, got)
			}
		}
	})
}

func TestEvents_thatCannotBeSentFailNoRequest(t *testing.T) {
	rotationTest(t, func(m *mount) {
		m.events.fail = errors.New("no event bus")
		m.writeConfig("us-south", nil)
		m.rotate("us-south")
		m.readToken("us-south")
	})
}
