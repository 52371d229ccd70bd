// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"context"
	"errors"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	iamService = "IAM API key service"
	// iamURLField is the config's field that errors tell to check.
	iamURLField = "iam_url"
)

// IAM is IBM Cloud's issuer of API keys, at any address that a key was made at.
type IAM struct {
	// Transports carry the requests.
	Transports *upstream.Transports
	// RequestTimeout bounds one attempt, from dialling to the answer's last byte.
	RequestTimeout time.Duration
	// MaxRetries is how many attempts may follow the first one.
	MaxRetries int
}

var _ rotation.Issuer = (*IAM)(nil)

// Login exchanges a key for the bearer token that the session's calls are made with.
// at.Issuer is IAM's base, such as https://iam.cloud.ibm.com, without a slash at the
// end. The error is an *upstream.Error, and rotation.ErrNoSuchKey or ErrDisabled too
// if IAM says that. A key that was just created may be unknown for some seconds, as
// long as it has not reached all of IAM.
func (i *IAM) Login(ctx context.Context, at rotation.Binding, value rotation.Secret) (rotation.Session, error) {
	s := &iamSession{key: value, session: session{keysURL: at.Issuer + "/v1/apikeys", explain: explainIAM}}
	err := s.open(upstream.Options{
		Service: iamService, URL: at.Issuer, URLField: iamURLField, RequestIDHeader: tokenservice.TransactionIDHeader,
		RequestTimeout: i.RequestTimeout, MaxRetries: i.MaxRetries,
	}, i.Transports, at.CACert)
	if err != nil {
		return nil, err
	}
	if s.bearer, err = i.exchange(ctx, s, at.Issuer); err != nil {
		s.Close()
		return nil, err
	}
	s.secrets = []upstream.Secret{s.bearer, s.key}
	return s, nil
}

// exchange returns the bearer of a session that is being opened.
func (i *IAM) exchange(ctx context.Context, s *iamSession, url string) (rotation.Secret, error) {
	service, err := tokenservice.New(tokenservice.Options{
		Kind: tokenservice.IAM, TokenURL: url + "/identity/token", URLField: iamURLField, APIKey: s.key,
		Transport: &s.clock, RequestTimeout: i.RequestTimeout, MaxRetries: i.MaxRetries,
	})
	if err != nil {
		return "", s.caller.NotSent(err.Error())
	}
	token, err := service.Exchange(ctx)
	if err != nil {
		return "", loginError(err)
	}
	return token.Value, nil
}

// loginError adds what a refusal tells of the key's state.
func loginError(err error) error {
	var failed *upstream.Error
	if !errors.As(err, &failed) {
		return err
	}
	switch failed.Code {
	case tokenservice.IAMKeyNotFound:
		return &keyError{failed, rotation.ErrNoSuchKey}
	case tokenservice.IAMKeyDisabled:
		return &keyError{failed, ErrDisabled}
	default:
		return err
	}
}
