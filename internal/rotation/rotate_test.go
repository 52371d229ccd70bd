// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// panickingStore panics whenever it is asked.
type panickingStore struct{}

func (panickingStore) Claim(context.Context, Ref, string) (Claim, error) { panic("a secret") }

// TestRotate_panicEndsNoProcess holds it in the goroutine that a rotation has of its own, in
// the store and in what is told of its end.
func TestRotate_panicEndsNoProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Event
		e := NewEngine(Options{
			Store: panickingStore{}, Holders: &Holders{},
			Observe: func(event Event) { told = append(told, event) },
			Wake:    func(Ref) { panic("a secret") },
		})
		defer e.Close()
		for range 2 {
			_, err := e.Rotate(context.Background(), Ref{Config: "a"}, nil)
			if err == nil || err.Error() != `rotating the key of config "a" failed in the plugin (string)` {
				t.Errorf("the error is %v", err)
			}
		}
		if len(told) != 4 || told[0].Kind != Panicked || e.IsAsked(Ref{Config: "a"}) {
			t.Errorf("told were %v", told)
		}
	})
}

// TestRotate_afterClose is refused with an error that says why.
func TestRotate_afterClose(t *testing.T) {
	e := NewEngine(Options{Store: panickingStore{}, Holders: &Holders{}})
	e.Close()
	if _, err := e.Rotate(context.Background(), Ref{Config: "a"}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("the error is %v", err)
	}
}

// TestRotate_graceOfThoseWhoJoin is which of two grace periods counts.
func TestRotate_graceOfThoseWhoJoin(t *testing.T) {
	none, hour, day := new(time.Duration), new(time.Hour), new(24*time.Hour)
	for name, c := range map[string]struct{ first, joins, want *time.Duration }{
		"a leak counts":                      {hour, none, none},
		"a leak counts before the config's":  {nil, none, none},
		"a shorter one counts":               {day, hour, hour},
		"a longer one does not":              {hour, day, hour},
		"the config's own takes none away":   {hour, nil, hour},
		"one that may be longer than it not": {nil, day, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := &flight{grace: c.first}
			f.shorten(c.joins)
			if f.grace != c.want {
				t.Errorf("it is %v", f.grace)
			}
		})
	}
}

// TestEngine_remembersNothingOfNobody holds that what an engine remembers of a record goes with
// the record, and does not come of a config's being written.
func TestEngine_remembersNothingOfNobody(t *testing.T) {
	e := NewEngine(Options{Store: panickingStore{}, Holders: &Holders{}})
	defer e.Close()
	ref := Ref{Config: "a"}
	e.ClearFailures(ref)
	if len(e.memories) != 0 {
		t.Error("a written config is remembered")
	}
	if _, err := e.Advance(context.Background(), ref); err == nil || e.Status(ref).Failures != 1 {
		t.Error("a failure is not remembered")
	}
	e.ClearFailures(ref)
	if e.Status(ref).Failures != 0 {
		t.Error("the failure is remembered after a write")
	}
	e.Forget(ref)
	if len(e.memories) != 0 {
		t.Error("a record that is gone is remembered")
	}
}
