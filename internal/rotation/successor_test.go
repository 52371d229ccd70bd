// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// altering is an issuer whose keys are described otherwise.
type altering struct {
	Issuer
	// present alters what is said of the key in use, made what is said of a new one.
	present, made func(*Details)
}

func (i altering) Login(ctx context.Context, at Binding, value Secret) (Session, error) {
	s, err := i.Issuer.Login(ctx, at, value)
	if err != nil {
		return nil, err
	}
	return alteringSession{s, i}, nil
}

type alteringSession struct {
	Session
	of altering
}

func (s alteringSession) Details(ctx context.Context) (Details, error) {
	d, err := s.Session.Details(ctx)
	s.of.present(&d)
	return d, err
}

func (s alteringSession) Create(ctx context.Context, key NewKey) (Details, Secret, error) {
	d, value, err := s.Session.Create(ctx, key)
	d.ActionWhenLeaked, d.SupportSessions = key.Like.ActionWhenLeaked, key.Like.SupportSessions
	if key.TTL > 0 {
		d.ExpiresAt = d.CreatedAt.Add(key.TTL)
	}
	s.of.made(&d)
	return d, value, err
}

// TestSuccessor_isNotWeaker refuses what the present key's settings cannot be carried over to,
// and leaves no key behind.
func TestSuccessor_isNotWeaker(t *testing.T) {
	guarded := func(d *Details) { d.ActionWhenLeaked, d.SupportSessions = "delete", true }
	ends := func(d *Details) { d.ExpiresAt = d.CreatedAt.Add(90 * 24 * time.Hour) }
	as := func(*Details) {}
	for name, c := range map[string]struct {
		present, made func(*Details)
		// want is part of the error, empty for none; created says that a key is made and deleted.
		want    string
		created bool
	}{
		"all is carried over":      {guarded, as, "", true},
		"a life is carried over":   {ends, as, "", true},
		"no action when leaked":    {guarded, func(d *Details) { d.ActionWhenLeaked = "none" }, "without its action_when_leaked", true},
		"another action":           {guarded, func(d *Details) { d.ActionWhenLeaked = "disable" }, "without its action_when_leaked", true},
		"no sessions":              {guarded, func(d *Details) { d.SupportSessions = false }, "without its support_sessions", true},
		"no end":                   {ends, func(d *Details) { d.ExpiresAt = time.Time{} }, "without its expires_at", true},
		"a later end":              {ends, func(d *Details) { d.ExpiresAt = d.ExpiresAt.Add(24 * time.Hour) }, "without its expires_at", true},
		"what cannot be told":      {func(d *Details) { d.NotCarried = "description" }, as, "the same description", false},
		"an end before its start":  {func(d *Details) { d.ExpiresAt = d.CreatedAt.Add(-time.Hour) }, as, "ends before it was made", false},
		"none, and none was asked": {func(d *Details) { d.ActionWhenLeaked = "none" }, func(d *Details) { d.ActionWhenLeaked = "" }, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				old := b.has(false, 0)
				p := b.boot()
				b.pass(time.Minute)
				p.engine.issuer = altering{p, c.present, c.made}
				_, err := p.engine.Rotate(t.Context(), Ref{Config: "a"}, nil)
				b.pass(10 * time.Minute)
				b.end()
				if c.want == "" {
					if err != nil || b.record().Current.Value == old.value {
						t.Errorf("it is not rotated: %v", err)
					}
					return
				}
				if !isRefused(err) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("the error is %v", err)
				}
				if b.record().Current.Value != old.value || len(b.managedKeys()) > 0 || len(b.record().Retired) > 0 {
					t.Errorf("%d keys are left; the record is %v", len(b.managedKeys()), b.disk.stored[Ref{Config: "a"}])
				}
				if made := b.serial > 1; made != c.created {
					t.Errorf("a key is made: %t", made)
				}
			})
		})
	}
}

// TestKey_ReplaceBy is when a key is replaced because it ends.
func TestKey_ReplaceBy(t *testing.T) {
	made := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		key  Key
		want time.Time
	}{
		"no end":                   {Key{CreatedAt: made}, time.Time{}},
		"a short life":             {Key{CreatedAt: made, ExpiresAt: made.Add(4 * day)}, made.Add(3 * day)},
		"a long life":              {Key{CreatedAt: made, ExpiresAt: made.Add(365 * day)}, made.Add(351 * day)},
		"nobody knows how long it": {Key{ExpiresAt: made.Add(365 * day)}, made.Add(351 * day)},
	} {
		if got := c.key.ReplaceBy(); !got.Equal(c.want) {
			t.Errorf("%s: it is replaced by %s, not %s", name, got, c.want)
		}
	}
}
