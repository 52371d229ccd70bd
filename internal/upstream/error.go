// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Outcome says whose move it is after a failed call.
type Outcome int

const (
	// Unavailable means that the service could not be reached, was slow, failed
	// or sent an invalid response: the same key may work later.
	Unavailable Outcome = iota
	// Refused means that the service understood the request and declined it: the
	// same key will not work until somebody acts.
	Refused
)

// Error is a failed call. It is built from facts that hold no secret: a
// request's URL or body and the service's body are never among them.
type Error struct {
	Outcome Outcome
	// Service names the service, such as "login token service".
	Service string
	// Host is the URL's host, with its port if it names one.
	Host string
	// Reason says what the service did, in the project's own words: "refused the API key".
	Reason string
	// Advice says what to do about it; it may be empty.
	Advice string
	// Status is the last answer's HTTP status, 0 if there was none.
	Status int
	// Code is the service's own code for a refusal, empty if it gave none that is
	// fit to print.
	Code string
	// RequestID is how the service's support finds the request, empty if the answer
	// does not say in a form that is fit to print.
	RequestID string
	// OutcomeUnknown says that a request may have had its effect, though no answer
	// says so: it was sent and there was no answer, a 5xx, or one of no use.
	OutcomeUnknown bool
	// Untrusted says that the service showed a certificate which the CA of this caller does
	// not vouch for, or which is out of date: others may trust another CA.
	Untrusted bool
	// Attempts is how many requests were sent.
	Attempts int
	// Elapsed is the time that all attempts took together.
	Elapsed time.Duration
	// RetryAfter is how long the service asked callers to back off, 0 if it did not.
	RetryAfter time.Duration
}

// Error names the service and host, what failed, how often it was tried, what to
// do, and the request.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s: %s", e.Service, e.Host, e.Reason)
	if e.Outcome == Unavailable {
		fmt.Fprintf(&b, " (%s, %s)", plural(e.Attempts, "attempt"), e.Elapsed.Round(time.Millisecond))
	}
	if e.Advice != "" {
		b.WriteString("; " + e.Advice)
	}
	if e.RequestID != "" {
		b.WriteString("; IBM's support finds the request as " + e.RequestID)
	}
	return b.String()
}

// WithoutAdvice returns a service's refusal without its advice, which is for the person who
// wrote the key: another key may have been sent. It returns any other error as it is.
func WithoutAdvice(err error) error {
	var failed *Error
	if !errors.As(err, &failed) || failed.Outcome != Refused {
		return err
	}
	bare := *failed
	bare.Advice = ""
	return &bare
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
