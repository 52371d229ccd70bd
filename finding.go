// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// result is what a check has come to.
type result string

const (
	resultOK      result = "ok"
	resultWarning result = "warning"
	resultError   result = "error"
	resultUnknown result = "unknown"
)

// finding is one thing that was checked.
type finding struct {
	// name is the response's field.
	name   string
	result result
	detail string
	// action is what to do about it, empty if there is nothing to do.
	action string
}

// String is what the response's field says.
func (f finding) String() string {
	text := string(f.result) + ": " + f.detail
	if f.action != "" {
		text += "; " + f.action
	}
	return text
}

// failedFinding is a call that failed, with the service's own advice for an action.
func failedFinding(name string, err error) finding {
	var (
		failed  *upstream.Error
		backoff *tokensource.BackoffError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return finding{name, resultUnknown, "there was no response within the time of a check", "try again"}
	case errors.Is(err, tokensource.ErrClosed):
		return finding{name, resultUnknown, "the config was written or unloaded meanwhile", "check again"}
	case errors.As(err, &backoff):
		return finding{name, resultError, "not asked now, because of the last failure: " + err.Error(), ""}
	case errors.As(err, &failed):
		bare := *failed
		bare.Advice = ""
		return finding{name, resultError, bare.Error(), failed.Advice}
	default:
		return finding{name, resultError, err.Error(), ""}
	}
}
