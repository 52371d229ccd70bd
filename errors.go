// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// userError is a mistake in the request, answered with 400.
type userError struct{ text string }

func (e *userError) Error() string { return e.text }

func userErrorf(format string, args ...any) error {
	return &userError{text: fmt.Sprintf(format, args...)}
}

// fieldError names the field that a value is wrong for. It never quotes the
// value: people paste keys into the wrong field.
func fieldError(field, problem string) error {
	return userErrorf("%s %s", field, problem)
}

// unreadableError is a stored config that this build cannot make sense of.
type unreadableError struct{ text string }

func (e *unreadableError) Error() string { return e.text }

// storageError says which storage call failed. It does not wrap the cause, so that
// a deadline of storage is not taken for one of the token service.
func storageError(doing string, err error) error {
	return fmt.Errorf("%s: storage: %v", doing, err)
}

func noSuchConfig(name string) error {
	return userErrorf("there is no config %q; create it with: vault write <mount>/config/%s api_key=@apikey.json", name, name)
}

// isReadOnly recognises the error by which storage asks for the request to be
// forwarded. On its way to a plugin it loses its identity and keeps its text.
func isReadOnly(err error) bool {
	return strings.Contains(err.Error(), logical.ErrReadOnly.Error())
}

// answerError decides what Vault answers for an error. Coded errors are returned
// as they are: wrapped, they would reach the client as a 500. What the request itself is
// wrong about goes without the operation, and so does what names its config.
func answerError(operation string, err error) (*logical.Response, error) {
	var (
		user    *userError
		short   *tokensource.TooShortError
		backoff *tokensource.BackoffError
		busy    *tokensource.BusyError
		service *upstream.Error
		coded   logical.HTTPCodedError
		claimed *rotation.ClaimedError
	)
	failed := operation + ": " + err.Error()
	switch {
	case errors.As(err, &coded):
		return nil, coded
	case errors.As(err, &claimed), errors.Is(err, rotation.ErrConflict):
		return nil, logical.CodedError(http.StatusConflict, err.Error())
	case isLater(err):
		return nil, logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case errors.As(err, &user), errors.As(err, &short), isForSomebody(err):
		return logical.ErrorResponse("%s", err.Error()), nil
	case errors.As(err, &service) && service.Outcome == upstream.Refused:
		return logical.ErrorResponse("%s", failed), nil
	case errors.As(err, &backoff), errors.As(err, &busy):
		return nil, logical.CodedError(http.StatusServiceUnavailable, failed)
	case errors.Is(err, tokensource.ErrClosed), errors.Is(err, rotation.ErrClosed):
		return nil, logical.CodedError(http.StatusServiceUnavailable, operation+": "+rotation.ErrClosed.Error()+"; try again")
	case errors.As(err, &service):
		return nil, logical.CodedError(http.StatusBadGateway, failed)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, logical.CodedError(http.StatusServiceUnavailable, operation+": the request ended before the token service answered")
	case isReadOnly(err):
		return nil, logical.ErrReadOnly
	default:
		return nil, logical.CodedError(http.StatusInternalServerError, failed)
	}
}

// isLater says that the same may succeed later, with nothing done about it.
func isLater(err error) bool {
	var goesOn *rotation.GoesOnError
	return errors.As(err, &goesOn) || errors.Is(err, rotation.ErrNotAllRead)
}

// isForSomebody says that a rotation cannot go on until somebody has acted.
func isForSomebody(err error) bool {
	var (
		refused *rotation.RefusedError
		held    *rotation.HeldError
	)
	return errors.As(err, &refused) || errors.As(err, &held) || errors.Is(err, rotation.ErrCondemned)
}
