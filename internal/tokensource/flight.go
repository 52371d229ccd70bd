// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"time"
)

// errPatience ends a wait that had something to fall back on.
var errPatience = errors.New("exchange takes long")

func endedFlight(err error) *flight {
	done := make(chan struct{})
	close(done)
	return &flight{done: done, err: err}
}

// wait returns the flight's error once it has ended, or sooner if the reader
// gives up, the source closes, or, with a fallback, patience ends.
func (f *flight) wait(reader, source context.Context, fallback bool) error {
	select {
	case <-f.done:
		return f.err
	default:
	}
	var impatient <-chan time.Time
	if fallback {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case <-f.done:
		return f.err
	case <-impatient:
		return errPatience
	case <-reader.Done():
		return reader.Err()
	case <-source.Done():
		return ErrClosed
	}
}
