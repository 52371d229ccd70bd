// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// limitedSession is a session with an issuer that is not called as long as it asked
// not to be, by any session, and is sent no key or token again as soon as it refused it.
type limitedSession struct {
	session rotation.Session
	limit   *tokensource.RateLimit
	backoff *tokensource.Backoff
	// byToken says that the session is opened with a token in place of a key, as the platform's
	// are: its login and Details make no call.
	byToken bool
	release func()
}

var _ rotation.Session = (*limitedSession)(nil)

func (s *limitedSession) login(ctx context.Context, issuer rotation.Issuer, at rotation.Binding, value rotation.Secret) (err error) {
	if err := s.backoff.Check(); err != nil {
		return err
	}
	s.session, err = issuer.Login(ctx, at, value)
	var failed *upstream.Error
	switch {
	case s.byToken:
	case err == nil:
		s.backoff.Record(nil)
	case errors.As(err, &failed) && (failed.Outcome == upstream.Refused || failed.RetryAfter > 0):
		s.backoff.Record(failed) // Without what it says of the key's state, which may be another one soon.
	}
	return err
}

// call makes a call unless the rate limit is in force, and takes note of its outcome.
func (s *limitedSession) call(make func() error) error {
	if err := s.limit.Check(); err != nil {
		return err
	}
	err := make()
	s.limit.Record(err)
	var failed *upstream.Error
	// Any other refusal is about what was asked for.
	if s.byToken && (err == nil || errors.As(err, &failed) && failed.Status == http.StatusUnauthorized) {
		s.backoff.Record(err)
	}
	return err
}

// Details implements rotation.Session.
func (s *limitedSession) Details(ctx context.Context) (d rotation.Details, err error) {
	if s.byToken {
		return s.session.Details(ctx)
	}
	err = s.call(func() (err error) {
		d, err = s.session.Details(ctx)
		return err
	})
	return d, err
}

// Create implements rotation.Session.
func (s *limitedSession) Create(ctx context.Context, key rotation.NewKey) (d rotation.Details, value rotation.Secret, err error) {
	err = s.call(func() (err error) {
		d, value, err = s.session.Create(ctx, key)
		return err
	})
	return d, value, err
}

// Find implements rotation.Session.
func (s *limitedSession) Find(ctx context.Context, prefix string, of rotation.Binding) (found []rotation.Details, err error) {
	err = s.call(func() (err error) {
		found, err = s.session.Find(ctx, prefix, of)
		return err
	})
	return found, err
}

// List implements rotation.Session.
func (s *limitedSession) List(ctx context.Context, of rotation.Binding) (listed []rotation.Details, err error) {
	err = s.call(func() (err error) {
		listed, err = s.session.List(ctx, of)
		return err
	})
	return listed, err
}

// Get implements rotation.Session.
func (s *limitedSession) Get(ctx context.Context, id string) (d rotation.Details, err error) {
	err = s.call(func() (err error) {
		d, err = s.session.Get(ctx, id)
		return err
	})
	return d, err
}

// Disable implements rotation.Session.
func (s *limitedSession) Disable(ctx context.Context, id string) error {
	return s.call(func() error { return s.session.Disable(ctx, id) })
}

// Delete implements rotation.Session.
func (s *limitedSession) Delete(ctx context.Context, id string) error {
	return s.call(func() error { return s.session.Delete(ctx, id) })
}

// Now implements rotation.Session.
func (s *limitedSession) Now() time.Time { return s.session.Now() }

// Close implements rotation.Session.
func (s *limitedSession) Close() {
	s.session.Close()
	s.release()
}
