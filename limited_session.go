// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// limitedSession is a session with an issuer that is not called as long as it asked
// not to be, by any session.
type limitedSession struct {
	session rotation.Session
	limit   *tokensource.RateLimit
	release func()
}

var _ rotation.Session = (*limitedSession)(nil)

// call makes a call unless the rate limit is in force, and takes note of its outcome.
func (s *limitedSession) call(make func() error) error {
	if err := s.limit.Check(); err != nil {
		return err
	}
	err := make()
	s.limit.Record(err)
	return err
}

// Details implements rotation.Session.
func (s *limitedSession) Details(ctx context.Context) (d rotation.Details, err error) {
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
