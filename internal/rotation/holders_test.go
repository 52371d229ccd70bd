// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"slices"
	"testing"
)

func TestHolders_rules(t *testing.T) {
	a, b := Ref{Config: "a"}, Ref{Config: "b"}
	holding := New("b", "key")
	retiring := New("a", "another")
	retiring.Retired = []Retired{{Key: Key{Value: "key", ID: "id"}}}
	condemning := retiring.replace(Retired{Key: Key{Value: "key", ID: "id"}, Condemned: true})
	var held *HeldError
	var taken *TakenError
	for name, c := range map[string]struct {
		do   func(h *Holders) error
		want func(error) bool
	}{
		"a key that nobody holds is condemned": {
			func(h *Holders) error { h.Reconcile(a, retiring); return h.Condemn(a, "key") },
			func(err error) bool { return err == nil },
		},
		"a key that another holds is not": {
			func(h *Holders) error { h.Reconcile(b, holding); return h.Condemn(a, "key") },
			func(err error) bool { return errors.As(err, &held) && held.By == b },
		},
		"nor one that is being written": {
			func(h *Holders) error { _ = h.Reserve(b, holding); return h.Condemn(a, "key") },
			func(err error) bool { return errors.As(err, &held) && held.By == b },
		},
		"a write that failed holds until what is stored was read": {
			func(h *Holders) error {
				_ = h.Reserve(b, holding)
				h.Reconcile(b, New("b", "old"))
				return h.Condemn(a, "key")
			},
			func(err error) bool { return err == nil },
		},
		"a key that is about to be condemned is not taken": {
			func(h *Holders) error { _ = h.Condemn(a, "key"); return h.Reserve(b, holding) },
			func(err error) bool { return errors.As(err, &taken) && taken.By == a && errors.Is(err, ErrCondemned) },
		},
		"nor one that is stored as condemned": {
			func(h *Holders) error { h.Reconcile(a, condemning); return h.Reserve(b, holding) },
			func(err error) bool { return errors.As(err, &taken) && taken.By == a },
		},
		"a key that is gone can be taken": {
			func(h *Holders) error { h.Reconcile(a, condemning); h.Forget(a); return h.Reserve(b, holding) },
			func(err error) bool { return err == nil },
		},
		"a retired key can be taken": {
			func(h *Holders) error { h.Reconcile(a, retiring); return h.Reserve(b, holding) },
			func(err error) bool { return err == nil },
		},
		"what is refused leaves no mark": {
			func(h *Holders) error {
				h.Reconcile(a, condemning)
				both := holding
				both.Candidate = &Key{Value: "free"}
				_ = h.Reserve(b, both)
				return h.Condemn(a, "free")
			},
			func(err error) bool { return err == nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &Holders{}
			h.Complete()
			if err := c.do(h); !c.want(err) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestHolders_notAllRead(t *testing.T) {
	h, ref := &Holders{}, Ref{Config: "a"}
	if err := h.Reserve(ref, New("a", "key")); !errors.Is(err, ErrNotAllRead) {
		t.Errorf("an import: %v", err)
	}
	h.Reconcile(ref, New("a", "key"))
	rotating := New("a", "key")
	rotating.Candidate = &Key{Value: "candidate"}
	if err := h.Reserve(ref, rotating); err != nil {
		t.Errorf("a candidate: %v", err)
	}
	h.Listed()
	if err := h.Reserve(Ref{Config: "b"}, New("b", "other")); err != nil {
		t.Errorf("an import once all are read: %v", err)
	}
	if err := h.Condemn(ref, "old"); !errors.Is(err, ErrNotAllRead) {
		t.Errorf("a deletion: %v", err)
	}
	disabling, back := New("c", "key in use"), New("c", "disabled")
	disabling.Retired = []Retired{{Key: Key{Value: "disabled"}, Disabled: true}}
	h.Reconcile(Ref{Config: "c"}, disabling)
	if err := h.Reserve(Ref{Config: "c"}, back); !errors.Is(err, ErrNotAllRead) {
		t.Errorf("a key that a process before may be disabling is taken back: %v", err)
	}
	h.Complete()
	if err := h.Reserve(Ref{Config: "c"}, back); err != nil {
		t.Errorf("a disabled key is taken back: %v", err)
	}
	if err := h.Condemn(ref, "old"); err != nil {
		t.Errorf("a deletion once no late write can land: %v", err)
	}
}

// TestHolders_seen holds that a read clears no mark while what was marked may yet be stored.
func TestHolders_seen(t *testing.T) {
	h, a, b := &Holders{}, Ref{Config: "a"}, Ref{Config: "b"}
	h.Complete()
	stored := New("a", "key")
	_ = h.Condemn(a, "old")
	_ = h.Reserve(a, New("a", "new"))
	for _, seen := range []Record{stored, {}, stored} {
		h.Seen(a, seen)
		if err := h.Reserve(b, New("b", "old")); !errors.Is(err, ErrCondemned) {
			t.Errorf("the key whose deletion is being decided may be taken: %v", err)
		}
		if err := h.Condemn(b, "new"); err == nil {
			t.Error("the key that is being taken may be deleted")
		}
	}
	if err := h.Condemn(b, "key"); err == nil {
		t.Error("the key that is stored may be deleted")
	}
	h.Reconcile(a, stored)
	if err := h.Reserve(b, New("b", "old")); err != nil {
		t.Errorf("a mark is left: %v", err)
	}
	if err := h.Condemn(b, "new"); err != nil {
		t.Errorf("a mark is left: %v", err)
	}
	h.Forget(a)
	h.Forget(b)
	if len(h.uses) != 0 || len(h.byRef) != 0 {
		t.Error("something is left of records that are gone")
	}
}

// TestHolders_manyOfOneKey has records come and go that hold the same key.
func TestHolders_manyOfOneKey(t *testing.T) {
	h := &Holders{}
	h.Complete()
	refs := []Ref{{Config: "a"}, {Config: "b"}, {Config: "c"}}
	for _, ref := range refs {
		h.Reconcile(ref, New(ref.Config, "key"))
	}
	for i, gone := range refs {
		h.Forget(gone)
		h.Forget(gone)
		for _, ref := range refs {
			others := len(refs) - i - 1
			if slices.Contains(refs[i+1:], ref) {
				others--
			}
			if _, held := h.OtherHolder(ref, "key"); held != (others > 0) {
				t.Errorf("without %v, somebody beside %s holds it: %t", refs[:i+1], ref, held)
			}
		}
	}
	if len(h.uses) != 0 || len(h.byRef) != 0 {
		t.Error("something is left of records that are gone")
	}
}
