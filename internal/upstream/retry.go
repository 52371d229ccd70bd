// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	minRetryWait = 200 * time.Millisecond
	maxRetryWait = 5 * time.Second
)

// checkRetry takes note of what an attempt may have done, and decides whether
// another one follows.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	sent := callOf(ctx)
	mayHaveActed := sent.mayHaveActed(resp, err)
	sent.outcomeUnknown = sent.outcomeUnknown || mayHaveActed
	if sent.once && mayHaveActed {
		return false, nil
	}
	return shouldRetry(ctx, resp, err)
}

// shouldRetry allows another attempt after a connection error, a 429 and a 5xx,
// and only while the wait fits before the caller's deadline. Any other answer is
// whole and final, even if it came at the very end of the caller's time.
func shouldRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if err == nil && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return false, nil
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil {
		return isPassing(err), nil
	}
	wait := retryAfter(resp.StatusCode, resp.Header)
	deadline, bounded := ctx.Deadline()
	tooLong := wait > maxRetryWait || bounded && time.Until(deadline) <= wait
	return !tooLong, nil
}

// isPassing tells connection errors, which may pass, from answers that will be
// the same again.
func isPassing(err error) bool {
	return !errors.Is(err, errAnswerTooLarge) && !errors.Is(err, errSwitched) && !errors.Is(err, errNotLoopback) && !isCorruptGzip(err) &&
		!isUntrusted(err) && !errors.Is(err, http.ErrSchemeMismatch)
}

// retryWait doubles from lowest to highest and takes a random part of the upper
// half, so that many clients of a service that failed do not come back together.
// A Retry-After that shouldRetry let pass is waited out in full.
func retryWait(lowest, highest time.Duration, attempt int, resp *http.Response) time.Duration {
	wait := min(lowest<<min(attempt, 16), highest)
	wait = wait/2 + rand.N(wait/2)
	if resp == nil {
		return wait
	}
	return max(wait, retryAfter(resp.StatusCode, resp.Header))
}
