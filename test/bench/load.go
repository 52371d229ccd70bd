// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxConcurrency is the most readers that there are at a time.
const maxConcurrency = 32

// bound says when a load ends: after a time, after a number of reads, or after
// whichever comes first. A zero bounds nothing.
type bound struct {
	duration time.Duration
	reads    int64
}

// sample is what a load measured.
type sample struct {
	reads   int
	elapsed time.Duration
	times   []time.Duration // sorted
}

func (s sample) rate() float64 { return float64(s.reads) / s.elapsed.Seconds() }

func (s sample) quantile(q float64) time.Duration {
	return s.times[min(int(q*float64(len(s.times))), len(s.times)-1)]
}

// onePath is the choice among one.
func onePath(path string) func(*rand.Rand) string { return func(*rand.Rand) string { return path } }

// load reads as fast as readers that wait for each answer can.
func (s *server) load(ctx context.Context, readers int, until bound, path func(*rand.Rand) string) (sample, error) {
	base, err := url.Parse(s.address)
	if err != nil {
		return sample{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		group   sync.WaitGroup
		started atomic.Int64
		times   = make([][]time.Duration, readers)
		begin   = time.Now()
	)
	for i := range readers {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), uint64(begin.UnixNano())))
			for ctx.Err() == nil && (until.duration == 0 || time.Since(begin) < until.duration) {
				if until.reads > 0 && started.Add(1) > until.reads {
					return
				}
				took, err := s.timedRead(ctx, base, path(random))
				if err != nil {
					cancel(err)
					return
				}
				times[i] = append(times[i], took)
			}
		})
	}
	group.Wait()
	result := sample{elapsed: time.Since(begin), times: slices.Concat(times...)}
	if err := context.Cause(ctx); err != nil {
		return sample{}, err
	}
	result.reads = len(result.times)
	if result.reads == 0 {
		return sample{}, errors.New("no read ended in time")
	}
	slices.Sort(result.times)
	return result, nil
}

// timedRead is one read up to the last byte of its answer.
func (s *server) timedRead(ctx context.Context, base *url.URL, path string) (time.Duration, error) {
	request := (&http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Scheme: base.Scheme, Host: base.Host, Path: "/v1/" + path},
		Header: http.Header{"X-Vault-Token": {s.token}},
	}).WithContext(ctx)
	begin := time.Now()
	response, err := s.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, answeredError(request.Method, path, response)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return time.Since(begin), err
}

// every calls do at once and then each period, until ctx ends.
func every(ctx context.Context, period time.Duration, do func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
